# SPDX-License-Identifier: Apache-2.0
import csv

import numpy as np
import pytest
import soundfile


@pytest.fixture
def speechlike():
    """Function `(seconds) -> (N,)`: a voiced sound that comes and goes."""

    def make(seconds=2.0):
        time = np.arange(round(16000 * seconds)) / 16000
        tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20))
        return 0.1 * tone * np.sin(2 * np.pi * 3 * time) ** 2

    return make


@pytest.fixture
def published_pairs(shared_data):
    """Row of published figures, clean and noisy signal of four files, one per SNR."""
    folder = shared_data / "benchmark" / "vbdemand96"
    with open(folder / "peers.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["peer"] == "noisy"]
    by_snr = {row["snr_db"]: row for row in rows if float(row["seconds"]) < 4.0}
    assert len(by_snr) == 4
    return [
        (
            row,
            soundfile.read(folder / "clean" / f"{row['file']}.flac")[0],
            soundfile.read(folder / "noisy" / f"{row['file']}.flac")[0],
        )
        for row in by_snr.values()
    ]
