# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.dsp.pcm import float_to_int16, int16_to_float


def test_float_to_int16_clips_what_is_beyond_full_scale_and_never_wraps():
    samples = np.array([-9.0, -1.0, -0.99999, 0.99999, 1.0, 1.0001, 9.0], dtype=np.float32)
    expected = [-32768, -32768, -32768, 32767, 32767, 32767, 32767]
    assert float_to_int16(samples).tolist() == expected


@pytest.mark.parametrize(("value", "expected"), [(0.5, 16384), (1.4 / 32768, 1), (1.6 / 32768, 2)])
def test_float_to_int16_rounds_to_the_nearest_step(value, expected):
    assert float_to_int16(np.array([value])).tolist() == [expected]


def test_every_int16_value_survives_the_way_to_float_and_back():
    every = np.arange(-32768, 32768).astype(np.int16)
    assert np.array_equal(float_to_int16(int16_to_float(every)), every)


def test_int16_to_float_is_exact_and_float32():
    samples = int16_to_float(np.array([-32768, -1, 8192], dtype=np.int16))
    assert samples.dtype == np.float32
    assert samples.tolist() == [-1.0, -(2.0**-15), 0.25]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_float_to_int16_refuses_samples_that_are_not_finite(value):
    with pytest.raises(ValueError, match=r"must be finite. Received 1 NaN or infinite"):
        float_to_int16(np.array([0.0, value]))


def test_float_to_int16_refuses_integers():
    with pytest.raises(TypeError, match="must be float"):
        float_to_int16(np.array([1, 2]))


def test_int16_to_float_refuses_other_types():
    with pytest.raises(TypeError, match="must be int16"):
        int16_to_float(np.array([0.5]))
