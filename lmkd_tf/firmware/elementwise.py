# SPDX-License-Identifier: Apache-2.0
"""Operators on single elements, or on pairs of them with broadcasting."""

from typing import Any

from lmkd_tf.firmware.fixed_point import (
    activation_table,
    affine_addition,
    quantize_multiplier,
    requantize_table,
)
from lmkd_tf.firmware.kernel_call import Kernel, Place, axis_fields, merged_axes, structure
from lmkd_tf.firmware.memory_plan import row_major_strides

_ADD_LEFT_SHIFT = 20  # bits by which TFLM raises the operands of an addition


def _broadcast_fields(place: Place) -> list[tuple[str, Any]]:
    """Fields of `struct lmkd_nn_pairs`: the axes of the output, neighbors merged."""
    output = place.outputs[0].shape or (1,)
    operands = []
    for position in (0, 1):
        shape = place.source(position).shape
        padded = (1,) * (len(output) - len(shape)) + shape
        strides = row_major_strides(padded)
        operands.append([0 if n == 1 else s for n, s in zip(padded, strides, strict=True)])
    axes = merged_axes(place, zip(output, *operands, strict=True))
    return axis_fields(("pairs.counts", "pairs.first_strides", "pairs.second_strides"), axes)


def lower_add(place: Place) -> Kernel:
    """Lowers an addition or a subtraction."""
    first, second, output = place.source(0), place.source(1), place.outputs[0]
    twice_largest = 2.0 * max(first.scale, second.scale)
    low, high = place.activation
    fields = [("sign", -1 if place.operator.name == "SUB" else 1)]
    for name, factor in (
        ("first", first.scale / twice_largest),
        ("second", second.scale / twice_largest),
        ("output", twice_largest / (2**_ADD_LEFT_SHIFT * output.scale)),
    ):
        mantissa, shift = quantize_multiplier(factor)
        if shift > 0:
            raise ValueError(
                "The result of an addition must have a step that its operands allow. "
                f"Received a factor of {factor} at {place.operator.name} "
                f"{place.operator.position}. Train the student longer with quantization."
            )
        fields += [(f"{name}_multiplier", mantissa), (f"{name}_shift", -shift)]
    fields += [
        ("first_zero_point", first.zero_point),
        ("second_zero_point", second.zero_point),
        ("output_zero_point", output.zero_point),
        ("lowest", low),
        ("highest", high),
        *_affine_fields(place),
        *_broadcast_fields(place),
    ]
    return structure("lmkd_nn_add", place.name, fields), [_pair_call("lmkd_nn_add", place)]


def _affine_fields(place: Place) -> list[tuple[str, Any]]:
    """A short form of the addition, where it gives the same code for every pair of codes."""
    first, second, output = place.source(0), place.source(1), place.outputs[0]
    sign = -1 if place.operator.name == "SUB" else 1
    short = None
    if place.activation == (-128, 127):
        quantities = [(tensor.scale, tensor.zero_point) for tensor in (first, second, output)]
        short = affine_addition(quantities[0], quantities[1], quantities[2], sign)
    slope_1, slope_2, offset = short or (0, 0, 0)
    return [
        ("is_affine", int(short is not None)),
        ("first_slope", slope_1),
        ("second_slope", slope_2),
        ("affine_offset", offset),
    ]


def lower_multiply(place: Place) -> Kernel:
    """Lowers a multiplication."""
    first, second, output = place.source(0), place.source(1), place.outputs[0]
    mantissa, shift = quantize_multiplier(first.scale * second.scale / output.scale)
    if shift > 14:  # 255 * 255 << 14 fits in 31 bits
        raise ValueError(
            "The result of a multiplication must have a step that its operands allow. "
            f"Received a factor of 2^{shift} at MUL {place.operator.position}. "
            "Train the student longer with quantization."
        )
    low, high = place.activation
    fields = [
        ("multiplier", mantissa),
        ("left_shift", max(shift, 0)),
        ("right_shift", max(-shift, 0)),
        ("first_zero_point", first.zero_point),
        ("second_zero_point", second.zero_point),
        ("output_zero_point", output.zero_point),
        ("lowest", low),
        ("highest", high),
        *_broadcast_fields(place),
    ]
    return structure("lmkd_nn_multiply", place.name, fields), [
        _pair_call("lmkd_nn_multiply", place)
    ]


def _pair_call(function: str, place: Place) -> str:
    operands = [place.pointer(place.source(0)), place.pointer(place.source(1))]
    return f"{function}(&{place.name}, {', '.join(operands)}, {place.pointer(place.outputs[0])});"


def lower_table(place: Place) -> Kernel:
    """Lowers a function of single codes to a table of 256."""
    source, output = place.source(0), place.outputs[0]
    if place.operator.name in ("LOGISTIC", "TANH"):
        table = activation_table(place.operator.name, source.scale, source.zero_point)
    else:
        low = output.zero_point if place.operator.name == "RELU" else -128
        table = requantize_table(
            (source.scale, source.zero_point), (output.scale, output.zero_point), (low, 127)
        )
    start = place.image.add(table)
    call = (
        f"lmkd_nn_lookup(image + {start}, {place.pointer(source)}, "
        f"{place.pointer(output)}, {source.size});"
    )
    return "", [call]
