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
    """Folder into which the package is built from its source distribution, as pip does."""
    checkout = tmp_path / "checkout"
    for name in ("lmkd_tf", "configs"):
        shutil.copytree(project_root / name, checkout / name)
    for name in ("setup.py", "MANIFEST.in", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project_root / name, checkout)
    _set_up(checkout, "sdist", f"--dist-dir={tmp_path}")
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path)
    sources = tmp_path / archive.name.removesuffix(".tar.gz")
    _set_up(sources, "bdist_wheel", f"--dist-dir={tmp_path}")
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    return tmp_path / "site"


def _set_up(folder, *arguments):
    command = [sys.executable, "setup.py", "-q", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


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
