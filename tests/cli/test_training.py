# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmkd_tf.cli.training import (
    HistoryFile,
    epochs_done,
    fit_stage,
    make_optimizer,
    read_history,
    remove_checkpoint,
)
from lmkd_tf.cli.validation import BestEpoch
from lmkd_tf.config.schema import TrainConfig
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.models.builder import build_core

TRAIN = TrainConfig(epochs=3, steps_per_epoch=4, batch_size=2, learning_rate=0.01, warmup_steps=2)
AVERAGED = replace(TRAIN, ema_momentum=0.8)
BANDS = 6


def _make_distiller(train=TRAIN):
    keras.utils.set_random_seed(0)
    size = {"num_bands": BANDS, "dilations": (1,)}
    distiller = LatentMixupDistiller(
        teacher=build_core("tcn", channels=6, **size),
        student=build_core("tcn", channels=4, **size),
        taps=[("bottleneck", "block_1", "block_1")],
    )
    distiller.compile(optimizer=make_optimizer(train), loss="mse")
    return distiller


def _pairs(first_batch):
    """Batches that depend on nothing but their number."""

    def draw(number):
        seed = tf.stack([tf.cast(number, tf.int32), 1])
        noise = tf.random.stateless_normal((3, TRAIN.batch_size, 5, 1, BANDS), seed)
        return {"first_view": noise[0], "second_view": noise[1]}, tf.sigmoid(noise[2])

    return tf.data.Dataset.counter(first_batch).map(draw)


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C in an epoch, after some batches."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.when, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.when:
            raise KeyboardInterrupt


def _fit(folder, callbacks=(), train=TRAIN, **options):
    distiller = _make_distiller(train)
    pairs = _pairs(epochs_done(folder) * train.steps_per_epoch)
    fit_stage(distiller, pairs, _pairs(1000).take(2), train, folder, list(callbacks), **options)
    return distiller


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return _fit(folder), read_history(folder)


@pytest.fixture(scope="module")
def interrupted_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        _fit(folder, [Interrupt(1, 2)])
    return folder


@pytest.fixture
def interrupted(interrupted_once, tmp_path):
    """Folder of a stage that was interrupted in the second epoch."""
    return shutil.copytree(interrupted_once, tmp_path / "stage")


def _assert_same_weights(model, other):
    assert len(model.weights) == len(other.weights)
    for weight, wanted in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(np.asarray(weight), np.asarray(wanted), atol=1e-6)


def test_resumed_stage_ends_where_an_uninterrupted_one_does(interrupted, uninterrupted):
    assert epochs_done(interrupted) == 1
    assert len(read_history(interrupted)["loss"]) == 1
    resumed = _fit(interrupted)
    model, history = uninterrupted
    _assert_same_weights(resumed, model)
    assert int(resumed.optimizer.iterations) == TRAIN.epochs * TRAIN.steps_per_epoch
    assert read_history(interrupted).keys() == history.keys()
    for name, values in read_history(interrupted).items():
        assert values == pytest.approx(history[name], abs=1e-5)
        assert len(values) == TRAIN.epochs


def test_stage_interrupted_after_its_last_epoch_trains_no_more(interrupted, uninterrupted):
    _fit(interrupted)
    assert epochs_done(interrupted) == TRAIN.epochs
    _assert_same_weights(_fit(interrupted), uninterrupted[0])
    remove_checkpoint(interrupted)
    assert epochs_done(interrupted) == 0
    assert [path.name for path in interrupted.iterdir()] == ["history.json"]


def test_only_the_newest_checkpoint_is_kept(interrupted):
    resume = interrupted / "resume"
    assert sorted(p.name for p in resume.iterdir()) == ["checkpoint.json", "epoch_1.keras"]
    _fit(interrupted)
    assert sorted(p.name for p in resume.iterdir()) == ["checkpoint.json", "epoch_3.keras"]


