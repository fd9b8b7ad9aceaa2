# SPDX-License-Identifier: Apache-2.0
import shutil
import subprocess

import pytest

FUZZERS = ("calls", "image")


def script(path, text="exit 0"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path, project_root):
    """A folder in which `x` finds its environment up to date and tools that do nothing."""
    shutil.copy(project_root / "x", tmp_path / "x")
    for name in ("pyproject.toml", "setup.py", "constraints.txt", "apt-packages.txt"):
        (tmp_path / name).write_text("")
    for name in ("pytest", "cmake", "python"):
        script(tmp_path / ".venv" / "bin" / name)
    (tmp_path / "microcontroller").mkdir()
    build = tmp_path / "microcontroller" / "build"
    script(build / "host" / "soak")
    for name in FUZZERS:
        script(build / "host-clang" / f"fuzz_{name}", "seq 1 20")
    stamp = "{ pwd; cat pyproject.toml setup.py constraints.txt | cksum; } >.venv/stamp"
    subprocess.run(["sh", "-c", stamp], cwd=tmp_path, check=True)
    return tmp_path


def call(checkout, *arguments):
    command = ["sh", "./x", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def test_soak_without_a_failure_ends_well_and_shows_the_last_lines_of_the_fuzzers(checkout):
    done = call(checkout, "soak", "1")
    assert done.returncode == 0, done.stderr
    assert "\n12\n" not in done.stdout
    assert done.stdout.count("\n13\n14\n") == len(FUZZERS)


@pytest.mark.parametrize("fuzzer", FUZZERS)
def test_soak_with_a_crash_found_by_a_fuzzer_fails_and_shows_it(checkout, fuzzer):
    path = checkout / "microcontroller" / "build" / "host-clang" / f"fuzz_{fuzzer}"
    script(path, "echo SUMMARY: heap-buffer-overflow >&2; exit 77")
    done = call(checkout, "soak", "1")
    assert done.returncode != 0
    assert f"step 'fuzz {fuzzer}' failed" in done.stderr
    assert "SUMMARY: heap-buffer-overflow" in done.stdout


@pytest.mark.parametrize("preset", ["host", "host-clang"])
def test_soak_of_firmware_that_does_not_build_fails(checkout, preset):
    script(checkout / ".venv" / "bin" / "cmake", f'[ "$*" != "--preset {preset}" ]')
    done = call(checkout, "soak", "1")
    assert done.returncode != 0
    assert f"step 'build {preset}' failed" in done.stderr


def test_lock_writes_the_versions_under_a_header(checkout):
    script(checkout / ".venv" / "bin" / "python", '[ "$3" != freeze ] || echo numpy==2.0.0')
    assert call(checkout, "lock").returncode == 0
    lines = (checkout / "constraints.txt").read_text().splitlines()
    assert lines[0].startswith("# Exact versions")
    assert lines[1:] == ["numpy==2.0.0"]


def test_lock_keeps_the_constraints_if_pip_fails(checkout):
    script(checkout / ".venv" / "bin" / "python", '[ "$3" != freeze ]')
    stamp = (checkout / ".venv" / "stamp").read_text()
    assert call(checkout, "lock").returncode != 0
    assert (checkout / "constraints.txt").read_text() == ""
    assert (checkout / ".venv" / "stamp").read_text() == stamp
