# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import analysis_matrix, band_features

MATRIX = erb_matrix(StftConfig(), 40)


def spectrum_of(seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=(2, 3, 257, 2))).astype(np.float32)


def test_features_equal_the_formula_bin_by_bin_in_double_precision():
    spectrum = spectrum_of(scale=0.1)
    expected = np.zeros((2, 3, 40))
    for band in range(40):
        weights = MATRIX[:, band].astype(np.float64)
        energy = np.zeros((2, 3))
        for f in np.flatnonzero(weights):
            energy += weights[f] * np.abs(spectrum[:, :, f, 0] + 1j * spectrum[:, :, f, 1]) ** 2
        expected[..., band] = (10 * np.log10(energy / weights.sum() + 1e-6) + 10) / 50
    np.testing.assert_allclose(band_features(spectrum, MATRIX), expected, atol=1e-5)


def test_columns_of_the_analysis_matrix_sum_to_one():
    np.testing.assert_allclose(analysis_matrix(MATRIX).sum(axis=0), 1.0, atol=1e-6)


def test_silence_has_the_feature_minus_one():
    # energy 0, floor -60 dB: (-60 + 10) / 50
    np.testing.assert_allclose(band_features(np.zeros((1, 1, 257, 2), "f"), MATRIX), -1.0, 1e-5)


@pytest.mark.parametrize(("energy_db", "feature"), [(40.0, 1.0), (-10.0, 0.0), (15.0, 0.5)])
def test_flat_spectrum_has_the_feature_of_its_level(energy_db, feature):
    spectrum = np.zeros((1, 1, 257, 2), np.float32)
    spectrum[..., 1] = 10 ** (energy_db / 20)
    np.testing.assert_allclose(band_features(spectrum, MATRIX), feature, atol=2e-5)


def test_features_do_not_depend_on_phase():
    spectrum = spectrum_of()
    turned = np.stack([-spectrum[..., 1], spectrum[..., 0]], axis=-1)
    np.testing.assert_allclose(band_features(turned, MATRIX), band_features(spectrum, MATRIX))
