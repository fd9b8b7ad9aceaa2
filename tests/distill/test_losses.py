# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.losses import SpeechLoss

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)


def signals(seed=0, batch_size=3, num_samples=500):
    rng = np.random.default_rng(seed)
    speech = 0.1 * rng.normal(size=(batch_size, num_samples))
    enhanced = 0.8 * speech + 0.02 * rng.normal(size=speech.shape)
    return speech.astype(np.float32), enhanced.astype(np.float32)


def spectrum_of(signal):
    """Complex double-precision spectrum of one signal, (T, F), with frames cut by hand."""
    hann = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64))
    num_hops = -(-len(signal) // 32)
    padded = np.zeros((num_hops + 2) * 32)
    padded[32 : 32 + len(signal)] = signal
    frames = [padded[t * 32 : t * 32 + 64] * hann for t in range(num_hops + 1)]
    return np.fft.rfft(frames)


def si_sdr_db_of(speech, estimate):
    speech, estimate = speech - speech.mean(), estimate - estimate.mean()
    target = estimate @ speech / (speech @ speech) * speech
    return 10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2))


def expected_loss(speech, enhanced, exponent, weights):
    per_example = []
    for s, y in zip(speech.astype(np.float64), enhanced.astype(np.float64), strict=True):
        clean, found = spectrum_of(s), spectrum_of(y)
        magnitude = np.mean((np.abs(clean) ** exponent - np.abs(found) ** exponent) ** 2)
        turned = [z * np.abs(z) ** exponent / np.maximum(np.abs(z), 1e-12) for z in (clean, found)]
        complex_error = np.mean(np.abs(turned[0] - turned[1]) ** 2)
        spectral = 10 * (weights[0] * magnitude + weights[1] * complex_error)
        per_example.append(spectral - weights[2] * si_sdr_db_of(s, y))
    return per_example


@pytest.mark.parametrize("weights", [(0.7, 0.3, 0.01), (1.0, 0.0, 0.0), (0, 1.0, 0), (0, 0, 1.0)])
def test_loss_equals_the_formula_in_double_precision(weights):
    speech, enhanced = signals()
    loss = SpeechLoss(FRAME, 0.5, *weights)
    expected = expected_loss(speech, enhanced, 0.5, weights)
    np.testing.assert_allclose(loss.call(speech, enhanced), expected, rtol=2e-3)


def test_default_weights_are_those_of_the_documented_formula():
    speech, enhanced = signals()
    expected = expected_loss(speech, enhanced, 0.3, (0.7, 0.3, 0.01))
    np.testing.assert_allclose(SpeechLoss(FRAME).call(speech, enhanced), expected, rtol=2e-2)


def test_call_gives_one_value_per_example_and_the_loss_their_mean():
    speech, enhanced = signals()
    per_example = np.asarray(SpeechLoss(FRAME).call(speech, enhanced))
    assert per_example.shape == (3,)
    assert float(SpeechLoss(FRAME)(speech, enhanced)) == pytest.approx(per_example.mean(), rel=1e-6)


def test_an_example_of_weight_zero_does_not_count():
    speech, enhanced = signals()
    alone = SpeechLoss(FRAME).call(speech, enhanced)[1]
    weighted = SpeechLoss(FRAME)(speech, enhanced, sample_weight=np.array([0.0, 3.0, 0.0], "f"))
    assert float(weighted) == pytest.approx(float(alone), rel=1e-5)


def test_loss_is_finite_in_silence():
    silence = np.zeros((1, 500), np.float32)
    speech, _ = signals(batch_size=1)
    assert np.isfinite(SpeechLoss(FRAME)(speech, silence))
    assert np.isfinite(SpeechLoss(FRAME)(silence, silence))


def test_loss_survives_its_config():
    loss = SpeechLoss(FRAME, exponent=0.4, magnitude_weight=0.1, complex_weight=0.2)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(restored, SpeechLoss)
    assert restored.stft == FRAME
    assert restored.get_config() == loss.get_config()
    speech, enhanced = signals()
    np.testing.assert_array_equal(restored.call(speech, enhanced), loss.call(speech, enhanced))


@pytest.mark.parametrize("exponent", [0.0, -0.3, 1.5])
def test_exponent_outside_its_range_is_refused(exponent):
    message = rf"`exponent` must lie in \(0, 1\]\. Received exponent={exponent}\. Use 0\.3"
    with pytest.raises(ValueError, match=message):
        SpeechLoss(exponent=exponent)
