# SPDX-License-Identifier: Apache-2.0
"""Runs the notebooks from top to bottom, as a reader does; only the installation is left out."""

import os
import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient

_NAMES = (
    "01_method",
    "02_distill_your_own",
    "03_compress_and_export",
    "04_flash_a_board",
    "05_listen",
)
_CELL_SECONDS = 1200
_PROGRAM = re.compile(r"^(!.*)$", re.MULTILINE)  # IPython goes on when a program fails


@pytest.fixture(scope="module")
def folder(tmp_path_factory, project_root):
    """Work directory of all notebooks, with the programs of this checkout on the path."""
    folder = tmp_path_factory.mktemp("notebooks")
    programs = folder / "bin"
    programs.mkdir()
    for path in (project_root / "lmkd_tf" / "cli").glob("*.py"):
        program = programs / f"lmkd-{path.stem}"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lmkd_tf.cli.{path.stem} "$@"\n')
        program.chmod(0o755)
    return folder


@pytest.fixture
def environment(folder, project_root, monkeypatch):
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(project_root))


@pytest.mark.parametrize("name", _NAMES)
def test_notebook_runs_from_top_to_bottom(name, folder, project_root, environment):
    notebook = nbformat.read(project_root / "notebooks" / f"{name}.ipynb", as_version=4)
    notebook.cells = [c for c in notebook.cells if "install" not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = _PROGRAM.sub(r"\1\nassert _exit_code == 0", cell.source)
    NotebookClient(
        notebook,
        timeout=_CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()


def test_every_notebook_is_run(project_root):
    names = {path.stem for path in (project_root / "notebooks").glob("*.ipynb")}
    assert names == set(_NAMES)
