# SPDX-License-Identifier: Apache-2.0
"""The integer arithmetic of TFLM's reference kernels, as the generator has to repeat it.

A real factor is a 31-bit mantissa and a power of two. A product with the mantissa is
rounded to 32 bits, then the division by the power of two is rounded once more, half
away from zero; both roundings are part of the result.
"""

import math

import numpy as np

_INT32_MAX = 2**31 - 1
_INT32_MIN = -(2**31)
# Bits by which TFLM raises the operands of an addition, and of a slope of `affine_addition`.
_ADD_LEFT_SHIFT = 20
_SLOPE_BITS = 28
# Integer bits of the input of sigmoid and tanh in TFLM.
_TABLE_INTEGER_BITS = 4
# exp(-2^e) for e = -2 .. 4 as a fraction of 2^31, and what exp on [-1/4, 0) is expanded around.
_EXP_FACTORS = (
    (-2, round(math.exp(-0.25) * 2**31)),
    (-1, round(math.exp(-0.5) * 2**31)),
    (0, round(math.exp(-1.0) * 2**31)),
    (1, round(math.exp(-2.0) * 2**31)),
    (2, round(math.exp(-4.0) * 2**31)),
    (3, round(math.exp(-8.0) * 2**31)),
    (4, round(math.exp(-16.0) * 2**31)),
)
_EXP_MINUS_EIGHTH = round(math.exp(-0.125) * 2**31)
_ONE_THIRD = round(2**31 / 3)
# Start and slope of the Newton iteration for 1 / x, as a fraction of 2^29.
_FORTY_EIGHT_17 = round(48 / 17 * 2**29)
_MINUS_THIRTY_TWO_17 = -round(32 / 17 * 2**29)


def round_half_away(value: float) -> int:
    """Rounds to the nearest integer, a half away from zero.

    Example:
        >>> [round_half_away(v) for v in (0.5, -0.5, 1.4)]
        [1, -1, 1]
    """
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def quantize_multiplier(factor: float) -> tuple[int, int]:
    """Splits a factor into a 31-bit mantissa and a power of two.

    Args:
        factor: Real factor, at least 0.

    Returns:
        Mantissa in [2^30, 2^31) and shift: `factor = mantissa / 2^31 * 2^shift`; both 0
        where the factor is too small to matter.

    Example:
        >>> quantize_multiplier(0.75), quantize_multiplier(0.0)
        ((1610612736, 0), (0, 0))
    """
    if factor == 0.0:
        return 0, 0
    fraction, shift = math.frexp(factor)
    mantissa = round_half_away(fraction * 2**31)
    if mantissa == 2**31:
        mantissa, shift = mantissa // 2, shift + 1
    return (0, 0) if shift < -31 else (mantissa, shift)


def rounding_high_multiply(a: int, b: int) -> int:
    """Returns `a * b / 2^31`, rounded, for 32-bit integers."""
    return _INT32_MAX if a == b == _INT32_MIN else (a * b + 2**30) >> 31


def rounding_divide(value: int, exponent: int) -> int:
    """Returns `value / 2^exponent`, a half away from zero."""
    mask = (1 << exponent) - 1
    return (value >> exponent) + ((value & mask) > (mask >> 1) + (value < 0))


def requantize(value: int, mantissa: int, shift: int) -> int:
    """Multiplies by a factor of `quantize_multiplier`, with both roundings.

    Example:
        >>> requantize(100, *quantize_multiplier(0.25))
        25
    """
    shifted = value << max(shift, 0)
    return rounding_divide(rounding_high_multiply(shifted, mantissa), max(-shift, 0))


def activation_range(activation: str, scale: float, zero_point: int) -> tuple[int, int]:
    """Returns the lowest and highest code of an int8 output after its fused activation.

    Args:
        activation: `"NONE"`, `"RELU"`, `"RELU_N1_TO_1"` or `"RELU6"`.
        scale: Step of the output.
        zero_point: Code of zero of the output.

    Returns:
        Lowest and highest code.

    Raises:
        ValueError: If the activation is another one.
    """
    bounds = {
        "NONE": (None, None),
        "RELU": (0.0, None),
        "RELU_N1_TO_1": (-1.0, 1.0),
        "RELU6": (0.0, 6.0),
    }
    if activation not in bounds:
        raise ValueError(
            f"A fused activation must be one of {', '.join(bounds)}. "
            f"Received {activation}. Build the student with ReLU."
        )

    def code(real: float) -> int:
        return zero_point + round_half_away(float(np.float32(real) / np.float32(scale)))

    low, high = bounds[activation]
    lowest = -128 if low is None else max(-128, code(low))
    return lowest, 127 if high is None else min(127, code(high))


