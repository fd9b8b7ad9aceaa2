# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from lmkd_tf.cli.quickstart import _default_workdir
from lmkd_tf.cli.road import STAGES
from tests.workflow.road import OVERRIDES, finish, run_program


@pytest.mark.parametrize("moment", ["in_teacher", "in_pruned"])
def test_ctrl_c_ends_with_status_130_one_line_and_no_temporary_file(road, moment):
    run = getattr(road, moment)
    assert run.status == 130
    assert run.stderr.splitlines()[-1].endswith("interrupted; run it again to go on.")
    assert "Traceback" not in run.stderr
    assert run.leftovers == ()


def test_next_run_goes_on_after_the_interruption(road):
    assert "teacher done in" not in road.in_teacher.stderr
    assert "teacher done in" in road.in_pruned.stderr
    assert "pruned done in" not in road.in_pruned.stderr
    for line in ("teacher reused", "student reused", "pruned done in", "scores done in"):
        assert line in road.finished.stderr
    assert road.finished.leftovers == ()


@pytest.mark.parametrize(
    ("stage", "training"),
    [
        ("teacher", "teacher_training"),  # resumed after its first epoch
        ("student", "distillation_training"),
        ("pruned", "compress.pruning"),  # started over
        ("quantized", "compress.quantization"),
    ],
)
def test_history_holds_every_epoch_once_however_often_it_was_interrupted(road, stage, training):
    history = json.loads((road.workdir / stage / "history.json").read_text())
    train = road.config
    for name in training.split("."):
        train = getattr(train, name)
    assert {"loss", "val_loss"} <= history.keys()
    assert {len(values) for values in history.values()} == {train.epochs}


def test_finished_stages_leave_neither_checkpoints_nor_start_records(road):
    names = {path.name for path in road.workdir.rglob("*")}
    assert not {"started.json", "resume", "checkpoint.json"} & names
    assert all((road.workdir / stage / "stage.json").is_file() for stage in STAGES)


def test_quickstart_shows_a_table_and_where_the_results_are(road):
    output = road.finished.stdout
    for text in ("noisy", "teacher", "tcn float", "tcn pruned", "tcn int8 (TFLM)"):
        assert text in output
    assert f"Report: {road.workdir / 'report.html'}" in output
    assert "<html" in (road.workdir / "report.html").read_text()[:500]


def test_quickstart_reuses_everything_and_repairs_a_damaged_stage(road, tmp_path):
    workdir = road.copy(tmp_path)
    (workdir / "report.html").unlink()
    (workdir / "scores" / "rows.json").write_text("[]")
    arguments = ["--config=smoke", f"--data={road.corpus}", f"--workdir={workdir}"]
    arguments += [f"--override={override}" for override in OVERRIDES]
    again = finish(run_program("quickstart", *arguments, cwd=tmp_path), workdir)
    assert again.status == 0, again.stderr
    for stage in STAGES[:-1]:
        assert f"{stage} reused" in again.stderr
    assert "scores done in" in again.stderr
    # Sums in another order move the last digit of ESTOI.
    assert _rounded_rows(workdir) == _rounded_rows(road.workdir)
    assert (workdir / "report.html").is_file()


def _rounded_rows(workdir):
    rows = json.loads((workdir / "scores" / "rows.json").read_text())
    assert rows
    return [{k: round(v, 9) if isinstance(v, float) else v for k, v in r.items()} for r in rows]


def test_results_on_recordings_are_kept_apart_from_the_synthetic_ones(tmp_path):
    assert _default_workdir(None) == "runs/quickstart"
    assert _default_workdir(tmp_path / "mine") == "runs/quickstart-mine"
    assert _default_workdir(Path()) == f"runs/quickstart-{Path.cwd().name}"
