# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from lmkd_tf.cli import workspace as workspace_module
from lmkd_tf.cli.workspace import Workspace


@pytest.fixture
def made():
    """Names of the stages that were run, in order."""
    return []


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "work")


@pytest.fixture
def run(workspace, made):
    """Function that runs a stage which writes one file, and returns its folder."""

    def run(stage, settings, inputs=(), content="result"):
        def make(folder):
            made.append(stage)
            (folder / "part").mkdir(exist_ok=True)
            (folder / "part" / "result.txt").write_text(f"{content} of {settings}")

        return workspace.run(stage, settings, inputs, make)

    return run


def test_finished_stage_is_reused(run, made, workspace):
    folder = run("teacher", {"epochs": 3})
    assert run("teacher", {"epochs": 3}) == folder
    assert made == ["teacher"]
    assert not (folder / "started.json").exists()
    record = json.loads((folder / "stage.json").read_text())
    assert record["settings"] == {"epochs": 3}
    assert list(record["files"]) == ["part/result.txt"]
    assert workspace.seconds("teacher") >= 0.0


def test_changed_settings_run_the_stage_again_from_an_empty_folder(run, made):
    folder = run("teacher", {"epochs": 3})
    (folder / "stale.txt").touch()
    run("teacher", {"epochs": 4})
    assert made == ["teacher", "teacher"]
    assert not (folder / "stale.txt").exists()


def test_changed_result_runs_what_reads_it_and_only_that(run, made):
    def walk(teacher_settings):
        made.clear()
        run("teacher", teacher_settings)
        run("student", {"width": 8}, ["teacher"])
        run("other", {"width": 8})
        run("export", {}, ["student"])
        return list(made)

    assert walk({"epochs": 3}) == ["teacher", "student", "other", "export"]
    assert walk({"epochs": 3}) == []
    # The student comes out as before, so what reads the student is still good.
    assert walk({"epochs": 4}) == ["teacher", "student"]


def test_same_result_of_other_settings_keeps_what_reads_it(run, made, workspace):
    run("teacher", {"epochs": 3})
    run("student", {}, ["teacher"])
    made.clear()
    result = (workspace.folder("teacher") / "part" / "result.txt").read_text()

    def make(folder):
        (folder / "part").mkdir()
        (folder / "part" / "result.txt").write_text(result)

    workspace.run("teacher", {"epochs": 5}, [], make)
    run("student", {}, ["teacher"])
    assert made == []


@pytest.mark.parametrize("damage", ["overwrite", "remove"])
def test_damaged_file_runs_the_stage_again(run, made, damage, workspace):
    file = run("teacher", {}) / "part" / "result.txt"
    if damage == "remove":
        file.unlink()
    else:
        file.write_text("result of {]")  # as long as before
    assert not workspace.is_finished("teacher", {}, [])
    run("teacher", {})
    assert made == ["teacher", "teacher"]
    assert file.read_text() == "result of {}"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", '{"fingerprint": "x"}'])
def test_damaged_record_runs_the_stage_and_what_reads_it_again(run, made, content, workspace):
    folder = run("teacher", {})
    run("student", {}, ["teacher"])
    (folder / "stage.json").write_text(content)
    assert not workspace.is_finished("teacher", {}, [])
    assert not workspace.is_finished("student", {}, ["teacher"])
    made.clear()
    run("teacher", {})
    assert made == ["teacher"]
    assert workspace.is_finished("student", {}, ["teacher"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_stage_finds_its_folder_as_it_left_it(run, error, workspace):

    def fail(folder):
        (folder / "checkpoint").write_text("half way")
        raise error

    with pytest.raises(type(error)):
        workspace.run("teacher", {"epochs": 3}, [], fail)
    assert not workspace.is_finished("teacher", {"epochs": 3}, [])
    with pytest.raises(FileNotFoundError, match="which has none"):
        workspace.require("teacher", "lmkd-train")
    (workspace.folder("teacher") / ".0a1b2c3d.teacher.keras").touch()  # of a process killed
    found = []
    workspace.run("teacher", {"epochs": 3}, [], lambda f: found.extend(p.name for p in f.iterdir()))
    assert sorted(found) == ["checkpoint", "started.json"]


def test_interrupted_stage_starts_over_with_other_settings(run, workspace):
    def fail(folder):
        (folder / "checkpoint").write_text("half way")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.run("teacher", {"epochs": 3}, [], fail)
    assert not (run("teacher", {"epochs": 4}) / "checkpoint").exists()


def test_finished_result_is_kept_until_that_of_other_settings_is_finished(run, made, workspace):
    def fail(folder):
        raise ValueError("not the network of that file")

    result = run("teacher", {"epochs": 3}) / "part" / "result.txt"
    with pytest.raises(ValueError, match="not the network"):
        workspace.run("teacher", {"epochs": 4}, [], fail)
    before = workspace.folder("teacher.before")
    assert (before / "part" / "result.txt").read_text() == "result of {'epochs': 3}"
    run("teacher", {"epochs": 3})
    assert made == ["teacher"]  # taken back
    assert result.read_text() == "result of {'epochs': 3}"
    run("teacher", {"epochs": 4})
    assert result.read_text() == "result of {'epochs': 4}"
    assert not before.exists()


def test_training_of_hours_survives_a_run_with_a_mistyped_setting(run, workspace):
    def fail(folder):
        (folder / "checkpoint").write_text("thirty epochs")
        raise KeyboardInterrupt

    def look(folder):
        found.extend(path.name for path in folder.iterdir())

    def mistake(folder):
        raise ValueError("no such network")

    found = []
    with pytest.raises(KeyboardInterrupt):
        workspace.run("teacher", {"epochs": 300}, [], fail)
    with pytest.raises(ValueError, match="no such network"):
        workspace.run("teacher", {"epochs": 30}, [], mistake)
    workspace.run("teacher", {"epochs": 300}, [], look)
    assert sorted(found) == ["checkpoint", "started.json"]
    assert not workspace.folder("teacher.before").exists()


def test_stage_whose_record_cannot_be_written_goes_on_where_it_was(workspace, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")

    def make(folder):
        (folder / "result.txt").write_text("hours")
        monkeypatch.setattr(workspace_module, "write_json", full)

    def look(folder):
        found.extend(path.name for path in folder.iterdir())

    found = []
    with pytest.raises(OSError, match="No space left"):
        workspace.run("teacher", {}, [], make)
    monkeypatch.undo()
    workspace.run("teacher", {}, [], look)
    assert sorted(found) == ["result.txt", "started.json"]


def test_damaged_start_record_starts_over(run, workspace):
    folder = workspace.folder("teacher")
    folder.mkdir(parents=True)
    (folder / "started.json").write_text("[1, 2")
    (folder / "checkpoint").touch()
    run("teacher", {})
    assert not (folder / "checkpoint").exists()


def test_require_names_the_command_that_makes_a_missing_stage(workspace):
    with pytest.raises(
        FileNotFoundError, match=r"result of stage 'student'.*Run lmkd-distill first"
    ):
        workspace.require("student", "lmkd-distill")


def test_require_refuses_a_stage_with_damaged_files(run, workspace):
    folder = run("student", {})
    assert workspace.require("student", "lmkd-distill") == folder
    (folder / "part" / "result.txt").write_text("other")
    with pytest.raises(ValueError, match=r"'part/result\.txt'.*damaged. Run lmkd-distill again"):
        workspace.require("student", "lmkd-distill")
