# SPDX-License-Identifier: Apache-2.0
import csv
import shutil
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from lmkd_tf.cli import stages, train_stages
from lmkd_tf.cli.stages import core_builder
from lmkd_tf.cli.train_stages import Audio, build_network, save_model
from lmkd_tf.config.schema import (
    CompressConfig,
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    TrainConfig,
)
from lmkd_tf.data.index import Corpus
from lmkd_tf.models import build
from lmkd_tf.models.enhancer import load_enhancer


@pytest.fixture
def corpus(road, tmp_path):
    """A copy of the corpus, to be damaged."""
    return shutil.copytree(road.corpus, tmp_path / "corpus")


def _keep_rows(manifest, is_kept):
    with manifest.open(newline="") as file:
        columns, *rows = csv.reader(file)
    kept = [row for row in rows if is_kept(dict(zip(columns, row, strict=True)))]
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *kept])
    return kept


def test_audio_is_decoded_once_and_progress_covers_every_split(road):
    audio, reports = Audio(road.corpus, road.config), []
    audio.load_all(lambda done, total: reports.append((done, total)))
    num_clips = len(audio.corpus.speech) + len(audio.corpus.noise)
    assert reports == [(done, num_clips) for done in range(1, num_clips + 1)]
    assert audio.store("speech", "test") is audio.store("speech", "test")


def test_training_pairs_go_on_at_the_batch_that_is_asked_for(road):
    audio, train = Audio(road.corpus, road.config), road.config.teacher_training
    whole = [speech.numpy() for _, speech in audio.training(train, 0).take(4)]
    later = [speech.numpy() for _, speech in audio.training(train, 2).take(2)]
    np.testing.assert_array_equal(later, whole[2:])
    assert not np.array_equal(whole[0], whole[1])


def test_validation_pairs_are_the_same_every_time(road):
    audio, train = Audio(road.corpus, road.config), road.config.teacher_training
    first, second = ([s.numpy() for _, s in audio.validation(train)] for _ in range(2))
    assert len(first) == road.config.data.num_validation_batches
    np.testing.assert_array_equal(first, second)


def test_unreadable_file_is_skipped_and_listed(road, corpus, monkeypatch):
    manifest = corpus / "speech" / "manifest.csv"
    # One file of more than twenty: below 5 %.
    rows = _keep_rows(manifest, lambda row: True)
    extra = [["train/" + f"copy_{i}.flac", *rows[0][1:]] for i in range(10)]
    for row in extra:
        shutil.copy(corpus / "speech" / rows[0][0], corpus / "speech" / row[0])
    with manifest.open("a", newline="") as file:
        csv.writer(file).writerows(extra)
    (corpus / "speech" / extra[3][0]).write_bytes(b"no audio")
    lines = []
    monkeypatch.setattr(train_stages.logging, "warning", lambda text, *a: lines.append(text % a))
    store = Audio(corpus, road.config).store("speech", "train")
    assert len(lines) == 1
    assert lines[0].startswith("Skipped in speech/train:\n")
    assert "copy_3.flac: " in lines[0]
    assert len(store.clips) + 1 == sum(row[0].startswith("train") for row in [*rows, *extra])


def test_corpus_with_too_many_unreadable_files_is_refused(road, corpus):
    for path in sorted((corpus / "noise" / "train").glob("*.flac"))[:3]:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"At most 5% of the listed files.*is empty \(0 bytes\)"):
        Audio(corpus, road.config).store("noise", "train")


def test_corpus_of_one_file_per_split_is_enough_to_train_on(road, corpus):
    for part in ("speech", "noise"):
        seen = set()
        _keep_rows(
            corpus / part / "manifest.csv",
            lambda row, seen=seen: not (row["split"] in seen or seen.add(row["split"])),
        )
    audio = Audio(corpus, road.config)
    assert [len(audio.corpus.speech), len(audio.corpus.noise)] == [3, 3]
    views, speech = next(iter(audio.training(road.config.teacher_training, 0)))
    assert views["first_view"].shape == speech.shape
    assert np.isfinite(views["first_view"].numpy()).all()


def test_corpus_of_one_file_is_refused(road, corpus):
    for part in ("speech", "noise"):
        _keep_rows(corpus / part / "manifest.csv", lambda row: row["path"].endswith("_00.flac"))
    with pytest.raises(ValueError, match="A manifest must list at least one file"):
        Audio(corpus, road.config)