def requantize_table(
    input_quantization: tuple[float, int],
    output_quantization: tuple[float, int],
    code_range: tuple[int, int] = (-128, 127),
) -> np.ndarray:
    """Returns the output code of every input code of a change of scale.

    Args:
        input_quantization: Scale and zero point of the input.
        output_quantization: Scale and zero point of the output.
        code_range: Lowest and highest code of the output.

    Returns:
        int8 array of shape `(256,)`, indexed by the code taken as an unsigned byte.
    """
    mantissa, shift = quantize_multiplier(input_quantization[0] / output_quantization[0])
    codes = [
        requantize(code - input_quantization[1], mantissa, shift) + output_quantization[1]
        for code in _codes()
    ]
    return np.clip(codes, *code_range).astype(np.int8)


def activation_table(function: str, scale: float, zero_point: int) -> np.ndarray:
    """Returns the output code of every input code of an int8 sigmoid or tanh.

    Args:
        function: `"LOGISTIC"` or `"TANH"`.
        scale: Step of the input.
        zero_point: Code of zero of the input.

    Returns:
        int8 array of shape `(256,)`, indexed by the code taken as an unsigned byte.
    """
    mantissa, shift = quantize_multiplier(scale * 2 ** (31 - _TABLE_INTEGER_BITS))
    widest = (2**_TABLE_INTEGER_BITS - 1) * 2 ** (31 - _TABLE_INTEGER_BITS)
    radius = math.floor(widest / 2.0**shift)
    table = []
    for code in _codes():
        centered = code - zero_point
        if abs(centered) >= radius:
            table.append(127 if centered > 0 else -128)
            continue
        argument = requantize(centered, mantissa, shift)
        if function == "LOGISTIC":
            table.append(rounding_divide(_logistic(argument), 23) - 128)
        else:
            table.append(rounding_divide(_tanh(argument), 24))
    return np.clip(table, -128, 127).astype(np.int8)


def added_codes(
    first: tuple[float, int], second: tuple[float, int], output: tuple[float, int], sign: int
) -> np.ndarray:
    """Returns what TFLM gives for every pair of codes of an int8 addition or subtraction.

    Args:
        first: Scale and zero point of the first operand.
        second: Scale and zero point of the second operand.
        output: Scale and zero point of the result.
        sign: 1 to add, -1 to subtract the second operand.

    Returns:
        int64 array of shape `(256, 256)`, indexed by the codes plus 128.
    """
    codes = np.arange(-128, 128, dtype=np.int64)
    twice_largest = 2.0 * max(first[0], second[0])
    raised = [
        _scaled((codes - zero) << _ADD_LEFT_SHIFT, scale / twice_largest)
        for scale, zero in (first, second)
    ]
    total = raised[0][:, None] + sign * raised[1][None]
    result = _scaled(total, twice_largest / (2**_ADD_LEFT_SHIFT * output[0]))
    return np.clip(result + output[1], -128, 127)