def test_epoch_counts_only_once_its_checkpoint_is_written(interrupted, uninterrupted):
    # Ctrl-C between the history and the checkpoint of the second epoch.
    history = read_history(interrupted)
    longer = {name: [*values, 99.0] for name, values in history.items()}
    (interrupted / "history.json").write_text(json.dumps(longer))
    assert epochs_done(interrupted) == 1
    _fit(interrupted)
    assert read_history(interrupted)["loss"] == pytest.approx(uninterrupted[1]["loss"], abs=1e-5)


def _overwrite_weights(resume):
    content = bytearray((resume / "epoch_1.keras").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = b"\xff" * 64
    (resume / "epoch_1.keras").write_bytes(content)


def _truncate_weights(resume):
    path = resume / "epoch_1.keras"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    "damage",
    [
        _overwrite_weights,
        _truncate_weights,
        lambda resume: (resume / "epoch_1.keras").unlink(),
        lambda resume: (resume / "checkpoint.json").unlink(),
        lambda resume: (resume / "checkpoint.json").write_text('{"epochs": 1'),
        lambda resume: (resume / "checkpoint.json").write_text("[]"),
        lambda resume: (resume / "checkpoint.json").write_text('{"epochs": 1}'),
    ],
)
def test_damaged_checkpoint_counts_as_none(interrupted, damage):
    damage(interrupted / "resume")
    assert epochs_done(interrupted) == 0


def test_stage_with_a_damaged_checkpoint_starts_over(interrupted, uninterrupted):
    _overwrite_weights(interrupted / "resume")
    _assert_same_weights(_fit(interrupted), uninterrupted[0])
    assert read_history(interrupted)["loss"] == pytest.approx(uninterrupted[1]["loss"], abs=1e-5)


def test_stage_that_cannot_resume_keeps_no_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path, [Interrupt(1, 0)], is_resumable=False)
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]
    assert epochs_done(tmp_path) == 0


def test_history_file_keeps_the_epochs_before_and_appends(tmp_path):
    (tmp_path / "history.json").write_text('{"loss": [3.0, 2.0, 1.0]}')
    history = HistoryFile(tmp_path / "history.json", keep=2)
    history.on_epoch_end(2, {"loss": np.float32(0.5)})
    assert read_history(tmp_path) == {"loss": [3.0, 2.0, 0.5]}
    assert read_history(tmp_path / "absent") == {}


def test_history_with_a_value_that_is_not_finite_is_json_and_is_read_back_as_nan(tmp_path):
    path = tmp_path / "history.json"
    HistoryFile(path).on_epoch_end(0, {"val_pesq_wb": float("nan"), "loss": 1.0})
    assert json.loads(path.read_text()) == {"val_pesq_wb": [None], "loss": [1.0]}
    resumed = HistoryFile(path, keep=1).values_of("val_pesq_wb")
    assert np.isnan(resumed).tolist() == np.isnan(read_history(tmp_path)["val_pesq_wb"]).tolist()
    best = BestEpoch(tmp_path / "best.npz", "val_pesq_wb", 1, resumed)
    assert best.is_over(1)  # no epoch was better than none


def test_learning_rate_warms_up_to_its_peak_and_falls_to_a_hundredth():
    train = TrainConfig(epochs=2, steps_per_epoch=50, learning_rate=0.01, warmup_steps=10)
    optimizer = make_optimizer(train)
    schedule = optimizer._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    # Half way from the peak down, the cosine is 0: (1 + 0.01) / 2 of the peak.
    np.testing.assert_allclose(rates, [1e-4, 5.05e-3, 1e-2, 5.05e-3, 1e-4], rtol=1e-4)
    assert isinstance(optimizer, keras.optimizers.AdamW)


def test_optimizer_without_weight_decay_is_plain_adam_that_clips():
    optimizer = make_optimizer(TrainConfig(weight_decay=0.0, clip_norm=2.5))
    assert type(optimizer) is keras.optimizers.Adam
    assert optimizer.global_clipnorm == 2.5


