# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest

from lmkd_tf.compress import toolkit

NAME = "TF_USE_LEGACY_KERAS"
# `tf.keras` decides on its first use which Keras it is.
CHILD = """
import os, sys
import lmkd_tf.compress.pruning, lmkd_tf.compress.quantization, lmkd_tf.compress.twin
assert "tensorflow_model_optimization" not in sys.modules
from lmkd_tf.compress.toolkit import load_tfmot
load_tfmot()
import tensorflow as tf
print(os.environ.get("TF_USE_LEGACY_KERAS"), tf.keras.layers.Dense.__module__)
"""


@pytest.fixture
def fake_tfmot(tmp_path, monkeypatch):
    """A module that does what importing tfmot does to the environment."""
    module = f"import os\nos.environ['{NAME}'] = '1'\n"
    (tmp_path / "tensorflow_model_optimization.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.startswith("tensorflow_model_optimization")]:
        monkeypatch.delitem(sys.modules, name)
    toolkit.load_tfmot.cache_clear()
    yield
    sys.modules.pop("tensorflow_model_optimization", None)
    toolkit.load_tfmot.cache_clear()


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_load_tfmot_puts_the_environment_back(fake_tfmot, monkeypatch, before):
    monkeypatch.delenv(NAME, raising=False)
    if before is not None:
        monkeypatch.setenv(NAME, before)
    assert toolkit.load_tfmot().os.environ is os.environ
    assert os.environ.get(NAME) == before


def test_compressing_does_not_turn_tf_keras_into_the_legacy_one(project_root):
    environment = {key: value for key, value in os.environ.items() if key != NAME}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD],
        env={**environment, "PYTHONPATH": str(project_root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    legacy, module = done.stdout.split()
    assert legacy == "None"
    assert module.startswith("keras.src")
