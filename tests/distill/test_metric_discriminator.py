# SPDX-License-Identifier: Apache-2.0
import csv

import keras
import numpy as np
import pytest
import soundfile
from pesq import pesq

from lmkd_tf.distill.losses import SpeechLoss
from lmkd_tf.distill.metric_discriminator import MetricTrainer, normalized_pesq

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="PESQ in the step needs TensorFlow"
)
RATE_HZ = 16000


def gain_network():
    """One weight: the gain of the noisy speech."""
    gain = keras.layers.EinsumDense("bnc,cd->bnd", (None, 1), kernel_initializer="ones")
    inputs = keras.Input((None,))
    output = keras.layers.Reshape((-1,))(gain(keras.layers.Reshape((-1, 1))(inputs)))
    return keras.Model(inputs, output)


def make_trainer(network=None, **settings):
    keras.utils.set_random_seed(0)
    trainer = MetricTrainer(network or gain_network(), **{"channels": 4, **settings})
    trainer.compile(optimizer=keras.optimizers.SGD(1e-3), loss=SpeechLoss())
    return trainer


@pytest.fixture(scope="module")
def recordings(shared_data):
    """Real speech of the training split and the same with real noise at 0 to 15 dB, `(8, N)`."""
    with (shared_data / "mini.csv").open() as listed:
        paths = [shared_data / row["path"] for row in csv.DictReader(listed)]
    speech, noise = (
        _read([path for path in paths if path.relative_to(shared_data).parts[0] == kind])
        for kind in ("speech", "noise")
    )
    gain = np.sqrt(np.sum(speech**2, 1) / np.sum(noise**2, 1)) * 10 ** (np.arange(8) / -10)
    return speech, (speech + gain[:, None] * noise).astype(np.float32)


def _read(paths, count=8, seconds=2):
    found = []
    for path in paths:
        samples = soundfile.read(path, dtype="float32")[0][: seconds * RATE_HZ]
        if len(samples) == seconds * RATE_HZ and np.std(samples) > 1e-4:
            found.append(0.05 * samples / np.std(samples))
    return np.stack(found[:count]).astype(np.float32)


# ---- PESQ ----------------------------------------------------------------------------------------


def test_pesq_is_zero_at_one_and_one_for_equal_signals(recordings):
    speech, noisy = recordings
    found = normalized_pesq(speech, noisy)
    expected = [
        (pesq(RATE_HZ, s, n, "wb") - 1.0) / 3.6439 for s, n in zip(*recordings, strict=True)
    ]
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(normalized_pesq(speech, speech), np.ones(8), atol=1e-4)


def test_clips_without_a_score_are_not_numbers(recordings):
    speech, noisy = recordings[0][:4].copy(), recordings[1][:4].copy()
    speech[0], noisy[1], noisy[2, 5] = 0.0, 0.0, np.nan
    np.testing.assert_array_equal(
        np.isnan(normalized_pesq(speech, noisy)), [True, True, True, False]
    )


# ---- the two losses ------------------------------------------------------------------------------


class Rated(MetricTrainer):
    """Rates a signal by its first sample."""

    def rate(self, speech, enhanced):
        del speech
        return enhanced[:, 0]


@on_tensorflow
def test_losses_are_those_computed_by_hand():
    trainer = Rated(gain_network(), channels=2)
    speech = np.array([[0.9, 0.0], [0.5, 0.0], [0.8, 0.0]], np.float32)
    enhanced = np.array([[0.2, 0.0], [0.6, 0.0], [0.4, 0.0]], np.float32)
    # (0.8^2 + 0.4^2 + 0.6^2) / 3
    assert float(trainer.metric_loss(speech, enhanced)) == pytest.approx(1.16 / 3)
    scores = np.array([0.5, np.nan, 0.3], np.float32)
    # (0.1^2 + 0.5^2 + 0.2^2) / 3, and (0.3^2 + 0.1^2) / 2 over the clips that have a score
    found = float(trainer.discriminator_loss(speech, enhanced, scores))
    assert found == pytest.approx(0.30 / 3 + 0.10 / 2)
    none = float(trainer.discriminator_loss(speech, enhanced, np.full(3, np.nan, np.float32)))
    assert none == pytest.approx(0.30 / 3)


