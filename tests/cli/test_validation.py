# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from lmkd_tf.cli.validation import BestEpoch, ValidationScores
from lmkd_tf.metrics.perceptual import pesq_wb
from lmkd_tf.metrics.si_sdr import si_sdr_db

RATE_HZ = 16000


class Gain(keras.Model):
    """Adds a share of noise of its own: the smaller the weight, the better the score."""

    def __init__(self):
        super().__init__()
        self.stop_training = False
        self.share = self.add_weight(shape=(), initializer="ones", name="share")

    def call(self, noisy):
        hum = keras.ops.sin(keras.ops.arange(noisy.shape[1], dtype="float32") * 0.1)
        return noisy + 0.1 * self.share * hum


def _clip(seconds, seed):
    """Noise in bursts of a quarter of a second, which PESQ takes for words."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    speech = (rng.normal(0.0, 0.1, time_s.size) * (time_s * 2 % 1 < 0.5)).astype(np.float32)
    noise = rng.normal(0.0, 0.01, time_s.size).astype(np.float32)
    return SimpleNamespace(noisy=speech + noise, speech=speech)


def test_scores_are_means_over_the_clips_cut_to_one_length():
    clips = [_clip(2.0, 1), _clip(1.5, 2)]
    scores, logs = ValidationScores(clips), {"loss": 1.0}
    scores.set_model(Gain())
    scores.on_test_end(logs)
    hum = 0.1 * np.sin(np.arange(24000) * 0.1)
    pairs = [(clip.speech[:24000], clip.noisy[:24000] + hum) for clip in clips]
    pesq = [pesq_wb(*pair).value or 0.0 for pair in pairs]
    assert logs["loss"] == 1.0
    assert logs["pesq_wb"] == pytest.approx(np.mean(pesq), abs=0.01)
    assert logs["si_sdr_db"] == pytest.approx(np.mean([si_sdr_db(*p) for p in pairs]), abs=1e-3)
    epoch_logs = {}
    scores.on_epoch_end(0, epoch_logs)
    assert epoch_logs == {"val_pesq_wb": logs["pesq_wb"], "val_si_sdr_db": logs["si_sdr_db"]}


def test_clips_without_speech_are_left_out():
    silent = SimpleNamespace(noisy=np.zeros(24000, np.float32), speech=np.zeros(24000, np.float32))
    clips = [_clip(1.5, 1), silent]
    logs, alone = {}, {}
    for chosen, found in ((clips, logs), (clips[:1], alone)):
        scores = ValidationScores(chosen)
        scores.set_model(Gain())
        scores.on_test_end(found)
    assert logs == pytest.approx(alone)
    with pytest.raises(ValueError, match=r"need clips with speech.*Received 1 clips of 24000"):
        ValidationScores([silent])


def _values_of(best, values, model):
    best.set_model(model)
    for epoch, value in enumerate(values):
        model.share.assign(float(epoch))
        best.on_epoch_begin(epoch)
        best.on_test_end({best._name: value})
        best.on_epoch_end(epoch)
        if model.stop_training:
            return epoch
    return None


@pytest.mark.parametrize(
    ("monitor", "values", "epoch"),
    [
        ("val_loss", [3.0, 1.0, 2.0, float("nan")], 1),
        ("val_pesq_wb", [2.0, 2.5, 2.5, 2.4], 1),  # the first of equals
        ("val_si_sdr_db", [-3.0, float("-inf"), -1.0, -2.0], 2),
    ],
)
def test_weights_of_the_best_epoch_are_restored(tmp_path, monitor, values, epoch):
    model = Gain()
    best = BestEpoch(tmp_path / "best.npz", monitor, patience=0)
    assert _values_of(best, values, model) is None
    assert float(model.share) == 3.0
    best.restore(model)
    assert float(model.share) == epoch


def test_training_ends_when_it_has_not_got_better_for_as_long_as_patience(tmp_path):
    best = BestEpoch(tmp_path / "best.npz", "val_loss", patience=2)
    assert _values_of(best, [3.0, 1.0, 2.0, 1.5, 0.5], Gain()) == 3


def test_epochs_before_a_resumption_count(tmp_path):
    model = Gain()
    best = BestEpoch(tmp_path / "best.npz", "val_loss", 2, before=[1.0, 2.0])
    assert not best.is_over(2)
    assert BestEpoch(tmp_path / "best.npz", "val_loss", 2, before=[1.0, 2.0, 3.0]).is_over(3)
    best.set_model(model)
    best.on_epoch_begin(2)
    best.on_test_end({"loss": 1.5})
    assert not (tmp_path / "best.npz").exists()
    best.on_epoch_end(2)
    assert model.stop_training


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_missing_or_damaged_best_weights_are_an_error(tmp_path, content):
    path = tmp_path / "best.npz"
    if content:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"must be as they were written.*Remove the folder"):
        BestEpoch(path, "val_loss", 0).restore(Gain())
