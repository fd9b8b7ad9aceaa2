# SPDX-License-Identifier: Apache-2.0
import csv
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from lmkd_tf.metrics.perceptual import estoi, pesq_wb, stoi
from lmkd_tf.metrics.si_sdr import si_sdr_db

# Two of each speaker, from 2.5 to 17.5 dB.
PUBLISHED_FILES = ("p232_001", "p232_002", "p232_005", "p257_003", "p257_006", "p257_008")


def _speechlike(seconds=2.0):
    time = np.arange(round(16000 * seconds)) / 16000
    tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20))
    return 0.1 * tone * np.sin(2 * np.pi * 3 * time) ** 2


@pytest.fixture
def published(shared_data):
    folder = shared_data / "benchmark" / "vbdemand96"
    with open(folder / "peers.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["peer"] == "noisy"]
    return folder, {row["file"]: row for row in rows}


def test_published_noisy_figures_are_reproduced(published):
    folder, rows = published
    names = [name for name in PUBLISHED_FILES if name in rows]
    assert len(names) >= 4
    for name in names:
        noisy, _ = soundfile.read(folder / "noisy" / f"{name}.flac")
        speech, _ = soundfile.read(folder / "clean" / f"{name}.flac")
        row = rows[name]
        assert pesq_wb(speech, noisy).value == pytest.approx(float(row["pesq_wb"]), abs=2e-3)
        assert stoi(speech, noisy).value == pytest.approx(float(row["stoi"]), abs=2e-4)
        assert estoi(speech, noisy).value == pytest.approx(float(row["estoi"]), abs=2e-4)
        assert si_sdr_db(speech, noisy) == pytest.approx(float(row["si_sdr_db"]), abs=2e-3)


def test_perfect_estimate_gets_the_best_scores():
    speech = _speechlike()
    assert pesq_wb(speech, speech).value == pytest.approx(4.644, abs=1e-3)  # top of P.862.2
    assert stoi(speech, speech).value == pytest.approx(1.0)
    assert estoi(speech, speech).value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("metric", "reference", "estimate", "note"),
    [
        (pesq_wb, _speechlike(), np.zeros(32000), "PESQ: silent estimate"),
        (pesq_wb, np.zeros(32000), _speechlike(), "PESQ: No utterances detected"),
        (pesq_wb, _speechlike(0.1), _speechlike(0.1), "PESQ: Buffer needs to be at least"),
        (stoi, np.zeros(32000), _speechlike(), "STOI: silent reference"),
        (stoi, _speechlike(0.1), _speechlike(0.1), "STOI: less than 0.4 s"),
        (estoi, _speechlike(0.1), _speechlike(0.1), "ESTOI: less than 0.4 s"),
    ],
)
def test_undefined_score_is_none_with_a_note(metric, reference, estimate, note):
    score = metric(reference, estimate)
    assert score.value is None
    assert score.note.startswith(note)


def test_stoi_of_a_silent_estimate_is_zero():
    assert stoi(_speechlike(), np.zeros(32000)).value == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("metric", [pesq_wb, stoi, estoi])
def test_different_lengths_are_an_error(metric):
    with pytest.raises(ValueError, match=r"\(10,\) and \(9,\)"):
        metric(np.ones(10), np.ones(9))


@pytest.mark.parametrize(("metric", "package"), [(pesq_wb, "pesq"), (stoi, "pystoi")])
def test_missing_package_is_named_with_its_extra(monkeypatch, metric, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'package {package}\..*pip install "lmkd-tf\[eval\]"'):
        metric(np.ones(10), np.ones(10))


def test_scoring_processes_start_without_keras():
    program = "import lmkd_tf.metrics.utterance, sys; sys.exit('keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
