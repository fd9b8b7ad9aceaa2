# SPDX-License-Identifier: Apache-2.0
"""Turns the operators of an int8 graph into calls of the C kernels in `nn.h`.

Each operator becomes a constant structure with its sizes and factors, and a call. What
TFLM prepares at run time (factors, activation ranges, folded zero points, tables) is
prepared here in the same arithmetic, so the results are the same bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from lmkd_tf.firmware.fixed_point import (
    activation_range,
    activation_table,
    affine_addition,
    quantize_multiplier,
    requantize_table,
)
from lmkd_tf.firmware.graph import GraphOperator, GraphTensor, QuantizedGraph
from lmkd_tf.firmware.memory_plan import ALIASES, Slice, row_major_strides

ROWS_PER_BLOCK = 4  # outputs of a dense kernel computed together
BYTES_PER_WORD = 4
_ADD_LEFT_SHIFT = 20  # bits by which TFLM raises the operands of an addition
_MAX_AXES = 4
_ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}


@dataclass
class Image:
    """Constants of a model as one block of bytes."""

    content: bytearray = field(default_factory=bytearray)

    def add(self, *arrays: np.ndarray) -> int:
        """Appends arrays one after the other, aligned to a word; returns the first byte."""
        self.content += bytes(-len(self.content) % BYTES_PER_WORD)
        start = len(self.content)
        for array in arrays:
            self.content += array.tobytes()
        return start


@dataclass(frozen=True)
class Call:
    """One operator in C.

    Args:
        position: Place in the order of execution.
        comment: What the operator is, for the reader of the generated code.
        declaration: Constant structure, or empty.
        statements: C statements; `{input}`-style places are not used, the text is final.
    """

    position: int
    comment: str
    declaration: str
    statements: tuple[str, ...]


class Lowering:
    """Turns operators into calls; collects the constants on the way.

    Args:
        graph: Graph to lower.

    Raises:
        ValueError: If an operator, a type or a shape is one that the kernels lack.
    """

    def __init__(self, graph: QuantizedGraph):
        self.graph = graph
        self.image = Image()
        self.slices: dict[int, Slice] = {}
        self.scratch_bytes: dict[int, int] = {}
        for operator in graph.operators:
            _check_supported(self, operator)
            self._find_slices(operator)
            self._find_scratch(operator)

    def tensor(self, index: int) -> GraphTensor:
        """Returns a tensor by index."""
        return self.graph.tensors[index]

    def lower(self, operator: GraphOperator, address: Callable[[int], str], scratch: str) -> Call:
        """Returns the call of one operator.

        Args:
            operator: Operator of the graph.
            address: Function from a tensor's index to a C expression for its first byte.
            scratch: C expression for the operator's scratch.

        Returns:
            The call; it has no statements where the result lies in place already.
        """
        place = _Place(self, operator, address, scratch)
        declaration, statements = _KERNELS[operator.name](place)
        shapes = ", ".join(
            "x".join(map(str, self.tensor(i).shape)) for i in operator.inputs if i >= 0
        )
        result = "x".join(map(str, self.tensor(operator.outputs[0]).shape))
        comment = f"{operator.name} {shapes} -> {result}"
        return Call(operator.position, comment, declaration, tuple(statements))

    def _find_slices(self, operator: GraphOperator) -> None:
        if operator.name in ("STRIDED_SLICE", "SLICE"):
            read = _strided_slice if operator.name == "STRIDED_SLICE" else _plain_slice
            self.slices[operator.outputs[0]] = read(self, operator)
        elif operator.name in ("SPLIT", "SPLIT_V"):
            self.slices.update(_split(self, operator))

    def _find_scratch(self, operator: GraphOperator) -> None:
        if operator.name not in _WEIGHTED:
            return
        weights = self.tensor(operator.inputs[1]).shape
        if operator.name == "DEPTHWISE_CONV_2D":
            source = self.tensor(operator.inputs[0])
            self.scratch_bytes[operator.position] = weights[1] * weights[2] * source.shape[3]
            return
        num_inputs = prod(weights[1:])
        # The patch, then its bytes as pairs of 16 bits for cores with DSP instructions.
        padded = _round_up(num_inputs, BYTES_PER_WORD)
        self.scratch_bytes[operator.position] = 3 * padded


class _Place:
    """One operator with what its kernel needs to know."""

    def __init__(
        self,
        lowering: Lowering,
        operator: GraphOperator,
        address: Callable[[int], str],
        scratch: str,
    ):
        self.lowering, self.operator, self.scratch = lowering, operator, scratch
        self.image = lowering.image
        self.inputs = [lowering.tensor(i) if i >= 0 else None for i in operator.inputs]
        self.outputs = [lowering.tensor(i) for i in operator.outputs]
        self.address = address
        self.name = f"prv_operator_{operator.position}"

    def source(self, position: int) -> GraphTensor:
        """An operand that has to be there."""
        tensor = self.inputs[position]
        if tensor is None:
            raise ValueError(
                f"{self.operator.name} must have operand {position}. "
                f"Received none at operator {self.operator.position}. Export the student again."
            )
        return tensor

    def pointer(self, tensor: GraphTensor) -> str:
        """C expression of an operand, in memory or in the image."""
        if tensor.data is None:
            return self.address(tensor.index)
        if tensor.data.dtype != np.int8:
            raise ValueError(
                "A constant operand of a firmware model must be int8. "
                f"Received {tensor.data.dtype} in {tensor.name!r} at {self.operator.name}. "
                "Export the student with the type int8."
            )
        return f"image + {self.image.add(tensor.data)}"

    @property
    def activation(self) -> tuple[int, int]:
        """Lowest and highest code of the output."""
        code = getattr(self.operator.options, "fusedActivationFunction", 0)
        output = self.outputs[0]
        return activation_range(_ACTIVATIONS.get(code, str(code)), output.scale, output.zero_point)


def supported_operators() -> tuple[str, ...]:
    """Returns the names of the operators that have a kernel, sorted."""
    return tuple(sorted(_KERNELS))


def _check_supported(lowering: Lowering, operator: GraphOperator) -> None:
    if operator.name not in _KERNELS:
        raise ValueError(
            f"A firmware model must use operators that have a kernel: "
            f"{', '.join(supported_operators())}. "
            f"Received {operator.name} at operator {operator.position}. "
            f"{_REMEDIES.get(operator.name, 'Build the student from other layers.')}"
        )
    data = [i for i in (*operator.inputs, *operator.outputs) if i >= 0]
    for tensor in map(lowering.tensor, data):
        if tensor.data is None and tensor.dtype != "INT8":
            raise ValueError(
                "Every computed tensor of a firmware model must be int8. "
                f"Received {tensor.dtype.lower()} in {tensor.name!r} at {operator.name}. "
                "Export the student with the type int8."
            )


_REMEDIES = {
    "RELU6": "TFLM computes a RELU6 of its own wrongly; fuse it into the layer before it.",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "Write the recurrence as plain layers with explicit state.",
    "WHILE": "Write the recurrence as plain layers with explicit state.",
    "DEQUANTIZE": "Export the student with every tensor int8.",
}


# ---- constants of the weighted operators --------------------------------------------------------


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


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
    padded = np.zeros((_round_up(rows, ROWS_PER_BLOCK), _round_up(inputs, BYTES_PER_WORD)), np.int8)
    padded[:rows, :inputs] = weights
    blocks = padded.reshape(-1, ROWS_PER_BLOCK, padded.shape[1] // BYTES_PER_WORD, BYTES_PER_WORD)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


def _channel_factors(place: _Place, num_outputs: int) -> list[tuple[int, int]]:
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


def _channel_constants(place: _Place, weights: np.ndarray) -> list[np.ndarray]:
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
    num_padded = _round_up(num_outputs, ROWS_PER_BLOCK)
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


def _structure(kind: str, name: str, fields: Sequence[tuple[str, Any]]) -> str:
    lines = "".join(f"    .{key} = {value},\n" for key, value in fields)
    return f"static const struct {kind} {name} = {{\n{lines}}};\n"


def _weighted_fields(place: _Place, weights: np.ndarray) -> list[tuple[str, Any]]:
    """Fields of `struct lmkd_nn_dense` for weights `(outputs, inputs)`."""
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


def _lower_fully_connected(place: _Place) -> tuple[str, list[str]]:
    source, output = place.source(0), place.outputs[0]
    weights = place.source(1).values.reshape(place.source(1).shape[0], -1)
    declaration = _structure("lmkd_nn_dense", place.name, _weighted_fields(place, weights))
    pointers = place.pointer(source), place.pointer(output)
    return declaration, [
        f"lmkd_nn_dense(&{place.name}, image, {_at(pointers[0], row * weights.shape[1])}, "
        f"{_at(pointers[1], row * len(weights))}, {place.scratch});"
        for row in range(source.size // weights.shape[1])
    ]


def _at(pointer: str, offset: int) -> str:
    return f"{pointer} + {offset}" if offset else pointer


def _window_fields(place: _Place, kernel: Sequence[int]) -> list[tuple[str, Any]]:
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


def _check_batch(place: _Place) -> None:
    source, weights = place.source(0), place.source(1)
    is_grouped = place.operator.name == "CONV_2D" and weights.shape[3] != source.shape[3]
    if source.shape[0] != 1 or is_grouped:
        raise ValueError(
            "A convolution of a firmware model must have a batch of one and no groups. "
            f"Received an input {source.shape} and a kernel {weights.shape} at "
            f"{place.operator.name} {place.operator.position}. Split it into separate layers."
        )


def _lower_convolution(place: _Place) -> tuple[str, list[str]]:
    _check_batch(place)
    weights = place.source(1).values
    fields = _weighted_fields(place, weights.reshape(len(weights), -1))
    named = [(f"dense.{key}", value) for key, value in fields]
    named += _window_fields(place, weights.shape[1:3])
    declaration = _structure("lmkd_nn_convolution", place.name, named)
    return declaration, [_windowed_call("lmkd_nn_convolution", place)]


def _lower_depthwise(place: _Place) -> tuple[str, list[str]]:
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
    declaration = _structure("lmkd_nn_depthwise", place.name, fields)
    return declaration, [_windowed_call("lmkd_nn_depthwise", place)]


def _windowed_call(function: str, place: _Place) -> str:
    pointers = f"{place.pointer(place.source(0))}, {place.pointer(place.outputs[0])}"
    return f"{function}(&{place.name}, image, {pointers}, {place.scratch});"


def _lower_pool(place: _Place) -> tuple[str, list[str]]:
    low, high = place.activation
    options = place.operator.options
    window = _window_fields(place, (options.filterHeight, options.filterWidth))
    fields = [("lowest", low), ("highest", high), *window]
    function = {"MAX_POOL_2D": "lmkd_nn_max_pool", "AVERAGE_POOL_2D": "lmkd_nn_average_pool"}
    pointers = f"{place.pointer(place.source(0))}, {place.pointer(place.outputs[0])}"
    call = f"{function[place.operator.name]}(&{place.name}, {pointers});"
    return _structure("lmkd_nn_pool", place.name, fields), [call]


# ---- elementwise operators ----------------------------------------------------------------------


def _broadcast_fields(place: _Place) -> list[tuple[str, Any]]:
    """Fields of `struct lmkd_nn_pairs`: the axes of the output, neighbors merged."""
    output = place.outputs[0].shape or (1,)
    operands = []
    for position in (0, 1):
        shape = place.source(position).shape
        padded = (1,) * (len(output) - len(shape)) + shape
        strides = row_major_strides(padded)
        operands.append([0 if n == 1 else s for n, s in zip(padded, strides, strict=True)])
    axes = [list(axis) for axis in zip(output, *operands, strict=True) if axis[0] != 1]
    merged: list[list[int]] = []
    for axis in axes or [[1, 0, 0]]:
        if merged and all(merged[-1][k] == axis[0] * axis[k] for k in (1, 2)):
            merged[-1] = [merged[-1][0] * axis[0], axis[1], axis[2]]
        else:
            merged.append(axis)
    _check_axes(place, merged)
    merged = [[1, 0, 0]] * (_MAX_AXES - len(merged)) + merged
    names = ("pairs.counts", "pairs.first_strides", "pairs.second_strides")
    return [(name, _braces(axis[k] for axis in merged)) for k, name in enumerate(names)]


def _braces(values: Any) -> str:
    return f"{{{', '.join(map(str, values))}}}"


def _check_axes(place: _Place, axes: Sequence[Any]) -> None:
    if len(axes) > _MAX_AXES:
        raise ValueError(
            f"The kernels must be able to walk a tensor along {_MAX_AXES} axes. "
            f"Received {len(axes)} at {place.operator.name} {place.operator.position}. "
            "Reshape the tensor to fewer axes."
        )


def _lower_add(place: _Place) -> tuple[str, list[str]]:
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
    return _structure("lmkd_nn_add", place.name, fields), [_pair_call("lmkd_nn_add", place)]


def _affine_fields(place: _Place) -> list[tuple[str, Any]]:
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


def _lower_multiply(place: _Place) -> tuple[str, list[str]]:
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
    return _structure("lmkd_nn_multiply", place.name, fields), [
        _pair_call("lmkd_nn_multiply", place)
    ]


def _pair_call(function: str, place: _Place) -> str:
    operands = [place.pointer(place.source(0)), place.pointer(place.source(1))]
    return f"{function}(&{place.name}, {', '.join(operands)}, {place.pointer(place.outputs[0])});"


def _lower_table(place: _Place) -> tuple[str, list[str]]:
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


# ---- operators that only move bytes -------------------------------------------------------------


def _copy(
    place: _Place, name: str, shape: Sequence[int], steps: Sequence[Sequence[int]]
) -> tuple[str, str]:
    """Structure and call of a copy of a box; `steps` are the strides of source and target."""
    axes = [
        [size, source, target]
        for size, source, target in zip(shape, *steps, strict=True)
        if size != 1
    ]
    merged: list[list[int]] = []
    for axis in axes or [[1, 1, 1]]:
        if merged and all(merged[-1][k] == axis[0] * axis[k] for k in (1, 2)):
            merged[-1] = [merged[-1][0] * axis[0], axis[1], axis[2]]
        else:
            merged.append(axis)
    _check_axes(place, merged)
    merged = [[1, 0, 0]] * (_MAX_AXES - len(merged)) + merged
    fields = [
        (key, _braces(axis[k] for axis in merged))
        for k, key in enumerate(("counts", "source_strides", "target_strides"))
    ]
    return _structure("lmkd_nn_copy", name, fields), f"lmkd_nn_copy(&{name}, "


def _lower_slice(place: _Place) -> tuple[str, list[str]]:
    declarations, statements = "", []
    data_input = 1 if place.operator.name == "SPLIT" else 0
    source = place.source(data_input)
    strides = row_major_strides(source.shape)
    for number, output in enumerate(place.outputs):
        part = place.lowering.slices[output.index]
        start = sum(a * b for a, b in zip(part.starts, strides, strict=True))
        pointers = _at(place.pointer(source), start), place.pointer(output)
        if _address(pointers[0]) == _address(pointers[1]):
            continue  # a view: read where it lies
        name = f"{place.name}_{number}"
        steps = [a * b for a, b in zip(part.steps, strides, strict=True)]
        structure, call = _copy(place, name, part.shape, (steps, row_major_strides(part.shape)))
        declarations += structure
        statements.append(f"{call}{pointers[0]}, {pointers[1]});")
    return declarations, statements


def _address(pointer: str) -> tuple[str, int]:
    """Base and offset of an expression `base + number + number`."""
    base, *numbers = pointer.split(" + ")
    return base, sum(map(int, numbers))


def _lower_concatenation(place: _Place) -> tuple[str, list[str]]:
    output = place.outputs[0]
    axis = place.operator.options.axis % len(output.shape)
    strides = row_major_strides(output.shape)
    declarations, statements, start = "", [], 0
    for number in range(len(place.inputs)):
        source = place.source(number)
        target = _at(place.pointer(output), start * strides[axis])
        start += source.shape[axis]
        pointer = place.pointer(source)
        if _address(pointer) == _address(target):
            continue  # computed in its place
        name = f"{place.name}_{number}"
        structure, call = _copy(
            place, name, source.shape, (row_major_strides(source.shape), strides)
        )
        declarations += structure
        statements.append(f"{call}{pointer}, {target});")
    return declarations, statements


def _lower_pad(place: _Place) -> tuple[str, list[str]]:
    source, output = place.source(0), place.outputs[0]
    before = place.source(1).values.reshape(-1, 2)[:, 0]
    strides = row_major_strides(output.shape)
    start = int(sum(int(a) * b for a, b in zip(before, strides, strict=True)))
    value = output.zero_point
    if place.operator.name == "PADV2":
        value = int(place.source(2).values.ravel()[0])
    steps = (row_major_strides(source.shape), strides)
    structure, call = _copy(place, place.name, source.shape, steps)
    target = place.pointer(output)
    return structure, [
        f"lmkd_nn_fill({target}, {value}, {output.size});",
        f"{call}{place.pointer(source)}, {_at(target, start)});",
    ]


def _lower_transpose(place: _Place) -> tuple[str, list[str]]:
    source, output = place.source(0), place.outputs[0]
    order = [int(axis) for axis in place.source(1).values.ravel()]
    strides = row_major_strides(source.shape)
    steps = ([strides[axis] for axis in order], row_major_strides(output.shape))
    structure, call = _copy(place, place.name, output.shape, steps)
    return structure, [f"{call}{place.pointer(source)}, {place.pointer(output)});"]


def _lower_alias(place: _Place) -> tuple[str, list[str]]:
    del place
    return "", []


def _split(lowering: Lowering, operator: GraphOperator) -> dict[int, Slice]:
    is_even = operator.name == "SPLIT"
    source = lowering.tensor(operator.inputs[1 if is_even else 0])
    chosen = lowering.tensor(operator.inputs[0 if is_even else 2]).values
    axis = int(chosen.ravel()[0]) % len(source.shape)
    slices, start = {}, 0
    for index in operator.outputs:
        shape = lowering.tensor(index).shape
        starts = tuple(start if k == axis else 0 for k in range(len(shape)))
        slices[index] = Slice(starts, (1,) * len(shape), shape)
        start += shape[axis]
    return slices


def _plain_slice(lowering: Lowering, operator: GraphOperator) -> Slice:
    starts = lowering.tensor(operator.inputs[1]).values.ravel()
    shape = lowering.tensor(operator.outputs[0]).shape
    return Slice(tuple(int(s) for s in starts), (1,) * len(shape), shape)


def _strided_slice(lowering: Lowering, operator: GraphOperator) -> Slice:
    """Reads begin, end and steps with their masks, as NumPy's slices."""
    source = lowering.tensor(operator.inputs[0])
    begin, end, steps = (lowering.tensor(i).values.ravel() for i in operator.inputs[1:4])
    options = operator.options
    if options.ellipsisMask or options.newAxisMask:
        raise ValueError(
            "A strided slice of a firmware model must name every axis. "
            f"Received an ellipsis or a new axis at operator {operator.position}. "
            "Write out the slice, and reshape in a layer of its own."
        )
    starts, shape = [], []
    for axis, size in enumerate(source.shape):
        is_given = axis < len(begin)
        first = int(begin[axis]) if is_given and not options.beginMask >> axis & 1 else None
        last = int(end[axis]) if is_given and not options.endMask >> axis & 1 else None
        step = int(steps[axis]) if is_given else 1
        if options.shrinkAxisMask >> axis & 1 and first is not None:
            first %= size
            last, step = first + 1, 1
        indices = range(size)[slice(first, last, step)]
        starts.append(indices.start)
        shape.append(len(indices))
    padded = [int(s) for s in steps] + [1] * (len(source.shape) - len(steps))
    return Slice(tuple(starts), tuple(padded), tuple(shape))


_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_KERNELS: dict[str, Callable[[_Place], tuple[str, list[str]]]] = {
    "ADD": _lower_add,
    "AVERAGE_POOL_2D": _lower_pool,
    "CONCATENATION": _lower_concatenation,
    "CONV_2D": _lower_convolution,
    "DEPTHWISE_CONV_2D": _lower_depthwise,
    "FULLY_CONNECTED": _lower_fully_connected,
    "LOGISTIC": _lower_table,
    "MAX_POOL_2D": _lower_pool,
    "MUL": _lower_multiply,
    "PAD": _lower_pad,
    "PADV2": _lower_pad,
    "QUANTIZE": _lower_table,
    "RELU": _lower_table,
    "SLICE": _lower_slice,
    "SPLIT": _lower_slice,
    "SPLIT_V": _lower_slice,
    "STRIDED_SLICE": _lower_slice,
    "SUB": _lower_add,
    "TANH": _lower_table,
    "TRANSPOSE": _lower_transpose,
    **dict.fromkeys(ALIASES, _lower_alias),
}
