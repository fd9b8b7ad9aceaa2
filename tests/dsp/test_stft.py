# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import tensorflow as tf

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.stft import analyze_frames, inverse_stft, stft, synthesize_frames, window

CONFIG = StftConfig()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape).astype(np.float32)


def snr_db(reference, estimate):
    reference = np.asarray(reference, np.float64)
    error = np.sum((reference - np.asarray(estimate)) ** 2)
    return 10 * np.log10(np.sum(reference**2) / max(error, 1e-30))


def hand_cut_spectrum(samples, config):
    """float64 spectrum of frames cut one by one from signals with zeros around them."""
    hop, length = config.hop_length, config.window_length
    n = np.arange(length)
    hann = np.sqrt(0.5 * (1 - np.cos(2 * np.pi * n / length)))
    num_frames = int(np.ceil(samples.shape[1] / hop)) + 1
    frames = np.zeros((len(samples), num_frames, length))
    for t in range(num_frames):
        for k in range(length):
            position = (t + 1) * hop - length + k
            if 0 <= position < samples.shape[1]:
                frames[:, t, k] = samples[:, position]
    return np.fft.rfft(frames * hann, config.fft_length)


@pytest.mark.parametrize("num_samples", [1, 255, 256, 257, 16000, 16001])
def test_inverse_of_stft_gives_the_signal_back(num_samples):
    samples = noise(2, num_samples)
    restored = inverse_stft(stft(samples, CONFIG), CONFIG, num_samples)
    assert restored.shape == (2, num_samples)
    assert snr_db(samples, restored) >= 100


def test_inverse_of_stft_is_exact_with_a_longer_transform():
    config = StftConfig(window_length=64, hop_length=32, fft_length=128)
    samples = noise(1, 333)
    assert snr_db(samples, inverse_stft(stft(samples, config), config, 333)) >= 100


@pytest.mark.parametrize("num_samples", [1, 32, 33, 200])
@pytest.mark.parametrize("fft_length", [64, 80])
def test_stft_equals_numpy_on_frames_cut_by_hand(num_samples, fft_length):
    config = StftConfig(window_length=64, hop_length=32, fft_length=fft_length)
    samples = noise(2, num_samples)
    expected = hand_cut_spectrum(samples, config)
    spectrum = np.asarray(stft(samples, config))
    assert spectrum.shape == (2, -(-num_samples // 32) + 1, fft_length // 2 + 1, 2)
    np.testing.assert_allclose(spectrum[..., 0], expected.real, atol=1e-5)
    np.testing.assert_allclose(spectrum[..., 1], expected.imag, atol=1e-5)


@pytest.mark.parametrize("changed", [0, 255, 256, 700, 1279])
def test_a_sample_changes_only_frames_that_hold_it(changed):
    before = noise(1, 1280)
    after = before.copy()
    after[0, changed] += 0.5
    difference = np.asarray(stft(after, CONFIG)) - np.asarray(stft(before, CONFIG))
    moved = np.flatnonzero(np.abs(difference).max(axis=(0, 2, 3)) > 1e-6)
    # frame t ends before sample (t + 1) * hop, so sample n is first seen by frame n // hop
    assert moved.min() >= changed // CONFIG.hop_length
    assert moved.max() <= changed // CONFIG.hop_length + 1


@pytest.mark.parametrize("length", [64, 512])
def test_window_is_periodic_and_its_square_sums_to_one(length):
    config = StftConfig(window_length=length, hop_length=length // 2, fft_length=length)
    squared = window(config).astype(np.float64) ** 2
    np.testing.assert_allclose(squared[: length // 2] + squared[length // 2 :], 1.0, atol=1e-6)
    assert window(config)[0] == 0.0
    assert window(config)[length // 2] == 1.0
    assert window(config).dtype == np.float32


def test_analysis_of_a_cosine_at_a_bin_peaks_there():
    phase = 2 * np.pi * 10 * np.arange(512) / 512
    spectrum = np.asarray(analyze_frames(np.cos(phase).astype(np.float32)[None], CONFIG))
    assert np.argmax(np.hypot(*spectrum[0].T)) == 10


def test_synthesis_of_an_analyzed_frame_is_the_frame_times_the_squared_window():
    frames = noise(3, 512)
    restored = synthesize_frames(analyze_frames(frames, CONFIG), CONFIG)
    np.testing.assert_allclose(restored, frames * window(CONFIG) ** 2, atol=1e-6)


def test_stft_and_inverse_work_where_the_length_is_known_only_at_run_time():
    samples = noise(2, 1000)

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.float32)])
    def round_trip(signal):
        return inverse_stft(stft(signal, CONFIG), CONFIG, tf.shape(signal)[1])

    assert snr_db(samples, round_trip(samples)) >= 100
    assert snr_db(samples[:, :300], round_trip(samples[:, :300])) >= 100
