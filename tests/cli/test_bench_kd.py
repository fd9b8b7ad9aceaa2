# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lmkd_tf.cli import bench_kd
from lmkd_tf.config.files import read_json
from lmkd_tf.config.schema import ExperimentConfig, LossConfig, ModelConfig
from lmkd_tf.data.index import Clip

CLIPS = ("a", "b", "c", "d")


def result(method, seed, pesq):
    rows = [
        {"file": clip, "snr_db": 0.0, "pesq_wb": value, "stoi": 0.5, "si_sdr_db": 10 * value}
        for clip, value in zip(CLIPS, pesq, strict=True)
    ]
    return {"method": method, "seed": seed, "rows": {"float": rows, "int8": rows}}


def line_of(table, method):
    return next(line for line in table.splitlines() if line.startswith(f"| `{method}`"))


def test_table_holds_means_and_paired_differences_over_seeds_and_clips():
    results = [
        result("no_kd", 0, [1.0, 2.0, 1.0, 2.0]),
        result("no_kd", 1, [1.0, 2.0, 3.0, 2.0]),
        result("fitnets", 0, [1.5, 2.5, 1.5, 2.5]),
        result("fitnets", 1, [1.5, 2.5, 3.5, 2.5]),
    ]
    table = bench_kd.to_markdown(results, "heading")
    # Each clip gains 0.5 in each seed, so the interval has no width; SI-SDR gains 5 dB.
    gain = "2.250 (+0.500 [+0.500, +0.500])"
    assert line_of(table, "fitnets").split(" | ")[1:3] == [
        gain,
        "0.5000 (+0.0000 [+0.0000, +0.0000])",
    ]
    assert line_of(table, "fitnets").endswith("22.50 (+5.00 [+5.00, +5.00]) |")
    assert line_of(table, "no_kd") == "| `no_kd` | 1.750 | 0.5000 | 17.50 |"
    assert table.index("`fitnets`") < table.index("`no_kd` | 1.750")
    assert "## int8" in table


def test_interval_of_a_difference_covers_what_the_clips_say():
    rng = np.random.default_rng(0)
    control = rng.uniform(1, 3, 4)
    gains = np.array([0.0, 0.1, 0.2, 0.5])
    table = bench_kd.to_markdown(
        [result("no_kd", 0, control), result("cosine", 0, control + gains)], ""
    )
    # The mean of four draws from the gains: at least 0, at most 0.5, and rarely either.
    low, high = (float(x) for x in line_of(table, "cosine").split("[")[1].split("]")[0].split(", "))
    assert 0.0 < low < 0.1
    assert 0.3 < high < 0.5


CONFIG = ExperimentConfig(teacher_preset="small", teacher=ModelConfig("small"))


@pytest.fixture
def trained(monkeypatch):
    """The runs that were trained; nothing is, in fact."""
    runs, corpus = [], SimpleNamespace(speech=(), noise=(), responses=())

    def train_and_score(self, config, folder):
        del self, folder
        runs.append((config.distill.method, config.seed, config.distill.schedule_steps))
        return {"rows": {}}

    road = SimpleNamespace(audio=SimpleNamespace(corpus=corpus))
    monkeypatch.setattr("lmkd_tf.cli.road.Road", lambda *_: road)
    monkeypatch.setattr(bench_kd._Bench, "_train_and_score", train_and_score)
    return runs


def test_a_finished_run_is_kept(trained, tmp_path):
    bench = bench_kd._Bench(CONFIG, tmp_path, tmp_path)
    path = bench.run("fitnets", 1)
    assert bench.run("fitnets", 1) == path
    train = CONFIG.distillation_training
    assert trained == [("fitnets", 1, train.epochs * train.steps_per_epoch // 2)]
    assert read_json(path)["method"] == "fitnets"


LONGER = replace(CONFIG.distillation_training, epochs=99)


@pytest.mark.parametrize(
    "changes",
    [
        {"distillation_training": LONGER},
        {"distill": replace(CONFIG.distill, mixup_alpha=0.4)},
        {"teacher_preset": "nano", "teacher": ModelConfig("nano")},
        {"student": ModelConfig("tcn")},
        {"student": ModelConfig(channels=16)},
        {"loss": LossConfig(si_sdr_weight=0.02)},
        {"data": replace(CONFIG.data, crop_seconds=3.0)},
    ],
)
def test_a_run_of_other_settings_is_not_reused(trained, tmp_path, changes):
    bench_kd._Bench(CONFIG, tmp_path, tmp_path).run("fitnets", 1)
    bench_kd._Bench(replace(CONFIG, **changes), tmp_path, tmp_path).run("fitnets", 1)
    assert len(trained) == 2


def test_a_run_from_another_start_or_of_other_recordings_is_not_reused(
    trained, tmp_path, monkeypatch
):
    start = tmp_path / "start.keras"
    start.write_bytes(b"before")
    bench = bench_kd._Bench(replace(CONFIG, student_start=str(start)), tmp_path, tmp_path)
    bench.run("fitnets", 1)
    start.write_bytes(b"after")
    bench.run("fitnets", 1)
    assert len(trained) == 2
    speech = (Clip(Path("a.wav"), 1.0, "train", "a"),)
    more = SimpleNamespace(speech=speech, noise=(), responses=())
    monkeypatch.setattr(bench._road.audio, "corpus", more)
    bench.run("fitnets", 1)
    assert len(trained) == 3


def test_undefined_scores_are_left_out_of_means_and_differences():
    results = [
        result("no_kd", 0, [1.0, 2.0, 1.0, 2.0]),
        result("fitnets", 0, [1.5, 2.5, 1.5, 2.5]),
        result("fitnets", 1, [1.5, 2.5, 1.5, 2.5]),
    ]
    for found in results:
        found["rows"]["float"][0]["stoi"] = None  # a clip that is too short for it
        found["rows"]["float"][1]["pesq_wb"] = None
        for row in found["rows"]["float"]:
            row["si_sdr_db"] = None
    table = bench_kd.to_markdown(results, "").partition("## int8")[0]
    assert line_of(table, "no_kd") == "| `no_kd` | 1.333 | 0.5000 | - |"
    assert line_of(table, "fitnets") == (
        "| `fitnets` | 1.833 (+0.500 [+0.500, +0.500]) | 0.5000 (+0.0000 [+0.0000, +0.0000]) | - |"
    )