def test_calibration_is_of_consecutive_frames_of_the_validation_split(road):
    audio, model = Audio(road.corpus, road.config), build_network(road.config.student, road.config)
    calibration = stages.draw_calibration(road.config, audio, model, seed=3)
    wanted = road.config.compress.num_calibration_frames
    assert calibration.features.shape == (wanted, model.num_bands)
    source = audio.pair_source(8, split="valid", seed=3)
    features, _ = model.analyze(source.batch(0)[0])
    frames = np.asarray(features)[:, :, 0].reshape(-1, model.num_bands)
    count = min(len(frames), wanted)
    np.testing.assert_array_equal(calibration.features[:count], frames[:count])
    assert all("/valid/" in name and not name.startswith("/") for name in calibration.files)
    other = stages.draw_calibration(road.config, audio, model, seed=4)
    assert not np.array_equal(other.features, calibration.features)


def test_network_and_builder_follow_the_configuration(road):
    network, core = (
        build_network(road.config.student, road.config),
        core_builder(road.config.student)(),
    )
    assert network.stft == road.config.stft
    assert network.core.count_params() == core.count_params()
    assert core.get_layer("encoder").filters == road.config.student.channels


def test_save_model_leaves_an_older_file_when_it_fails(tmp_path):
    class Unwilling:
        def save(self, path, **_):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    (tmp_path / "model.keras").write_bytes(b"older")
    with pytest.raises(OSError, match="No space left"):
        save_model(Unwilling(), tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert (tmp_path / "model.keras").read_bytes() == b"older"


def test_quantized_weights_are_not_written_to_a_disk_that_is_about_full(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda _: usage(10**6, 10**6, 70000))
    stages._require_room(tmp_path, 1000)
    with pytest.raises(OSError, match=r"must have room.*70000 bytes free.*Free some space"):
        stages._require_room(tmp_path, 10000)


def test_a_corpus_of_another_layout_trains_with_rooms_and_epochs(road, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        for tree in ("speech", "noise"):
            path = tmp_path / "trees" / tree / f"g{number}" / f"{number}.wav"
            path.parent.mkdir(parents=True)
            soundfile.write(path, rng.uniform(-0.2, 0.2, 24000), 16000)
        path = tmp_path / "trees" / "rirs" / f"room{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.exp(-np.arange(4000) / 500) * rng.choice([-1, 1], 4000), 16000)
    effects = {"room_probability": 1.0, "sampling": "epochs", "speech_level": "p56"}
    config = replace(road.config, data=replace(road.config.data, **effects))
    audio = Audio(tmp_path / "trees", config)
    for dataset in (
        audio.training(config.teacher_training, 0),
        audio.validation(config.teacher_training),
    ):
        views, speech = next(iter(dataset))
        assert np.isfinite(views["first_view"]).all()
        assert views["first_view"].shape == speech.shape


def test_the_rooms_that_training_uses_are_said(caplog):
    audio = object.__new__(Audio)
    audio.corpus = Corpus("mine", False, (), (), "", layout="packed corpus")
    data = DataConfig(room_probability=1.0, num_simulated_rooms=1)
    audio._config, audio._room_pools = ExperimentConfig(data=data), {}
    assert audio._rooms("train") is audio._rooms("train")
    (message,) = caplog.messages
    assert message.startswith("Rooms of split 'train': 1 simulated; the corpus (packed corpus)")


def test_the_files_of_a_step_without_a_finite_loss_are_named(monkeypatch):
    audio = object.__new__(Audio)
    source = SimpleNamespace(files=lambda step: [f"batch_{step}.flac"])
    sources = {2: source}
    monkeypatch.setattr(audio, "pair_source", sources.get)
    guard = audio.nan_guard(TrainConfig(batch_size=2), first_step=7)
    with pytest.raises(FloatingPointError, match=r"nan in step 7, made of batch_7\.flac\. Look"):
        guard.on_train_batch_end(0, {"loss": float("nan")})


def test_a_distilled_run_and_its_control_see_identical_pairs(road):
    batches = []
    for weight in (1.0, 0.0):
        distill = replace(road.config.distill, distillation_weight=weight)
        audio = Audio(road.corpus, replace(road.config, distill=distill))
        views, speech = next(iter(audio.training(road.config.distillation_training, 5)))
        batches.append((views["first_view"].numpy(), views["second_view"].numpy(), speech.numpy()))
    assert all(np.array_equal(*signals) for signals in zip(*batches, strict=True))


def test_student_starts_from_the_weights_of_a_trained_network(road, tmp_path):
    trained = build_network(road.config.student, road.config)
    trained.core.set_weights([w + 0.5 for w in trained.core.get_weights()])
    save_model(trained, tmp_path / "trained.keras")
    student = build_network(road.config.student, road.config)
    train_stages._start_from(student, str(tmp_path / "trained.keras"))
    for own, other in zip(student.core.get_weights(), trained.core.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)


def test_student_does_not_start_from_another_network(road, tmp_path):
    save_model(build_network(road.config.teacher, road.config), tmp_path / "other.keras")
    student = build_network(road.config.student, road.config)
    with pytest.raises(ValueError, match=r"same architecture and size .*other\.keras.*`student`"):
        train_stages._start_from(student, str(tmp_path / "other.keras"))


def test_network_starts_from_the_layers_that_fit_it(tmp_path):
    size: dict[str, Any] = {"num_bands": 32, "channels": 8, "bottleneck_channels": 16}
    former = build("nano", dilations=(1, 2), bottleneck_dilations=(), **size)
    former.core.set_weights([w + 0.5 for w in former.core.get_weights()])
    save_model(former, tmp_path / "former.keras")
    network = build("nano", dilations=(1, 0), bottleneck_dilations=(), **size)
    own = network.core.get_layer("block_2_recurrence").get_weights()
    time = network.core.get_layer("block_2_time_conv").get_weights()
    train_stages._start_where_it_fits(network, str(tmp_path / "former.keras"))
    for layer in ("encoder_conv", "block_1_time_conv", "block_2", "mask_logits"):
        kept = network.core.get_layer(layer).get_weights()
        for a, b in zip(kept, former.core.get_layer(layer).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    # A kernel of three frames is none of one, and the former network has no recurrence.
    np.testing.assert_array_equal(
        network.core.get_layer("block_2_time_conv").get_weights()[0], time[0]
    )
    for a, b in zip(network.core.get_layer("block_2_recurrence").get_weights(), own, strict=True):
        np.testing.assert_array_equal(a, b)


def test_network_does_not_start_from_one_without_anything_in_common(tmp_path):
    save_model(build("gru"), tmp_path / "other.keras")
    network = build("nano", num_bands=32, channels=8)
    with pytest.raises(ValueError, match=r"layers in common .*other\.keras with none\. Leave"):
        train_stages._start_where_it_fits(network, str(tmp_path / "other.keras"))


def test_student_is_left_alone_where_there_is_nothing_to_prune(road, tmp_path):
    config = replace(road.config, compress=replace(road.config.compress, sparsity=0.0))
    student = build_network(config.student, config)
    inputs = stages.Inputs(teacher=None, student=student, projectors=tmp_path / "none.npz")
    stages.prune_student(config, Audio(road.corpus, config), tmp_path, inputs, [])
    result = load_enhancer(tmp_path / "pruned.keras")
    for own, other in zip(result.core.get_weights(), student.core.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)


def test_student_on_a_grid_shrinks_and_is_tuned_under_the_distiller(road, tmp_path):
    size = {"num_bands": 32, "channels": 8, "bottleneck_channels": 16, "bottleneck_dilations": (1,)}
    brief = replace(road.config.compress.pruning, epochs=1, steps_per_epoch=2)
    config = replace(
        road.config,
        student=ModelConfig("nano", **size),
        distill=replace(road.config.distill, taps=(("decoder", "block_2", "decoder"),)),
        compress=CompressConfig(
            sparsity=0.0, channels=6, bottleneck_channels=10, squeeze_channels=4, pruning=brief
        ),
    )
    teacher = build_network(config.teacher, config)
    student = build_network(config.student, config)
    np.savez(tmp_path / "projectors.npz")
    inputs = stages.Inputs(teacher, student, tmp_path / "projectors.npz")
    stages.prune_student(config, Audio(road.corpus, config), tmp_path, inputs, [])
    result = load_enhancer(tmp_path / "pruned.keras")
    assert (result.size["channels"], result.size["bottleneck_channels"]) == (6, 10)
    assert result.size["bottleneck_dilations"] == [1]
    kernel = result.core.get_layer("bottleneck_0_conv").get_weights()[0]
    assert kernel.shape == (1, 1, 2 * 4, 10)
    # It was trained: a channel of the first kernel is not one that was carried over.
    before = student.core.get_layer("encoder_conv").get_weights()[0]
    assert not np.array_equal(result.core.get_layer("encoder_conv").get_weights()[0], before)
    assert stages.compressed_student(config).size == {**size, **config.compress.size}
