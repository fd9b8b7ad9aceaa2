# SPDX-License-Identifier: Apache-2.0
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import pytest

from lmkd_tf.cli.road import COMMANDS, STAGES, Listener, Road, _describe_corpus
from lmkd_tf.cli.train_stages import Audio
from lmkd_tf.config.loader import apply_overrides
from lmkd_tf.config.schema import ModelConfig
from lmkd_tf.data.index import Clip, Corpus
from lmkd_tf.export.manifest import read_manifest
from lmkd_tf.metrics.cost import count_parameters
from lmkd_tf.models.enhancer import load_enhancer

ALL = set(STAGES)


def _changed(road, *overrides):
    """Stages that run again before any result has changed."""
    config = apply_overrides(road.config, overrides)
    walk = Road(config, road.workdir, road.corpus)
    return {stage for stage in STAGES if not walk.is_finished(stage)}


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("name=other", set()),
        ("teacher_training.learning_rate=0.1", {"teacher"}),
        ("teacher.channels=32", {"teacher"}),
        ("distillation_training.epochs=2", {"student"}),
        ("distillation_training.ema_momentum=0.9", {"student"}),
        ("distill.mixup_alpha=0.4", {"student", "pruned", "quantized"}),
        ("compress.quantization.epochs=2", {"quantized", "export"}),
        ("compress.sparsity=0.6", {"pruned", "quantized", "export"}),
        ("compress.num_bands=32", {"pruned", "quantized", "export"}),
        ("student.channels=16", ALL - {"teacher"}),
        ("data.snr_min_db=-3", ALL),
        ("seed=1", ALL),
    ],
)
def test_changed_setting_runs_what_depends_on_it_and_only_that(road, override, stages):
    assert _changed(road, override) == stages


def test_settings_that_came_later_and_change_nothing_are_not_recorded(road):
    for stage in STAGES:
        settings = json.loads((road.workdir / stage / "stage.json").read_text())["settings"]
        later = {"ema_momentum", "squeeze_channels", "metric_weight"}
        assert not later & set(re.findall(r"\w+", json.dumps(settings)))
        assert "num_bands" not in settings.get("compress", {})


def test_other_recordings_run_everything_again(road, tmp_path):
    corpus = shutil.copytree(road.corpus, tmp_path / "corpus")
    manifest = corpus / "speech" / "manifest.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join([*lines[:3], *lines[4:]]))
    walk = Road(road.config, road.workdir, corpus)
    assert not any(walk.is_finished(stage) for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_missing_stage_is_named_with_its_command(road, tmp_path, stage):
    walk = Road(road.config, tmp_path / "work", road.corpus)
    with pytest.raises(FileNotFoundError, match=f"Run ({'|'.join(COMMANDS.values())}) first"):
        walk.run(stage)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_records_what_it_takes_to_repeat_it(road, stage):
    record = json.loads((road.workdir / stage / "record.json").read_text())
    assert record["seed"] == record["config"]["seed"] == road.config.seed
    assert record["config"]["compress"]["pruning"]["epochs"] == 3  # the override
    assert record["versions"]["tensorflow"]
    assert {"git_commit", "python", "machine"} <= record.keys()


def test_results_describe_every_model_by_its_own_file(road):
    results = json.loads((road.workdir / "results.json").read_text())
    models = {entry["name"]: entry for entry in results["models"]}
    assert {"teacher", "tcn float", "tcn int16", "tcn int8"} <= models.keys()
    teacher = load_enhancer(road.workdir / "teacher" / "teacher.keras")
    assert models["teacher"]["parameters"] == count_parameters(teacher.core)
    for dtype in ("int8", "int16"):
        path = getattr(road, dtype)
        assert models[f"tcn {dtype}"]["bytes"] == path.stat().st_size
        assert models[f"tcn {dtype}"]["arena_bytes"] == read_manifest(path).arena_bytes
    assert models["tcn int8"]["macs_per_hop"] == models["tcn float"]["macs_per_hop"]


def test_results_hold_every_score_of_every_system(road):
    results = json.loads((road.workdir / "results.json").read_text())
    systems = ["noisy", "teacher", "tcn float", "tcn pruned", "tcn int8 (TFLM)"]
    assert list(dict.fromkeys(row["system"] for row in results["rows"])) == systems
    num_clips = road.config.data.num_evaluation_clips
    assert len(results["rows"]) == num_clips * len(systems)
    for row in results["rows"]:
        assert 1.0 <= row["pesq_wb"] <= 4.65
        assert row["snr_db"] in road.config.data.evaluation_snrs_db


def test_evaluation_clips_are_the_same_every_time(road):
    first, second = (
        Road(road.config, road.workdir, road.corpus).evaluation_clips() for _ in range(2)
    )
    assert [clip.name for clip in first] == [clip.name for clip in second]
    assert all((a.noisy == b.noisy).all() for a, b in zip(first, second, strict=True))


def test_a_stage_does_not_start_from_its_own_result(road, tmp_path):
    own = tmp_path / "network" / "network.keras"
    own.parent.mkdir()
    own.write_bytes(b"hours of training")
    walk = Road(replace(road.config, network_start=str(own)), tmp_path, road.corpus)
    with pytest.raises(
        ValueError, match=r"`network_start` must lie outside .*network\.keras.*Copy"
    ):
        walk.run("network")
    assert own.read_bytes() == b"hours of training"


class InterruptSecondEpoch(keras.callbacks.Callback):
    """Ctrl-C after two batches of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            raise KeyboardInterrupt


def test_interrupted_stage_goes_on_with_the_next_unseen_batch(road, tmp_path, monkeypatch):
    asked = []
    training = Audio.training

    def note(audio, train, first_batch, **options):
        asked.append(first_batch)
        return training(audio, train, first_batch, **options)

    monkeypatch.setattr(Audio, "training", note)
    teacher = ModelConfig("tcn", num_bands=64, channels=8, dilations=(1, 2))
    train = replace(road.config.teacher_training, epochs=2, steps_per_epoch=3, batch_size=2)
    config = replace(road.config, teacher=teacher, teacher_training=train)
    walk = Road(config, tmp_path, road.corpus)
    with pytest.raises(KeyboardInterrupt):
        walk.run("teacher", Listener((InterruptSecondEpoch(),)))
    assert not walk.is_finished("teacher")
    folder = walk.run("teacher")
    assert asked == [0, 3]
    assert walk.is_finished("teacher")
    history = json.loads((folder / "history.json").read_text())
    assert {len(values) for values in history.values()} == {2}
    names = {"history.json", "record.json", "stage.json", "teacher.keras"}
    assert {path.name for path in folder.iterdir()} == names


def test_record_says_how_long_the_training_could_hear_what():
    def clip(seconds, split):
        return Clip(Path("a.wav"), seconds, split, "a")

    speech = (clip(5400.0, "train"), clip(1800.0, "train"), clip(3600.0, "test"))
    corpus = Corpus("mine", False, speech, (clip(900.0, "train"), clip(9.0, "valid")), "")
    assert _describe_corpus(corpus) == {
        "name": "mine",
        "is_synthetic": False,
        "train_speech_hours": 2.0,
        "train_noise_hours": 0.25,
    }