@on_tensorflow
def test_network_is_trained_on_both_terms_and_evaluated_on_the_supervised_one(recordings):
    speech, noisy = recordings
    trainer = make_trainer(metric_weight=0.5)
    supervised = float(SpeechLoss()(speech, noisy))
    metric = float(trainer.metric_loss(speech, noisy))
    logs = trainer.train_on_batch(noisy, speech, return_dict=True)
    assert logs["metric_loss"] == pytest.approx(metric, rel=1e-4)
    assert logs["loss"] == pytest.approx(supervised + 0.5 * metric, rel=1e-4)
    trainer = make_trainer(metric_weight=0.5)
    logs = trainer.test_on_batch(noisy, speech, return_dict=True)
    assert logs["loss"] == pytest.approx(supervised, rel=1e-4)


@on_tensorflow
def test_each_optimizer_changes_its_own_variables_alone(recordings):
    trainer = make_trainer()
    gain, ratings = (m.get_weights() for m in (trainer.network, trainer.discriminator))
    trainer.discriminator_optimizer.learning_rate = 0.0
    trainer.train_on_batch(*recordings[::-1])
    assert not np.array_equal(trainer.network.get_weights()[0], gain[0])
    assert all(map(np.array_equal, trainer.discriminator.get_weights(), ratings))
    trainer = make_trainer()
    trainer.optimizer.learning_rate = 0.0
    trainer.train_on_batch(*recordings[::-1])
    assert np.array_equal(trainer.network.get_weights()[0], gain[0])
    assert not np.array_equal(trainer.discriminator.get_weights()[0], ratings[0])


@on_tensorflow
def test_rating_does_not_depend_on_the_level(recordings):
    trainer = make_trainer()
    found = np.asarray(trainer.rate(*recordings))
    assert found.shape == (8,)
    assert np.all((found > 0) & (found < 1))
    quiet = np.asarray(trainer.rate(*(0.1 * samples for samples in recordings)))
    np.testing.assert_allclose(quiet, found, atol=1e-4)


@on_tensorflow
def test_discriminator_learns_the_pesq_of_real_recordings(recordings):
    trainer = make_trainer(channels=8, discriminator_rate=2e-3)
    trainer.optimizer.learning_rate = 0.0
    errors = [
        trainer.train_on_batch(*recordings[::-1], return_dict=True)["discriminator_loss"]
        for _ in range(25)
    ]
    # Logs are means since the first step.
    assert 25 * errors[-1] - 20 * errors[-6] < 0.5 * 5 * errors[0]


# ---- saving, refusals ----------------------------------------------------------------------------


@on_tensorflow
def test_saved_trainer_goes_on_as_the_one_that_was_saved(recordings, tmp_path):
    batch = recordings[1][:2], recordings[0][:2]
    trainer = make_trainer()
    trainer.train_on_batch(*batch)
    trainer.save(tmp_path / "trainer.keras")
    other = make_trainer()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    for one in (trainer, other, loaded):
        one.train_on_batch(*batch)
    for one in (other, loaded):
        for found, expected in zip(one.get_weights(), trainer.get_weights(), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


@on_tensorflow
def test_weight_that_is_not_positive_is_refused():
    message = r"must be positive\. Received metric_weight=0\.0\. Train the network alone"
    with pytest.raises(ValueError, match=message):
        MetricTrainer(gain_network(), metric_weight=0.0)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow is not refused")
def test_other_backends_are_refused():
    with pytest.raises(ValueError, match=r"on TensorFlow, .*Received the backend .*\. Use --back"):
        MetricTrainer(gain_network())
