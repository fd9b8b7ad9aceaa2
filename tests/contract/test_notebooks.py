# SPDX-License-Identifier: Apache-2.0
import ast
import json
import os
import re
import tomllib

import pytest


@pytest.fixture
def notebooks(project_root):
    paths = sorted((project_root / "notebooks").glob("*.ipynb"))
    return {path.name: json.loads(path.read_text("utf-8")) for path in paths}


def code_cells(notebooks):
    for name, notebook in notebooks.items():
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                yield name, cell


def python_of(cell):
    """Source of a cell without the lines that IPython handles itself."""
    return "".join(line for line in cell["source"] if not line.startswith(("!", "%")))


def test_there_are_notebooks(notebooks):
    numbers = [name[:2] for name in notebooks]
    assert numbers == ["01", "02", "03", "04", "05"]


def test_notebooks_hold_no_output(notebooks):
    for name, cell in code_cells(notebooks):
        assert (cell["outputs"], cell["execution_count"]) == ([], None), name


def test_notebooks_define_nothing(notebooks):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for name, cell in code_cells(notebooks):
        for node in ast.walk(ast.parse(python_of(cell))):
            assert not isinstance(node, definitions), name


def test_notebooks_call_programs_that_the_package_installs(notebooks, project_root):
    metadata = tomllib.loads((project_root / "pyproject.toml").read_text("utf-8"))
    called = {
        program
        for _, cell in code_cells(notebooks)
        for program in re.findall(r"^!(lmkd-\w+)", "".join(cell["source"]), flags=re.MULTILINE)
    }
    assert {"lmkd-distill", "lmkd-compress", "lmkd-export", "lmkd-enhance"} <= called
    assert called <= metadata["project"]["scripts"].keys()


def test_notebooks_begin_with_the_installation(notebooks):
    for notebook in notebooks.values():
        first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        assert "%pip install" in "".join(first["source"])
        assert first["metadata"].get("tags", ["install"]) == ["install"]


def test_first_cells_are_alike_and_may_be_run_twice(notebooks, project_root, monkeypatch):
    (cell,) = {python_of(notebook["cells"][1]) for notebook in notebooks.values()}
    monkeypatch.chdir(project_root / "notebooks")
    for _ in range(2):
        exec(cell, {})
        assert os.getcwd() == str(project_root)
