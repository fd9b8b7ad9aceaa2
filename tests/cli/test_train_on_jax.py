# SPDX-License-Identifier: Apache-2.0
"""Training on JAX in processes without TensorFlow, from a packed corpus."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from lmkd_tf.cli import common
from lmkd_tf.cli.training import read_history
from lmkd_tf.config.files import read_json
from lmkd_tf.data.packed import write_packed
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.models.enhancer import load_enhancer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
ROOT = Path(__file__).resolve().parents[2]
# How far a resumed run may be from an uninterrupted one: sums of several threads.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    bursts = np.arange(32000) / 8000 % 1 < 0.5
    for number in range(12):
        for tree, shape in (("speech", bursts), ("noise", 1.0)):
            path = root / "trees" / tree / f"g{number}" / f"{number}.wav"
            path.parent.mkdir(parents=True)
            soundfile.write(path, rng.normal(0.0, 0.1, 32000) * shape, 16000)
    write_packed(read_corpus(root / "trees"), root / "packed")
    return root / "packed"


def _run(corpus, workdir, name):
    program = ROOT / "tests" / "cli" / "jax_training.py"
    # What one run has compiled, the next one loads.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    environment = {**os.environ, **cache, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(program), str(corpus), str(workdir), name],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def workdir(packed, tmp_path_factory):
    """Folders of an uninterrupted run, of one that was killed and resumed, and a distillation."""
    folder = tmp_path_factory.mktemp("jax") / "runs"
    killed = _run(packed, folder, "first")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert len(read_history(folder / "cut" / "network")["loss"]) == 1
    resumed = _run(packed, folder, "second")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert resumed.stdout.startswith(f"network: {folder / 'cut' / 'network'}\n")
    assert re.search(r"network: trained at \d+ x real time\n", resumed.stdout)
    return folder


def test_run_that_was_killed_goes_on_as_if_it_had_not_been(workdir):
    whole, cut = (workdir / name / "network" for name in ("whole", "cut"))
    wanted = read_history(whole)
    assert len(wanted["val_pesq_wb"]) == 2
    assert read_history(cut).keys() == wanted.keys()
    for name, values in read_history(cut).items():
        assert values == pytest.approx(wanted[name], rel=TOLERANCE, abs=TOLERANCE)
    models = [load_enhancer(path / "network.keras") for path in (cut, whole)]
    for weight, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(weight, other, atol=TOLERANCE)


def test_result_says_where_it_was_made(workdir):
    record = read_json(workdir / "whole" / "network" / "record.json")
    assert record["backend"] == "jax"


def test_student_is_distilled_from_a_teacher(workdir):
    history = read_history(workdir / "distilled" / "student")
    assert np.isfinite(history["latent_loss"]).all()
    assert history["latent_loss"][0] > 0
    student = load_enhancer(workdir / "distilled" / "student" / "student.keras")
    noisy = np.random.default_rng(0).normal(0.0, 0.05, (1, 8000)).astype(np.float32)
    assert np.isfinite(np.asarray(student(noisy))).all()


@pytest.mark.parametrize(("name", "remedy"), [("jax", "lmkd-tf[jax]"), ("tensorflow", "lmkd-tf")])
def test_backend_that_is_not_installed_is_an_error(monkeypatch, name, remedy):
    monkeypatch.setattr(common.flags, "FLAGS", SimpleNamespace(backend=name))
    monkeypatch.setattr(common.importlib.util, "find_spec", lambda _: None)
    message = rf"needs the package {name}.*not installed here.*pip install '{re.escape(remedy)}'"
    with pytest.raises(ImportError, match=message):
        common.start_backend()
