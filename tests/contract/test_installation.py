# SPDX-License-Identifier: Apache-2.0
import shutil
import subprocess
import sys

import pytest

_LOAD = """
from lmkd_tf.cli.common import config_path
from lmkd_tf.config.loader import load
print(config_path("nano"), load(config_path("nano"), []).name)
"""


@pytest.fixture
def installed(project_root, tmp_path):
    """Folder into which the package is built as `pip install` without `--editable` does."""
    checkout = tmp_path / "checkout"
    for name in ("lmkd_tf", "configs"):
        shutil.copytree(project_root / name, checkout / name)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project_root / name, checkout)
    command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={tmp_path / 'site'}"]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    return tmp_path / "site"


def test_installed_package_finds_its_configurations(installed, tmp_path):
    command = [sys.executable, "-c", _LOAD]
    options = {"cwd": tmp_path, "env": {"PYTHONPATH": str(installed)}}
    done = subprocess.run(command, check=True, capture_output=True, text=True, **options)
    assert done.stdout.split() == [str(installed / "lmkd_tf" / "configs" / "nano.py"), "nano"]


def test_installed_package_holds_what_is_no_module(installed):
    names = (
        "py.typed", "presets/nano.npz", "presets/nano_int8.tflite", "evaluate/published.json",
        "evaluate/vbdemand96.csv", "demo/page.js",
    )  # fmt: skip
    assert [name for name in names if not (installed / "lmkd_tf" / name).is_file()] == []