def test_averaged_weights_are_those_of_the_formula_and_are_what_is_validated(tmp_path):
    steps = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(
            [np.array(variable, np.float64) for variable in note.model.variables_to_train()]
        )
    )
    distiller = _fit(tmp_path, [note], AVERAGED)
    assert len(steps) == AVERAGED.epochs * AVERAGED.steps_per_epoch
    averages = steps[0]
    for weights in steps[1:]:
        averages = [0.8 * a + 0.2 * w for a, w in zip(averages, weights, strict=True)]
    for variable, average in zip(distiller.variables_to_train(), averages, strict=True):
        np.testing.assert_allclose(np.asarray(variable), average, atol=1e-6)
    validated = read_history(tmp_path)["val_loss"][-1]
    averaged_loss = distiller.evaluate(_pairs(1000).take(2), verbose=0, return_dict=True)["loss"]
    assert averaged_loss == pytest.approx(validated, abs=1e-6)
    for variable, last in zip(distiller.variables_to_train(), steps[-1], strict=True):
        variable.assign(last)
    last_loss = distiller.evaluate(_pairs(1000).take(2), verbose=0, return_dict=True)["loss"]
    assert last_loss != pytest.approx(validated, abs=1e-4)


def test_averages_have_batch_statistics_of_their_own(tmp_path):
    distiller = _fit(tmp_path, train=AVERAGED)
    first_norm = next(
        x for x in distiller.student.layers if isinstance(x, keras.layers.BatchNormalization)
    )
    before = keras.Model(distiller.student.inputs, first_norm.input)
    batches = [np.asarray(before(views["first_view"])) for views, _ in _pairs(1000).take(2)]
    mean = np.mean([b.mean(axis=(0, 1, 2)) for b in batches], axis=0)
    variance = np.mean([b.var(axis=(0, 1, 2)) for b in batches], axis=0)
    np.testing.assert_allclose(np.asarray(first_norm.moving_mean), mean, atol=1e-5)
    np.testing.assert_allclose(np.asarray(first_norm.moving_variance), variance, rtol=1e-4)
    assert first_norm.momentum == pytest.approx(0.99)


def test_resumed_stage_keeps_weights_and_averages(tmp_path):
    whole = _fit(tmp_path / "whole", train=AVERAGED)
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "cut", [Interrupt(1, 2)], AVERAGED)
    resumed = _fit(tmp_path / "cut", train=AVERAGED)
    _assert_same_weights(resumed, whole)
    for average, wanted in zip(resumed.optimizer.variables, whole.optimizer.variables, strict=True):
        np.testing.assert_allclose(np.asarray(average), np.asarray(wanted), atol=1e-6)
    for name, values in read_history(tmp_path / "whole").items():
        assert read_history(tmp_path / "cut")[name] == pytest.approx(values, abs=1e-5)
    # Once more after the last epoch, as when the program was killed before it saved the result.
    _assert_same_weights(_fit(tmp_path / "cut", train=AVERAGED), whole)


BEST = replace(AVERAGED, monitor="val_loss", learning_rate=0.5, warmup_steps=0)


def test_best_epoch_is_what_is_left_also_after_an_interruption(tmp_path):
    whole = _fit(tmp_path / "whole", train=BEST)
    losses = read_history(tmp_path / "whole")["val_loss"]
    assert min(losses) < losses[-1]  # at this rate the last epoch is not the best one
    found = whole.evaluate(_pairs(1000).take(2), verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(min(losses), rel=1e-5)
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "cut", [Interrupt(2, 2)], BEST)
    resumed = _fit(tmp_path / "cut", train=BEST)
    for weight, wanted in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_allclose(np.asarray(weight), np.asarray(wanted), rtol=1e-3, atol=1e-4)


def test_stage_that_ended_early_is_not_trained_on(tmp_path):
    early = replace(BEST, epochs=8, patience=1)
    _fit(tmp_path, train=early)
    num_epochs = len(read_history(tmp_path)["loss"])
    assert num_epochs < early.epochs
    assert epochs_done(tmp_path) == num_epochs
    found = _fit(tmp_path, train=early).evaluate(_pairs(1000).take(2), verbose=0, return_dict=True)[
        "loss"
    ]
    assert len(read_history(tmp_path)["loss"]) == num_epochs
    assert found == pytest.approx(min(read_history(tmp_path)["val_loss"]), rel=1e-5)
