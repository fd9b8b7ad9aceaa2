# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.formula_mutants import FORMULA_MUTANTS
from tests.mutation.method_mutants import METHOD_MUTANTS
from tests.mutation.rival_mutants import RIVAL_MUTANTS
from tests.mutation.signal_mutants import SIGNAL_MUTANTS

ALL_TESTS_PASSED, SOME_TEST_FAILED = 0, 1  # exit codes of pytest
MUTANTS = [*FORMULA_MUTANTS, *METHOD_MUTANTS, *RIVAL_MUTANTS, *SIGNAL_MUTANTS]


@pytest.fixture(scope="module")
def workspace(project_root: Path, tmp_path_factory) -> Path:
    """Copy of the package and its tests, to be mutated."""
    folder = tmp_path_factory.mktemp("mutation")
    ignore = shutil.ignore_patterns("__pycache__", "presets")
    shutil.copytree(project_root / "lmkd_tf", folder / "lmkd_tf", ignore=ignore)
    shutil.copytree(project_root / "tests", folder / "tests", ignore=ignore)
    shutil.copy(project_root / "pyproject.toml", folder)
    return folder


def run_tests(folder, tests):
    """Runs tests of a copy against the package of that copy; returns exit code and output."""
    names = {test.partition("::")[0]: [] for test in tests}
    for test in tests:
        names[test.partition("::")[0]].append(test.partition("::")[2])
    chosen = " or ".join(name for group in names.values() for name in group if name)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *(["-k", chosen] if chosen else [])],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_changes_one_place_and_names_a_test_that_exists(project_root, mutant):
    assert (project_root / "lmkd_tf" / mutant.file).read_text("utf-8").count(mutant.original) == 1
    assert mutant.mutated != mutant.original
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (project_root / file).read_text("utf-8")


@pytest.mark.slow
def test_the_copy_is_what_runs_and_without_a_mutation_its_tests_pass(workspace):
    probe = workspace / "tests" / "test_copy.py"
    probe.write_text(
        f"import lmkd_tf\n\ndef test_copy():\n    assert {str(workspace)!r} in lmkd_tf.__file__\n"
    )
    tests = sorted({mutant.test for mutant in MUTANTS})
    code, output = run_tests(workspace, [*tests, "tests/test_copy.py::test_copy"])
    probe.unlink()
    assert code == ALL_TESTS_PASSED, output


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(workspace, mutant):
    path = workspace / "lmkd_tf" / mutant.file
    source = path.read_text("utf-8")
    path.write_text(source.replace(mutant.original, mutant.mutated), "utf-8")
    try:
        code, output = run_tests(workspace, [mutant.test])
    finally:
        path.write_text(source, "utf-8")
    assert code == SOME_TEST_FAILED, f"{mutant.name} survived {mutant.test}\n{output}"
