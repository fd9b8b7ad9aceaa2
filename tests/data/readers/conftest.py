# SPDX-License-Identifier: Apache-2.0
"""Tiny corpora in the layouts of the real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def add_audio() -> Callable[..., Path]:
    """Function `(path, seconds, rate) -> path` that writes a different noise for each path."""

    def add(path: Path, seconds: float = 0.2, sample_rate_hz: int = 16000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list("/".join(path.parts[-2:]).encode()))
        soundfile.write(
            path, rng.uniform(-0.1, 0.1, round(seconds * sample_rate_hz)), sample_rate_hz
        )
        return path

    return add
