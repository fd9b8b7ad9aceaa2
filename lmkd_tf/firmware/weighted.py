# SPDX-License-Identifier: Apache-2.0
"""Operators that move a window over their input: convolutions, dense layers, pooling."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from lmkd_tf.firmware.fixed_point import quantize_multiplier
from lmkd_tf.firmware.graph import GraphOperator, GraphTensor
from lmkd_tf.firmware.kernel_call import BYTES_PER_WORD, Kernel, Place, at, round_up, structure

ROWS_PER_BLOCK = 4  # outputs of a dense kernel computed together


def block_weights(weights: np.ndarray) -> np.ndarray:
    """Orders a weight matrix as the dense kernel reads it.

    Blocks of four rows; in a block, one word (four inputs) of each row after the other,
    so that one load of four words gives four outputs the same four inputs. Rows and
    inputs are filled up with zeros.

    Args:
        weights: int8 array of shape `(outputs, inputs)`.

    Returns:
        int8 array of shape `(blocks, words, 4, 4)`.

    Example:
        >>> block_weights(np.array([[1, 2, 3, 4, 5]], np.int8))[0, :, 0].tolist()
        [[1, 2, 3, 4], [5, 0, 0, 0]]
    """
    rows, inputs = weights.shape
    padded = np.zeros((round_up(rows, ROWS_PER_BLOCK), round_up(inputs, BYTES_PER_WORD)), np.int8)
    padded[:rows, :inputs] = weights
    blocks = padded.reshape(-1, ROWS_PER_BLOCK, padded.shape[1] // BYTES_PER_WORD, BYTES_PER_WORD)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


def scratch_bytes(operator: GraphOperator, tensors: Sequence[GraphTensor]) -> int:
    """Returns the bytes of scratch that an operator needs.

    Args:
        operator: Any operator; one without weights needs none.
        tensors: All tensors of the graph, by index.
    """
    if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights = tensors[operator.inputs[1]].shape
    if operator.name == "DEPTHWISE_CONV_2D":
        return weights[1] * weights[2] * tensors[operator.inputs[0]].shape[3]
    # The patch, then its bytes as pairs of 16 bits for cores with DSP instructions.
    return 3 * round_up(prod(weights[1:]), BYTES_PER_WORD)


def _channel_factors(place: Place, num_outputs: int) -> list[tuple[int, int]]:
    """Mantissa and shift of each output channel."""
    source, weights, output = place.source(0), place.source(1), place.outputs[0]
    scales = weights.scales
    has_bias = len(place.inputs) > 2 and place.inputs[2] is not None
    if len(scales) == 1 and place.operator.name == "FULLY_CONNECTED" and not has_bias:
        # TFLM multiplies the two scales in float where there is no bias.
        product = float(np.float32(source.scale) * np.float32(scales[0]))
        return [quantize_multiplier(product / output.scale)] * num_outputs
    if len(scales) == 1:
        scales = scales * num_outputs
    return [quantize_multiplier(source.scale * scale / output.scale) for scale in scales]


def _channel_constants(place: Place, weights: np.ndarray) -> list[np.ndarray]:
    """Folded bias, mantissas and shifts of each row of `weights` `(outputs, inputs)`."""
    num_outputs = len(weights)
    if weights.dtype != np.int8 or place.source(1).zero_point != 0:
        raise ValueError(
            "Weights of a firmware model must be int8 with a zero point of 0. "
            f"Received {weights.dtype}, zero point {place.source(1).zero_point} at "
            f"{place.operator.name} {place.operator.position}. Export the student again."
        )
    wide = weights.astype(np.int64)
    bias = np.zeros(num_outputs, np.int64)
    if len(place.inputs) > 2 and place.inputs[2] is not None:
        bias = place.source(2).values.astype(np.int64).ravel()
    folded = bias - place.source(0).zero_point * wide.sum(axis=1)
    factors = _channel_factors(place, num_outputs)
    mantissas = np.array([mantissa for mantissa, _ in factors], np.int64)
    shifts = np.array([shift for _, shift in factors], np.int64)
    largest = np.abs(folded) + 128 * np.abs(wide).sum(axis=1)
    if np.any(largest << (np.maximum(shifts, 0) + 1) >= 2**31):
        raise ValueError(
            "A sum of products must fit in 31 bits. "
            f"Received up to {largest.max()} at {place.operator.name} "
            f"{place.operator.position}. Use fewer inputs or train with weight decay."
        )
    num_padded = round_up(num_outputs, ROWS_PER_BLOCK)
    columns = []
    for values, dtype in (
        (folded, np.int32),
        (mantissas, np.int32),
        (np.maximum(shifts, 0), np.int8),
        (np.maximum(-shifts, 0), np.int8),
    ):
        column = np.zeros(num_padded, dtype)
        column[:num_outputs] = values
        columns.append(column)
    return columns


def weighted_fields(place: Place, weights: np.ndarray) -> list[tuple[str, Any]]:
    """Returns the fields of `struct lmkd_nn_dense` for weights `(outputs, inputs)`."""
    low, high = place.activation
    constants = _channel_constants(place, weights)
    start = place.image.add(*constants, block_weights(weights))
    return [
        ("constants", f"{start}u"),
        ("num_inputs", weights.shape[1]),
        ("num_outputs", weights.shape[0]),
        ("output_zero_point", place.outputs[0].zero_point),
        ("lowest", low),
        ("highest", high),
        ("is_plain", _is_plain(constants, weights.shape[0], (low, high))),
    ]


def _is_plain(
    constants: Sequence[np.ndarray], num_outputs: int, code_range: tuple[int, int]
) -> int:
    """Whether the kernel may take its short way: factors below 1/2, every code allowed."""
    left, right = (column[:num_outputs] for column in constants[2:])
    return int(not left.any() and right.all() and code_range == (-128, 127))


def lower_fully_connected(place: Place) -> Kernel:
    """Lowers a dense layer, one call per row of its input."""
    source, output = place.source(0), place.outputs[0]
    weights = place.source(1).values.reshape(place.source(1).shape[0], -1)
    declaration = structure("lmkd_nn_dense", place.name, weighted_fields(place, weights))
    pointers = place.pointer(source), place.pointer(output)
    return declaration, [
        f"lmkd_nn_dense(&{place.name}, image, {at(pointers[0], row * weights.shape[1])}, "
        f"{at(pointers[1], row * len(weights))}, {place.scratch});"
        for row in range(source.size // weights.shape[1])
    ]


def _window_fields(place: Place, kernel: Sequence[int]) -> list[tuple[str, Any]]:
    """Fields of `struct lmkd_nn_window`: how a kernel `(height, width)` moves over its input."""
    options = place.operator.options
    _, height, width, channels = place.source(0).shape
    _, output_height, output_width, _ = place.outputs[0].shape
    dilation = getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1)
    stride = options.strideH, options.strideW
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    needed = [
        (out - 1) * s + r - size
        for out, s, r, size in zip(
            (output_height, output_width), stride, reach, (height, width), strict=True
        )
    ]
    is_same = options.padding == 0
    padding = [max(n, 0) // 2 if is_same else 0 for n in needed]
    return [
        (".".join(("window", key)), value)
        for key, value in (
            ("height", height),
            ("width", width),
            ("channels", channels),
            ("output_height", output_height),
            ("output_width", output_width),
            ("kernel_height", kernel[0]),
            ("kernel_width", kernel[1]),
            ("stride_height", stride[0]),
            ("stride_width", stride[1]),
            ("dilation_height", dilation[0]),
            ("dilation_width", dilation[1]),
            ("padding_height", padding[0]),
            ("padding_width", padding[1]),
            ("padding_value", place.source(0).zero_point),
        )
    ]


def _check_batch(place: Place) -> None:
    source, weights = place.source(0), place.source(1)
    is_grouped = place.operator.name == "CONV_2D" and weights.shape[3] != source.shape[3]
    if source.shape[0] != 1 or is_grouped:
        raise ValueError(
            "A convolution of a firmware model must have a batch of one and no groups. "
            f"Received an input {source.shape} and a kernel {weights.shape} at "
            f"{place.operator.name} {place.operator.position}. Split it into separate layers."
        )


def lower_convolution(place: Place) -> Kernel:
    """Lowers a convolution."""
    _check_batch(place)
    weights = place.source(1).values
    fields = weighted_fields(place, weights.reshape(len(weights), -1))
    named = [(f"dense.{key}", value) for key, value in fields]
    named += _window_fields(place, weights.shape[1:3])
    declaration = structure("lmkd_nn_convolution", place.name, named)
    return declaration, [_windowed_call("lmkd_nn_convolution", place)]


def lower_depthwise(place: Place) -> Kernel:
    """Lowers a depthwise convolution."""
    _check_batch(place)
    weights = place.source(1).values
    taps = weights.reshape(-1, weights.shape[3])  # (taps, outputs)
    low, high = place.activation
    constants = _channel_constants(place, taps.T)
    start = place.image.add(*constants, np.ascontiguousarray(taps))
    fields = [
        ("constants", f"{start}u"),
        ("num_taps", len(taps)),
        ("num_outputs", taps.shape[1]),
        ("outputs_per_input", taps.shape[1] // place.source(0).shape[3]),
        ("output_zero_point", place.outputs[0].zero_point),
        ("lowest", low),
        ("highest", high),
        ("is_plain", _is_plain(constants, taps.shape[1], (low, high))),
        *_window_fields(place, weights.shape[1:3]),
    ]
    declaration = structure("lmkd_nn_depthwise", place.name, fields)
    return declaration, [_windowed_call("lmkd_nn_depthwise", place)]


def _windowed_call(function: str, place: Place) -> str:
    pointers = f"{place.pointer(place.source(0))}, {place.pointer(place.outputs[0])}"
    return f"{function}(&{place.name}, image, {pointers}, {place.scratch});"


def lower_pool(place: Place) -> Kernel:
    """Lowers pooling."""
    low, high = place.activation
    options = place.operator.options
    window = _window_fields(place, (options.filterHeight, options.filterWidth))
    fields = [("lowest", low), ("highest", high), *window]
    function = {"MAX_POOL_2D": "lmkd_nn_max_pool", "AVERAGE_POOL_2D": "lmkd_nn_average_pool"}
    pointers = f"{place.pointer(place.source(0))}, {place.pointer(place.outputs[0])}"
    call = f"{function[place.operator.name]}(&{place.name}, {pointers});"
    return structure("lmkd_nn_pool", place.name, fields), [call]
