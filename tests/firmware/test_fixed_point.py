# SPDX-License-Identifier: Apache-2.0
from fractions import Fraction

import numpy as np
import pytest

from lmkd_tf.firmware import fixed_point


def exact_half_away(value):
    """Nearest integer of a fraction, a half away from zero."""
    sign = -1 if value < 0 else 1
    return sign * int(abs(value) + Fraction(1, 2))


@pytest.mark.parametrize("factor", [0.5, 0.3, 0.9999999999, 1.7, 1e-6])
def test_multiplier_and_shift_give_the_factor(factor):
    mantissa, shift = fixed_point.quantize_multiplier(factor)
    assert 2**30 <= mantissa < 2**31
    assert mantissa * 2.0 ** (shift - 31) == pytest.approx(factor, rel=2**-31)


def test_factor_that_is_too_small_is_zero():
    assert fixed_point.quantize_multiplier(2.0**-40) == (0, 0)


def test_rounding_divide_rounds_halves_away_from_zero():
    values = [(v, e) for v in range(-40, 41) for e in range(4)]
    found = [fixed_point.rounding_divide(v, e) for v, e in values]
    assert found == [exact_half_away(Fraction(v, 2**e)) for v, e in values]


def test_rounding_high_multiply_rounds_halves_up():
    # 2^30 * 2^k / 2^31 = 2^(k - 1): halves at odd multiples.
    assert fixed_point.rounding_high_multiply(2**30, 3) == 2
    assert fixed_point.rounding_high_multiply(2**30, -3) == -1
    assert fixed_point.rounding_high_multiply(-(2**31), -(2**31)) == 2**31 - 1


@pytest.mark.parametrize("scale", [0.004, 0.05, 0.3])
def test_logistic_table_is_within_a_step_of_the_real_function(scale):
    codes = np.arange(256).astype(np.uint8).view(np.int8).astype(float)
    real = 1.0 / (1.0 + np.exp(-scale * (codes - 3))) * 256.0 - 128.0
    table = fixed_point.activation_table("LOGISTIC", scale, 3)
    assert np.abs(table - np.clip(real, -128, 127)).max() <= 1.0


@pytest.mark.parametrize("scale", [0.004, 0.05, 0.3])
def test_tanh_table_is_within_a_step_of_the_real_function(scale):
    codes = np.arange(256).astype(np.uint8).view(np.int8).astype(float)
    real = np.tanh(scale * (codes + 20)) * 128.0
    table = fixed_point.activation_table("TANH", scale, -20)
    assert np.abs(table - np.clip(real, -128, 127)).max() <= 1.0


def test_activation_range_of_relu6_in_codes():
    # 6 / 0.05 = 120 steps above the code of zero, which is -7.
    assert fixed_point.activation_range("RELU6", 0.05, -7) == (-7, 113)
    assert fixed_point.activation_range("NONE", 0.05, -7) == (-128, 127)


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"must be one of NONE.*Received TANH"):
        fixed_point.activation_range("TANH", 0.1, 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_affine_addition_gives_every_code_of_the_long_form(sign):
    quantities = (0.07, 12), (0.02, -4), (0.09, -30)
    found = fixed_point.affine_addition(*quantities, sign)
    assert found is not None
    slope_1, slope_2, offset = found
    wanted = fixed_point.added_codes(*quantities, sign)
    for a in range(-128, 128, 5):
        for b in range(-128, 128, 3):
            total = offset + ((slope_1 * a) >> 8) + ((slope_2 * b) >> 8)
            assert min(max(total >> 20, -128), 127) == wanted[a + 128, b + 128]


def test_affine_addition_is_refused_where_a_slope_does_not_fit():
    assert fixed_point.affine_addition((1.0, 0), (1.0, 0), (0.01, 0), 1) is None
