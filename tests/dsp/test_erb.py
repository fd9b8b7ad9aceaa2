# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import band_centers, erb_matrix, erb_width_hz

CONFIG = StftConfig()


@pytest.mark.parametrize(
    ("frequency_hz", "width_hz"),
    # 24.7 (4.37 F + 1) by hand, F in kHz
    [(0.0, 24.7), (100.0, 35.4939), (1000.0, 132.639), (4000.0, 456.456), (8000.0, 888.212)],
)
def test_erb_width_is_that_of_glasberg_and_moore(frequency_hz, width_hz):
    assert erb_width_hz(frequency_hz) == pytest.approx(width_hz, rel=1e-9)


def test_erb_width_takes_arrays():
    np.testing.assert_allclose(erb_width_hz([0, 1000]), [24.7, 132.639])


@pytest.mark.parametrize("num_bands", [2, 20, 64, 128, 256, 257])
def test_every_row_of_the_matrix_sums_to_one_and_no_entry_is_negative(num_bands):
    matrix = erb_matrix(CONFIG, num_bands)
    assert matrix.shape == (257, num_bands)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-6)
    assert matrix.min() >= 0.0


@pytest.mark.parametrize("num_bands", [20, 128, 257])
def test_every_band_reaches_at_least_one_bin(num_bands):
    assert erb_matrix(CONFIG, num_bands).max(axis=0).min() > 0.0


@pytest.mark.parametrize("num_bands", [64, 128])
def test_a_bin_takes_its_gain_from_two_neighboring_bands_at_most(num_bands):
    for row in erb_matrix(CONFIG, num_bands):
        used = np.flatnonzero(row)
        assert len(used) <= 2
        assert np.ptp(used) <= 1


def test_matrix_with_as_many_bands_as_bins_is_the_identity():
    np.testing.assert_allclose(erb_matrix(CONFIG, 257), np.eye(257), atol=1e-5)


def test_centers_reach_from_zero_to_the_last_bin():
    centers = band_centers(CONFIG, 128)
    assert centers[0] == 0.0
    assert centers[-1] == pytest.approx(256.0)
    assert np.all(np.diff(centers) > 0)


def test_centers_are_one_bin_apart_at_low_and_a_constant_share_of_the_erb_at_high_frequency():
    centers = band_centers(CONFIG, 64)
    steps_hz = np.diff(centers) * 31.25  # 16000 / 512
    middle_hz = 0.5 * (centers[1:] + centers[:-1]) * 31.25
    width_hz = 24.7 * (4.37e-3 * middle_hz + 1)
    assert steps_hz[0] == pytest.approx(31.25, rel=1e-3)
    share = steps_hz[-30:] / width_hz[-30:]
    np.testing.assert_allclose(share, share[0], rtol=1e-2)


@pytest.mark.parametrize("num_bands", [-1, 0, 1, 258])
def test_too_few_or_too_many_bands_are_refused(num_bands):
    message = f"`num_bands` must lie between 2 .*num_bands={num_bands}, num_bins=257. Use at most"
    with pytest.raises(ValueError, match=message):
        erb_matrix(CONFIG, num_bands)
