# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import tensorflow as tf

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.mask import apply_band_mask, compress

CONFIG = StftConfig(window_length=64, hop_length=32, fft_length=64)
MATRIX = erb_matrix(CONFIG, 12)


def spectrum_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, 2)).astype(np.float32)


def test_band_mask_multiplies_every_bin_by_its_interpolated_gain():
    spectrum = spectrum_of(2, 3, 33)
    mask = np.random.default_rng(1).uniform(size=(2, 3, 12)).astype(np.float32)
    expected = np.zeros_like(spectrum)
    for f in range(33):
        for band in range(12):
            gain = mask[:, :, band] * MATRIX[f, band]
            expected[:, :, f] += spectrum[:, :, f] * gain[..., None]
    np.testing.assert_allclose(apply_band_mask(spectrum, mask, MATRIX), expected, atol=1e-6)


def test_mask_of_ones_changes_nothing():
    spectrum = spectrum_of(1, 2, 33)
    masked = apply_band_mask(spectrum, np.ones((1, 2, 12), np.float32), MATRIX)
    np.testing.assert_allclose(masked, spectrum, rtol=1e-6)


def test_closed_band_silences_the_bin_at_its_center_only_within_its_neighbors():
    mask = np.ones((1, 1, 12), np.float32)
    mask[..., 0] = 0.0
    masked = np.asarray(apply_band_mask(np.ones((1, 1, 33, 2), np.float32), mask, MATRIX))
    assert np.all(masked[0, 0, 0] == 0.0)
    np.testing.assert_allclose(masked[0, 0, 20:], 1.0, rtol=1e-6)


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
def test_compress_raises_the_magnitude_and_keeps_the_phase(exponent):
    spectrum = spectrum_of(2, 3, 33)
    as_complex = spectrum[..., 0] + 1j * spectrum[..., 1]
    expected = np.abs(as_complex) ** exponent
    magnitude, compressed = (np.asarray(value) for value in compress(spectrum, exponent))
    np.testing.assert_allclose(magnitude, expected, rtol=1e-4)
    angle = np.arctan2(compressed[..., 1], compressed[..., 0])
    np.testing.assert_allclose(angle, np.angle(as_complex), atol=1e-5)
    np.testing.assert_allclose(np.hypot(*np.moveaxis(compressed, -1, 0)), expected, rtol=1e-3)


def test_compress_of_a_three_four_five_triangle_at_one_half():
    magnitude, compressed = compress(np.array([[3.0, 4.0]], np.float32), 0.5)
    np.testing.assert_allclose(magnitude, [5.0**0.5], rtol=1e-6)
    np.testing.assert_allclose(compressed, [[0.6 * 5.0**0.5, 0.8 * 5.0**0.5]], rtol=1e-6)


def test_compress_has_a_finite_gradient_in_silence():
    silence = tf.zeros((1, 33, 2))
    with tf.GradientTape() as tape:
        tape.watch(silence)
        magnitude, compressed = compress(silence, 0.3)
        total = tf.reduce_sum(magnitude) + tf.reduce_sum(compressed)
    assert np.all(np.isfinite(np.asarray(tape.gradient(total, silence))))
