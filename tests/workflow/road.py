# SPDX-License-Identifier: Apache-2.0
"""The whole road, walked once per test session by the real program; tests look at what it left."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lmkd_tf.config.loader import load
from lmkd_tf.config.schema import ExperimentConfig
from lmkd_tf.data.embedded import build_embedded_corpus

PROJECT_ROOT = Path(__file__).resolve().parents[2]
OVERRIDES = (
    "teacher_training.epochs=4",  # long enough to be interrupted after the first one
    "teacher_training.steps_per_epoch=6",
    "distillation_training.epochs=1",
    "compress.pruning.epochs=3",
    "compress.quantization.epochs=1",
    "data.num_evaluation_clips=4",
    "data.evaluation_snrs_db=5",
)
_PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Run:
    """How a program ended, and the temporary files that it left in its work directory."""

    status: int
    stdout: str
    stderr: str
    leftovers: tuple[str, ...]


@dataclass(frozen=True)
class FinishedRoad:
    """A finished work directory of `lmkd-quickstart`, and how it came about.

    It was interrupted by Ctrl-C once in the stage `teacher`, once in `pruned`, and then finished.
    """

    corpus: Path
    workdir: Path
    config: ExperimentConfig
    in_teacher: Run
    in_pruned: Run
    finished: Run

    @property
    def int8(self) -> Path:
        """The exported int8 student."""
        return self.workdir / "export" / "tcn_int8.tflite"

    @property
    def int16(self) -> Path:
        """The exported int16 student."""
        return self.workdir / "export" / "tcn_int16.tflite"

    def copy(self, folder: Path) -> Path:
        """Copies the work directory, for a test that damages it."""
        return Path(shutil.copytree(self.workdir, folder / "work"))


_finished: list[FinishedRoad] = []


def finished_road(tmp_path_factory: pytest.TempPathFactory) -> FinishedRoad:
    """Returns the road of this session; the first call walks it, which takes over a minute."""
    if not _finished:
        _finished.append(_walk(tmp_path_factory.mktemp("road")))
    return _finished[0]


def run_program(name: str, *arguments: object, cwd: Path | None = None) -> subprocess.Popen:
    """Starts `lmkd-<name>` in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", f"lmkd_tf.cli.{name}", *map(str, arguments)],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_listen_to_ctrl_c,
    )


def _listen_to_ctrl_c() -> None:
    """A job started in the background of a script ignores Ctrl-C, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: subprocess.Popen, workdir: Path | None = None) -> Run:
    """Waits for a program and looks for temporary files in its work directory."""
    try:
        stdout, stderr = process.communicate(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    hidden = sorted(workdir.rglob(".*")) if workdir else []
    return Run(process.returncode, stdout, stderr, tuple(str(path) for path in hidden))


def interrupt_at(process: subprocess.Popen, sign: Path) -> None:
    """Sends Ctrl-C to a program and its children once a file exists."""
    patience = time.monotonic() + _PATIENCE_SECONDS
    while not sign.exists() and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)


def embedded_corpus(folder: Path) -> Path:
    """Builds the embedded corpus at its smallest size; skips where there is no espeak-ng."""
    if not (importlib.util.find_spec("espeakng_loader") or shutil.which("espeak-ng")):
        reason = "needs the package espeakng-loader or the command espeak-ng"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    build_embedded_corpus(folder, seed=0, size=0.01)
    return folder


def real_audio(num_samples: int, corpus: Path) -> np.ndarray:
    """Returns noisy speech of the test split of a corpus, float32 in [-1, 1], shape `(N,)`."""
    import soundfile

    parts = []
    for kind in ("speech", "noise"):
        files = sorted((corpus / kind / "test").glob("*.flac"))
        joined = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in files[:40]])
        parts.append(np.resize(joined, num_samples))
    speech, noise = parts
    noise *= 0.3 * np.std(speech) / np.std(noise)  # about 10 dB
    return (speech + noise).astype(np.float32)


def _walk(base: Path) -> FinishedRoad:
    corpus, workdir = embedded_corpus(base / "corpus"), base / "work"
    arguments = ["--config=smoke", f"--data={corpus}", f"--workdir={workdir}"]
    arguments += [f"--override={override}" for override in OVERRIDES]

    def run(sign: Path | None) -> Run:
        process = run_program("quickstart", *arguments, cwd=base)
        if sign is not None:
            interrupt_at(process, sign)
        return finish(process, workdir)

    in_teacher = run(workdir / "teacher" / "resume" / "checkpoint.json")
    in_pruned = run(workdir / "pruned" / "history.json")
    finished = run(None)
    if finished.status:
        pytest.fail(f"lmkd-quickstart ended with {finished.status}:\n{finished.stderr[-3000:]}")
    config = load(PROJECT_ROOT / "configs" / "smoke.py", OVERRIDES)
    return FinishedRoad(corpus, workdir, config, in_teacher, in_pruned, finished)