def affine_addition(
    first: tuple[float, int], second: tuple[float, int], output: tuple[float, int], sign: int
) -> tuple[int, int, int] | None:
    """Looks for `(offset + (slope_1 * a >> 8) + (slope_2 * b >> 8)) >> 20` equal to TFLM.

    The three roundings of TFLM nearly always fall like the single one of this form. All
    65,536 pairs of codes are compared, so what is returned is exact.

    Args:
        first: Scale and zero point of the first operand.
        second: Scale and zero point of the second operand.
        output: Scale and zero point of the result.
        sign: 1 to add, -1 to subtract the second operand.

    Returns:
        Both slopes and the offset, or None where no offset fits.
    """
    slopes = [
        round_half_away(factor / output[0] * 2**_SLOPE_BITS)
        for factor in (first[0], sign * second[0])
    ]
    codes = np.arange(-128, 128, dtype=np.int64)
    terms = [(slope * codes) >> (_SLOPE_BITS - _ADD_LEFT_SHIFT) for slope in slopes]
    total = terms[0][:, None] + terms[1][None]
    wanted = added_codes(first, second, output, sign)
    # The offset that lifts each sum to its code, and the one that would lift it too far.
    reach = 2**40
    least = np.where(wanted > -128, (wanted << _ADD_LEFT_SHIFT) - total, -reach).max()
    most = np.where(wanted < 127, ((wanted + 1) << _ADD_LEFT_SHIFT) - 1 - total, reach).min()
    offset = int(least + most) // 2
    fits = max(map(abs, slopes)) < 2**31 and np.abs(total + offset).max() < 2**31
    if least > most or abs(offset) >= 2**31 or not fits:
        return None
    return slopes[0], slopes[1], offset


def _scaled(values: np.ndarray, factor: float) -> np.ndarray:
    """`requantize` of an int64 array by a factor of at most 1/2."""
    mantissa, shift = quantize_multiplier(factor)
    high = (values * mantissa + 2**30) >> 31
    if shift >= 0:
        return high
    return (high + (high >> 63) + (1 << (-shift - 1))) >> -shift


def _codes() -> list[int]:
    """Every int8 code in the order of its unsigned byte."""
    return [*range(128), *range(-128, 0)]


def _shift_saturating(value: int, exponent: int) -> int:
    if exponent <= 0:
        return rounding_divide(value, -exponent)
    return min(max(value << exponent, _INT32_MIN), _INT32_MAX)


def _half_sum(a: int, b: int) -> int:
    total = a + b
    return math.trunc((total + (1 if total >= 0 else -1)) / 2)


def _exp_on_minus_quarter_to_zero(argument: int) -> int:
    x = argument + 2**28
    x2 = rounding_high_multiply(x, x)
    x3 = rounding_high_multiply(x2, x)
    x4_over_4 = _shift_saturating(rounding_high_multiply(x2, x2), -2)
    cubic = rounding_high_multiply(x4_over_4 + x3, _ONE_THIRD)
    tail = _shift_saturating(cubic + x2, -1)
    return _EXP_MINUS_EIGHTH + rounding_high_multiply(_EXP_MINUS_EIGHTH, x + tail)


def _exp_on_negatives(argument: int, integer_bits: int) -> int:
    if argument == 0:
        return _INT32_MAX
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    reduced = (argument & (quarter - 1)) - quarter
    result = _exp_on_minus_quarter_to_zero(_shift_saturating(reduced, integer_bits))
    remainder = reduced - argument
    for exponent, factor in _EXP_FACTORS:
        if integer_bits > exponent and remainder & (1 << (fraction_bits + exponent)):
            result = rounding_high_multiply(result, factor)
    if integer_bits > 5 and argument < -(1 << (fraction_bits + 5)):
        return 0
    return result


def _reciprocal_of_one_plus(argument: int) -> int:
    """Newton iteration for `1 / (1 + x) `, x in [0, 1] as a fraction of 2^31; result / 2^29."""
    half_denominator = _half_sum(argument, _INT32_MAX)
    x = _FORTY_EIGHT_17 + rounding_high_multiply(half_denominator, _MINUS_THIRTY_TWO_17)
    for _ in range(3):
        product = rounding_high_multiply(half_denominator, x)
        x += _shift_saturating(rounding_high_multiply(x, 2**29 - product), 2)
    return x


def _logistic(argument: int) -> int:
    if argument == 0:
        return 2**30
    exponential = _exp_on_negatives(-abs(argument), _TABLE_INTEGER_BITS)
    positive = _shift_saturating(_reciprocal_of_one_plus(exponential), 1)
    return positive if argument > 0 else _INT32_MAX - positive


def _tanh(argument: int) -> int:
    if argument == 0:
        return 0
    exponential = _exp_on_negatives(-abs(argument), _TABLE_INTEGER_BITS + 1)
    reciprocal = _reciprocal_of_one_plus(exponential)
    positive = _shift_saturating(reciprocal - 2**29, 2)
    return positive if argument > 0 else -positive
