# SPDX-License-Identifier: Apache-2.0
"""Small corpora and stores for the tests of the data stage."""

import csv
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.index import Clip, Corpus
from lmkd_tf.data.store import AudioStore


@pytest.fixture(scope="session")
def require_espeak() -> None:
    """Skips where there is no espeak-ng; in CI it fails."""
    if importlib.util.find_spec("espeakng_loader") or shutil.which("espeak-ng"):
        return
    reason = "needs the package espeakng-loader or the command espeak-ng"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def tiny_corpus(require_espeak: None, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The embedded corpus at its smallest size."""
    from lmkd_tf.data.embedded import build_embedded_corpus

    return build_embedded_corpus(tmp_path_factory.mktemp("corpus") / "tiny", seed=0, size=0.01)


@pytest.fixture
def make_store() -> Callable[..., AudioStore]:
    """Function `(signals, groups, categories) -> AudioStore` of float signals in [-1, 1]."""

    def make(signals, groups=None, categories=None):
        clips = [
            Clip(
                path=Path(f"clip_{index}.flac"),
                seconds=len(signal) / 16000,
                split="train",
                group=groups[index] if groups else f"group_{index}",
                category=categories[index] if categories else "",
            )
            for index, signal in enumerate(signals)
        ]
        stored = [np.rint(np.asarray(signal) * 32767).astype(np.int16) for signal in signals]
        return AudioStore(stored, clips, [], 16000)

    return make


@pytest.fixture
def write_corpus(tmp_path: Path) -> Callable[..., Path]:
    """Function `(speech rows, noise rows) -> folder`; rows are `(path, split, group)`."""

    def write(speech, noise, make_audio=True):
        folder = tmp_path / "corpus"
        for part, group, rows in (("speech", "speaker", speech), ("noise", "recording", noise)):
            (folder / part).mkdir(parents=True)
            with (folder / part / "manifest.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["path", "seconds", "split", group, "category"])
                writer.writerows([path, "0.5", split, name, "hum"] for path, split, name in rows)
            for path, _, _ in rows if make_audio else ():
                samples = 0.1 * np.random.default_rng(0).standard_normal(8000)
                (folder / part / path).parent.mkdir(exist_ok=True)
                soundfile.write(folder / part / path, samples, 16000)
        return folder

    return write


@pytest.fixture
def noisy_corpus(tmp_path: Path) -> Path:
    """Folder with trees of speech and noise: 12 speakers and 12 recordings, 0.4 to 0.9 s."""
    folder = tmp_path / "trees"
    rng = np.random.default_rng(5)
    for number in range(12):
        length = 6400 + 700 * number
        for name in (f"speech/s{number}/{number}.flac", f"noise/kind{number % 3}/n{number}.wav"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / name, rng.uniform(-0.3, 0.3, length), 16000)
    return folder
