# SPDX-License-Identifier: Apache-2.0
import importlib.metadata
import shutil

import pytest

from tests.workflow.road import OVERRIDES, finish, run_program

PROGRAMS = (
    "train", "distill", "compress", "export", "enhance", "evaluate", "quickstart", "data", "demo",
)  # fmt: skip


def _arguments(road, workdir, *overrides, data=None):
    chosen = [f"--override={override}" for override in (*OVERRIDES, *overrides)]
    return ["--config=smoke", f"--data={data or road.corpus}", f"--workdir={workdir}", *chosen]


def _fail(program, *arguments, workdir=None):
    """Runs a program that has to fail, and returns its last line."""
    run = finish(run_program(program, *arguments), workdir)
    assert run.status == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert run.leftovers == ()
    return run.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_says_what_the_program_does(name):
    run = finish(run_program(name, "--help"))
    assert run.status == 0, run.stderr
    assert f"lmkd-{name}" in run.stdout
    assert "--" in run.stdout


def test_every_program_is_installed_under_its_name():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    installed = {script.name: script.value for script in scripts}
    for name in PROGRAMS:
        assert installed[f"lmkd-{name}"] == f"lmkd_tf.cli.{name}:run"


def test_misspelt_override_prints_the_near_names(road, tmp_path):
    wrong = "--override=distill.mixup_alhpa=0.4"
    line = _fail("distill", *_arguments(road, tmp_path), wrong)
    assert "must name a setting. Received 'distill.mixup_alhpa'" in line
    assert "Did you mean distill.mixup_alpha" in line
    assert list(tmp_path.iterdir()) == []


def test_missing_stage_names_the_command_that_makes_it(road, tmp_path):
    line = _fail("distill", *_arguments(road, tmp_path / "work"))
    assert "needs the result of stage 'teacher'" in line
    assert line.endswith("Run lmkd-train first.")
    assert not (tmp_path / "work").exists()


def test_damaged_teacher_is_an_error_that_names_the_command(road, tmp_path):
    workdir = road.copy(tmp_path)
    shutil.rmtree(workdir / "student")
    teacher = workdir / "teacher" / "teacher.keras"
    content = bytearray(teacher.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = b"\xff" * 64
    teacher.write_bytes(content)
    line = _fail("distill", *_arguments(road, workdir), workdir=workdir)
    assert "['teacher.keras'] missing or damaged. Run lmkd-train again." in line


def test_corpus_without_a_split_is_an_error_that_says_what_to_add(road, tmp_path):
    corpus = shutil.copytree(road.corpus, tmp_path / "corpus")
    manifest = corpus / "noise" / "manifest.csv"
    rows = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(row for row in rows if ",valid," not in row))
    line = _fail("train", *_arguments(road, tmp_path / "work", data=corpus))
    assert "Received no noise in split 'valid'" in line
    assert "Add 'valid' rows to noise/manifest.csv" in line
    assert not (tmp_path / "work").exists()


def test_full_disk_is_an_error_in_one_line_and_leaves_nothing_half_written(road, small_disk):
    workdir = small_disk / "work"
    line = _fail("train", *_arguments(road, workdir), workdir=workdir)
    assert "No space left on device" in line
    names = {path.name for path in workdir.rglob("*") if path.is_file()}
    assert names == {"history.json", "started.json"}


def test_argument_that_is_no_flag_is_refused(road, tmp_path):
    line = _fail("train", "corpus", *_arguments(road, tmp_path))
    assert "takes flags only. Received ['corpus']. See lmkd-train --help." in line
