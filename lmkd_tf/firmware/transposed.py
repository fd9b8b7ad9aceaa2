# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution out of kernels there are: zeros between the inputs, then a convolution."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from lmkd_tf.firmware.graph import GraphOperator, GraphTensor
from lmkd_tf.firmware.kernel_call import (
    BYTES_PER_WORD,
    Kernel,
    Place,
    axis_fields,
    merged_axes,
    round_up,
    structure,
)
from lmkd_tf.firmware.memory_plan import row_major_strides
from lmkd_tf.firmware.weighted import weighted_fields


def spread_shape(
    operator: GraphOperator, tensors: Sequence[GraphTensor] | Mapping[int, GraphTensor]
) -> tuple[int, int, int]:
    """Returns height, width and channels of the input with zeros between its elements.

    Args:
        operator: A TRANSPOSE_CONV: output shape, weights, input and maybe a bias.
        tensors: All tensors of the graph, by index.
    """
    _, height, width, channels = tensors[operator.inputs[2]].shape
    options = operator.options
    return (height - 1) * options.strideH + 1, (width - 1) * options.strideW + 1, channels


def spread_bytes(
    operator: GraphOperator, tensors: Sequence[GraphTensor] | Mapping[int, GraphTensor]
) -> int:
    """Returns the bytes of scratch: the spread input, and what its convolution needs.

    Args:
        operator: A TRANSPOSE_CONV.
        tensors: All tensors of the graph, by index.
    """
    patch = prod(tensors[operator.inputs[1]].shape[1:])
    spread = round_up(prod(spread_shape(operator, tensors)), BYTES_PER_WORD)
    return spread + 3 * round_up(patch, BYTES_PER_WORD)


def lower_transposed(place: Place) -> Kernel:
    """Lowers a transposed convolution.

    Element k of the spread input is element k / stride of the input, or zero; the output is its
    convolution with the kernel turned around. Sums are those of TFLM in another order, so exact.

    Args:
        place: The operator.

    Returns:
        Structures and statements.

    Raises:
        ValueError: If the batch is not one.
    """
    operator = place.operator
    weights, source, output = place.source(1), place.source(2), place.outputs[0]
    if source.shape[0] != 1:
        raise ValueError(
            "A transposed convolution of a firmware model must have a batch of one. "
            f"Received an input {source.shape} at operator {operator.position}. "
            "Export the step graph."
        )
    kernel = np.ascontiguousarray(weights.values[:, ::-1, ::-1])
    tensors = {
        -1: None,
        0: source,
        1: replace(weights, data=kernel),
        2: place.source(3) if len(place.inputs) > 3 and place.inputs[3] else None,
        3: output,
    }
    inner = Place(
        replace(operator, name="CONV_2D", inputs=(0, 1, 2), outputs=(3,)),
        tensors,  # by index, as a sequence would be
        place.slices,
        place.image,
        place.address,
        place.scratch,
    )
    fields = [
        (f"dense.{key}", value)
        for key, value in weighted_fields(inner, kernel.reshape(len(kernel), -1))
    ]
    fields += _window_fields(place, kernel.shape[1:3])
    spread = place.scratch
    num_spread = prod(spread_shape(operator, _by_index(place)))
    scratch = f"{spread} + {round_up(num_spread, BYTES_PER_WORD)}"
    copy = _spread_structure(place)
    return copy + structure("lmkd_nn_convolution", place.name, fields), [
        f"lmkd_nn_fill({spread}, {source.zero_point}, {num_spread});",
        f"lmkd_nn_copy(&{place.name}_spread, {place.pointer(source)}, {spread});",
        f"lmkd_nn_convolution(&{place.name}, image, {spread}, {place.pointer(output)}, {scratch});",
    ]


def _by_index(place: Place) -> dict[int, GraphTensor]:
    return {t.index: t for t in (*place.inputs, *place.outputs) if t is not None}


def _spread_structure(place: Place) -> str:
    """Copy of the input to its places among the zeros."""
    _, height, width, channels = place.source(2).shape
    options = place.operator.options
    _, spread_width, _ = spread_shape(place.operator, _by_index(place))
    targets = (options.strideH * spread_width * channels, options.strideW * channels, 1)
    sources = row_major_strides((height, width, channels))
    axes = merged_axes(place, zip((height, width, channels), sources, targets, strict=True))
    fields = axis_fields(("counts", "source_strides", "target_strides"), axes)
    return structure("lmkd_nn_copy", f"{place.name}_spread", fields)


def _window_fields(place: Place, kernel: Sequence[int]) -> list[tuple[str, int]]:
    """How the turned kernel `(height, width)` moves over the spread input."""
    options, output = place.operator.options, place.outputs[0].shape
    height, width, channels = spread_shape(place.operator, _by_index(place))
    is_same = options.padding == 0
    padding = []
    for taps, stride, size in zip(
        kernel, (options.strideH, options.strideW), output[1:3], strict=True
    ):
        steps = -(-size // stride) if is_same else -(-(size - taps + 1) // stride)
        before = max((steps - 1) * stride + taps - size, 0) // 2
        padding.append(taps - 1 - before)
    return [
        (f"window.{key}", value)
        for key, value in (
            ("height", height),
            ("width", width),
            ("channels", channels),
            ("output_height", output[1]),
            ("output_width", output[2]),
            ("kernel_height", kernel[0]),
            ("kernel_width", kernel[1]),
            ("stride_height", 1),
            ("stride_width", 1),
            ("dilation_height", 1),
            ("dilation_width", 1),
            ("padding_height", padding[0]),
            ("padding_width", padding[1]),
            ("padding_value", place.source(2).zero_point),
        )
    ]
