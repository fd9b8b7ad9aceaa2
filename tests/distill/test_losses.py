# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.config.schema import LossConfig, StftConfig
from lmkd_tf.distill.losses import SpeechLoss

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)


def signals(seed=0, batch_size=3, num_samples=500):
    rng = np.random.default_rng(seed)
    speech = 0.1 * rng.normal(size=(batch_size, num_samples))
    enhanced = 0.8 * speech + 0.02 * rng.normal(size=speech.shape)
    return speech.astype(np.float32), enhanced.astype(np.float32)


def spectrum_of(signal, window=64):
    """Complex double-precision spectrum of one signal, (T, F), with frames cut by hand."""
    hop = window // 2
    hann = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window))
    num_hops = -(-len(signal) // hop)
    padded = np.zeros((num_hops + 2) * hop)
    padded[hop : hop + len(signal)] = signal
    frames = [padded[t * hop : t * hop + window] * hann for t in range(num_hops + 1)]
    return np.fft.rfft(frames)


def si_sdr_db_of(speech, estimate):
    speech, estimate = speech - speech.mean(), estimate - estimate.mean()
    target = estimate @ speech / (speech @ speech) * speech
    return 10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2))


def expected_loss(speech, enhanced, exponent, weights, window=64):
    per_example = []
    for s, y in zip(speech.astype(np.float64), enhanced.astype(np.float64), strict=True):
        clean, found = spectrum_of(s, window), spectrum_of(y, window)
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


def test_waveform_term_is_the_mean_absolute_error():
    speech, enhanced = signals()
    loss = SpeechLoss(FRAME, 0.3, 0.0, 0.0, 0.0, waveform_weight=2.0)
    expected = 2.0 * np.abs(speech.astype(np.float64) - enhanced).mean(axis=1)
    np.testing.assert_allclose(loss.call(speech, enhanced), expected, rtol=1e-5)


def test_waveform_term_adds_to_the_others():
    speech, enhanced = signals()
    without = np.asarray(SpeechLoss(FRAME).call(speech, enhanced))
    expected = without + 0.5 * np.abs(speech - enhanced).mean(axis=1)
    found = SpeechLoss(FRAME, waveform_weight=0.5).call(speech, enhanced)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_asymmetry_weighs_lost_speech_and_noise_that_is_left():
    speech, enhanced = signals()
    expected = []
    for s, y in zip(speech.astype(np.float64), enhanced.astype(np.float64), strict=True):
        lost = np.abs(spectrum_of(s)) ** 0.5 - np.abs(spectrum_of(y)) ** 0.5
        assert (lost > 0).any()
        assert (lost < 0).any()
        expected.append(10 * np.mean(np.where(lost > 0, 1.4, 0.6) * lost**2))
    loss = SpeechLoss(FRAME, 0.5, 1.0, 0.0, 0.0, magnitude_asymmetry=0.4)
    np.testing.assert_allclose(loss.call(speech, enhanced), expected, rtol=2e-3)


def test_asymmetry_out_of_range_is_refused():
    message = r"`magnitude_asymmetry` must lie in \[-1, 1\]\. Received .*=1\.5\. Use 0\.0"
    with pytest.raises(ValueError, match=message):
        SpeechLoss(magnitude_asymmetry=1.5)
    with pytest.raises(ValueError, match=r"`loss\.magnitude_asymmetry` must lie in \[-1, 1\]"):
        LossConfig(magnitude_asymmetry=-1.5)


def test_resolutions_average_the_spectral_terms_and_leave_the_others_alone():
    speech, enhanced = signals()
    loss = SpeechLoss(FRAME, 0.5, 0.7, 0.3, 0.01, resolutions=(32, 256))
    spectral = [expected_loss(speech, enhanced, 0.5, (0.7, 0.3, 0.0), w) for w in (64, 32, 256)]
    others = expected_loss(speech, enhanced, 0.5, (0.0, 0.0, 0.01))
    expected = np.mean(spectral, axis=0) + others
    np.testing.assert_allclose(loss.call(speech, enhanced), expected, rtol=2e-3)


def test_further_terms_are_off_unless_asked_for():
    speech, enhanced = signals()
    off = SpeechLoss(FRAME, waveform_weight=0.0, resolutions=()).call(speech, enhanced)
    np.testing.assert_array_equal(SpeechLoss(FRAME).call(speech, enhanced), off)


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
    loss = SpeechLoss(
        FRAME,
        0.4,
        magnitude_weight=0.1,
        complex_weight=0.2,
        waveform_weight=0.3,
        resolutions=(32,),
        magnitude_asymmetry=0.1,
    )
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


def test_negative_waveform_weight_is_refused():
    message = r"`waveform_weight` must not be negative\. Received waveform_weight=-1\. Use 0\.0"
    with pytest.raises(ValueError, match=message):
        SpeechLoss(waveform_weight=-1)


@pytest.mark.parametrize("window", [0, -2, 511])
def test_odd_or_empty_windows_are_refused(window):
    message = rf"even window lengths in samples\. Received resolutions=\(256, {window}\)\. Use"
    with pytest.raises(ValueError, match=message):
        SpeechLoss(resolutions=(256, window))
