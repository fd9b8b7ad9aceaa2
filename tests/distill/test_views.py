# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.views import NUM_LAMBDA_BANDS, PAIRINGS, blend_per_band, snr_difference_db
from lmkd_tf.dsp.erb import band_centers
from tests.distill.by_hand import mix, signal, spectrum

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)


def signals(count=4, length=100, seed=0):
    return np.random.default_rng(seed).normal(size=(3, count, length)).astype(np.float32)


def paired(name, count=4, seed=0):
    """First view, second view and speech, and the pair made of them."""
    arrays = [keras.ops.convert_to_tensor(array) for array in signals(count)]
    pair = PAIRINGS[name](*arrays, keras.random.SeedGenerator(seed))
    return (*signals(count), pair)


def snr_db(noisy, speech):
    noise = np.float64(noisy) - speech
    return 10 * np.log10(np.mean(np.float64(speech) ** 2, axis=1) / np.mean(noise**2, axis=1))


def test_same_clean_takes_the_views_as_they_come():
    first, second, speech, pair = paired("same_clean")
    for found, expected in zip(pair, (first, second, speech, speech), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert pair.is_same_clean


@pytest.mark.parametrize("name", ["same_clean", "other_snr", "residual_permutation"])
def test_a_shared_target_is_not_mixed(name):
    *_, pair = paired(name)
    assert pair.mixed_speech(np.full(4, 0.3, "f")) is pair.first_speech


def test_other_snr_keeps_speech_and_noise_and_changes_their_ratio_by_at_most_ten_decibels():
    first, _, speech, pair = paired("other_snr", count=64)
    np.testing.assert_array_equal(pair.first, first)
    np.testing.assert_array_equal(pair.second_speech, speech)
    noise, other_noise = first - speech, np.asarray(pair.second) - speech
    gain = other_noise[:, :1] / noise[:, :1]
    np.testing.assert_allclose(other_noise, gain * noise, atol=1e-4)
    change_db = snr_db(np.asarray(pair.second), speech) - snr_db(first, speech)
    assert np.all(np.abs(change_db) < 10.001)
    assert change_db.min() < -8.0
    assert change_db.max() > 8.0


def test_other_snr_repeats_with_the_seed():
    repeated = [np.asarray(paired("other_snr", seed=seed)[-1].second) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(repeated[0], repeated[1])
    assert np.any(repeated[0] != repeated[2])


def test_residual_permutation_gives_each_utterance_the_noise_of_the_next():
    first, _, speech, pair = paired("residual_permutation")
    noise = first - speech
    np.testing.assert_array_equal(pair.first, first)
    for i, other in enumerate([1, 2, 3, 0]):
        np.testing.assert_allclose(pair.second[i], speech[i] + noise[other], atol=1e-6)


def test_other_clean_pairs_each_utterance_with_the_second_view_of_the_next_and_mixes_targets():
    first, second, speech, pair = paired("other_clean")
    order = [1, 2, 3, 0]
    np.testing.assert_array_equal(pair.first, first)
    np.testing.assert_array_equal(pair.second, second[order])
    np.testing.assert_array_equal(pair.second_speech, speech[order])
    lambdas = np.array([0.0, 0.25, 0.5, 1.0], "f")
    expected = mix(speech, speech[order], lambdas)
    np.testing.assert_allclose(pair.mixed_speech(lambdas), expected, atol=1e-6)


def test_snr_difference_is_that_of_the_first_less_that_of_the_second():
    first, second, speech, pair = paired("same_clean")
    expected = snr_db(first, speech) - snr_db(second, speech)
    np.testing.assert_allclose(snr_difference_db(pair), expected, atol=1e-3)


def test_snr_difference_measures_each_signal_by_its_own_speech():
    first, second, speech, pair = paired("other_clean")
    order = [1, 2, 3, 0]
    expected = snr_db(first, speech) - snr_db(second[order], speech[order])
    np.testing.assert_allclose(snr_difference_db(pair), expected, atol=1e-3)


def test_snr_difference_of_silence_is_finite():
    silence = np.zeros((2, 10), "f")
    pair = PAIRINGS["same_clean"](*3 * [keras.ops.convert_to_tensor(silence)], None)
    np.testing.assert_array_equal(snr_difference_db(pair), 0.0)


def test_a_blend_per_band_mixes_every_bin_by_its_interpolated_coefficient():
    first, second, _ = signals(2)
    lambdas = np.random.default_rng(1).uniform(size=(2, NUM_LAMBDA_BANDS)).astype(np.float32)
    centers = band_centers(FRAME, NUM_LAMBDA_BANDS)
    weight = np.stack([np.interp(np.arange(FRAME.num_bins), centers, row) for row in lambdas])
    spectra = [spectrum(x, FRAME) for x in (first, second)]
    mixed = weight[:, None] * spectra[0] + (1 - weight[:, None]) * spectra[1]
    expected = signal(mixed, FRAME, first.shape[1])
    np.testing.assert_allclose(
        blend_per_band(first, second, lambdas, FRAME), expected, rtol=1e-4, atol=1e-4
    )


def test_one_coefficient_for_all_bands_is_the_mixture_of_the_signals():
    first, second, _ = signals(2)
    lambdas = np.array([0.2, 0.9], "f")
    blended = blend_per_band(first, second, np.tile(lambdas[:, None], NUM_LAMBDA_BANDS), FRAME)
    np.testing.assert_allclose(blended, mix(first, second, lambdas), atol=1e-5)
