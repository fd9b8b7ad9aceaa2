# SPDX-License-Identifier: Apache-2.0
"""One small graph per operator and variant, for the comparison of C with TFLM."""

from collections.abc import Callable
from functools import partial

import numpy as np

from tests.firmware.graphs import GraphBuilder, S, options

SAME, VALID = S.Padding.SAME, S.Padding.VALID
NONE, RELU, RELU6 = (getattr(S.ActivationFunctionType, n) for n in ("NONE", "RELU", "RELU6"))
RELU_N1_TO_1 = S.ActivationFunctionType.RELU_N1_TO_1


def convolution(shape=(6, 5, 3), kernel=(3, 3), outputs=7, activation=NONE, **changes):
    window = {"stride": (1, 1), "dilation": (1, 1), "padding": SAME}
    settings = {**window, "per_channel": True, "output_scale": 0.08, **changes}
    stride, dilation, padding = (settings[name] for name in window)
    g = GraphBuilder(sum(shape) + outputs + kernel[0] + 7 * stride[0] + dilation[0])
    x = g.input([1, *shape], 0.031, 5)
    w = g.weights([outputs, *kernel, shape[2]], 0, settings["per_channel"])
    sizes = window_shape(shape, kernel, stride, dilation, padding, outputs)
    y = g.tensor(sizes, settings["output_scale"], -7)
    o = options(
        "Conv2D",
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=activation,
    )
    g.operator("CONV_2D", [x, w, g.bias(outputs)], [y], o)
    return g.finish(y)


def depthwise(
    shape=(6, 5, 6),
    kernel=(3, 3),
    multiplier=1,
    stride=(1, 1),
    dilation=(1, 1),
    padding=SAME,
    activation=NONE,
):
    g = GraphBuilder(sum(shape) + kernel[0] + 5 * multiplier)
    outputs = shape[2] * multiplier
    x = g.input([1, *shape], 0.05, -11)
    w = g.weights([1, *kernel, outputs], 3)
    y = g.tensor(window_shape(shape, kernel, stride, dilation, padding, outputs), 0.04, 12)
    o = options(
        "DepthwiseConv2D",
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        depthMultiplier=multiplier,
        fusedActivationFunction=activation,
    )
    g.operator("DEPTHWISE_CONV_2D", [x, w, g.bias(outputs)], [y], o)
    return g.finish(y)


def window_shape(shape, kernel, stride, dilation, padding, outputs):
    sizes = []
    for size, k, s, d in zip(shape, kernel, stride, dilation, strict=False):
        reach = (k - 1) * d + 1
        sizes.append(-(-size // s) if padding == SAME else -(-(size - reach + 1) // s))
    return [1, *sizes, outputs]


def dense(inputs=37, outputs=10, rows=1, per_channel=False, has_bias=True, activation=NONE):
    g = GraphBuilder(inputs + outputs)
    x = g.input([rows, inputs], 0.03, 3)
    w = g.weights([outputs, inputs], 0, per_channel)
    y = g.tensor([rows, outputs], 0.07, -20)
    operands = [x, w, g.bias(outputs)] if has_bias else [x, w, -1]
    g.operator(
        "FULLY_CONNECTED",
        operands,
        [y],
        options("FullyConnected", fusedActivationFunction=activation),
    )
    return g.finish(y)


def pair(name, first=(1, 4, 5, 6), second=(1, 4, 5, 6), activation=NONE, constant=False):
    g = GraphBuilder(sum(first) + sum(second))
    a = g.input(first, 0.07, 12)
    if constant:
        data = g.rng.integers(-128, 128, second).astype(np.int8)
        b = g.tensor(second, 0.02, -4, data=data)
    else:
        b = g.input(second, 0.02, -4)
    shape = np.broadcast_shapes(first, second)
    y = g.tensor(shape, 0.09 if name != "MUL" else 0.05, -30)
    kind = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}[name]
    g.operator(name, [a, b], [y], options(kind, fusedActivationFunction=activation))
    return g.finish(y)


def table(name, scale=0.06, zero_point=9, output=(1 / 256, -128)):
    g = GraphBuilder(1)
    x = g.input([256], scale, zero_point)
    y = g.tensor([256], *output)
    g.operator(name, [x], [y], options("Quantize") if name == "QUANTIZE" else None)
    return g.finish(y)


def pool(name, shape=(7, 5, 3), kernel=(3, 2), stride=(2, 1), padding=SAME, activation=NONE):
    g = GraphBuilder(2)
    x = g.input([1, *shape], 0.05, -3)
    y = g.tensor(window_shape(shape, kernel, stride, (1, 1), padding, shape[2]), 0.05, -3)
    o = options(
        "Pool2D",
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        fusedActivationFunction=activation,
    )
    g.operator(name, [x], [y], o)
    return g.finish(y)


def concatenation(axis, shapes):
    g = GraphBuilder(3)
    xs = [g.input(shape, 0.05, 1) for shape in shapes]
    total = list(shapes[0])
    total[axis] = sum(shape[axis] for shape in shapes)
    y = g.tensor(total, 0.05, 1)
    g.operator("CONCATENATION", xs, [y], options("Concatenation", axis=axis))
    return g.finish(y)


def repeated_concatenation():
    g = GraphBuilder(4)
    x = g.input([1, 2, 3], 0.05, 1)
    y = g.tensor([1, 4, 3], 0.05, 1)
    g.operator("CONCATENATION", [x, x], [y], options("Concatenation", axis=1))
    return g.finish(y)


def strided_slice(shape, begin, end, steps, out, **masks):
    g = GraphBuilder(5)
    x = g.input(shape, 0.05, 1)
    y = g.tensor(out, 0.05, 1)
    operands = [x, g.constant(begin), g.constant(end), g.constant(steps)]
    defaults = {f"{m}Mask": 0 for m in ("begin", "end", "ellipsis", "newAxis", "shrinkAxis")}
    g.operator("STRIDED_SLICE", operands, [y], options("StridedSlice", **(defaults | masks)))
    return g.finish(y)


def plain_slice():
    g = GraphBuilder(5)
    x = g.input([1, 5, 4, 6], 0.05, 1)
    y = g.tensor([1, 3, 2, 6], 0.05, 1)
    g.operator(
        "SLICE",
        [x, g.constant([0, 1, 2, 0]), g.constant([1, 3, 2, 6])],
        [y],
        options("Slice"),
    )
    return g.finish(y)


def split(axis):
    g = GraphBuilder(6)
    shape = [2, 4, 6]
    x = g.input(shape, 0.05, 1)
    part = list(shape)
    part[axis] //= 2
    ys = [g.tensor(part, 0.05, 1) for _ in range(2)]
    g.operator("SPLIT", [g.constant(axis), x], ys, options("Split", numSplits=2))
    return g.finish(*ys)


def split_v():
    g = GraphBuilder(6)
    x = g.input([1, 7, 4], 0.05, 1)
    ys = [g.tensor([1, n, 4], 0.05, 1) for n in (2, 4, 1)]
    operands = [x, g.constant([2, 4, 1]), g.constant(1)]
    g.operator("SPLIT_V", operands, ys, options("SplitV", numSplits=3))
    return g.finish(*ys)


def reshape():
    g = GraphBuilder(7)
    x = g.input([1, 4, 6], 0.05, 1)
    y, z = g.tensor([1, 24], 0.05, 1), g.tensor([1, 24], 0.1, 0)
    g.operator("RESHAPE", [x, g.constant([1, 24])], [y], options("Reshape", newShape=[1, 24]))
    g.operator("QUANTIZE", [y], [z], options("Quantize"))
    return g.finish(z)


def pad(value=None):
    g = GraphBuilder(8)
    x = g.input([1, 3, 4, 2], 0.05, 17)
    y = g.tensor([1, 6, 5, 2], 0.05, 17)
    paddings = g.constant([[0, 0], [2, 1], [1, 0], [0, 0]])
    if value is None:
        g.operator("PAD", [x, paddings], [y], options("Pad"))
    else:
        fill = g.tensor([1], 0.05, 17, data=np.array([value], np.int8))
        g.operator("PADV2", [x, paddings, fill], [y], options("PadV2"))
    return g.finish(y)


def transpose():
    g = GraphBuilder(9)
    x = g.input([1, 3, 4, 5], 0.05, 1)
    y = g.tensor([1, 4, 5, 3], 0.05, 1)
    g.operator("TRANSPOSE", [x, g.constant([0, 2, 3, 1])], [y], options("Transpose"))
    return g.finish(y)


def transposed(shape=(1, 16, 6), kernel=(1, 3), stride=(1, 2), padding=SAME, activation=NONE):
    g = GraphBuilder(11 + sum(shape) + kernel[0] + 5 * stride[0])
    height, width = (
        n * s if padding == SAME else (n - 1) * s + k
        for n, s, k in zip(shape, stride, kernel, strict=False)
    )
    x = g.input([1, *shape], 0.05, 4)
    w = g.weights([5, *kernel, shape[2]], 0)
    y = g.tensor([1, height, width, 5], 0.06, -9)
    o = options(
        "TransposeConv",
        padding=padding,
        strideH=stride[0],
        strideW=stride[1],
        fusedActivationFunction=activation,
    )
    g.operator("TRANSPOSE_CONV", [g.constant([1, height, width, 5]), w, x, g.bias(5)], [y], o)
    return g.finish(y)


def gated():
    """A gated step on two inputs: dense, split, tanh, logistic, multiply, subtract, add."""
    g = GraphBuilder(10)
    x, h = g.input([1, 24], 0.02, 3), g.input([1, 16], 1 / 128, 0)
    joined = g.tensor([1, 40], 0.02, 3)
    scaled = g.tensor([1, 16], 0.02, 3)
    g.operator("QUANTIZE", [h], [scaled], options("Quantize"))
    g.operator("CONCATENATION", [x, scaled], [joined], options("Concatenation", axis=1))
    both = g.tensor([1, 32], 0.05, 0)
    w = g.weights([32, 40], 0)
    g.operator("FULLY_CONNECTED", [joined, w, g.bias(32)], [both], options("FullyConnected"))
    gate, candidate = g.tensor([1, 16], 0.05, 0), g.tensor([1, 16], 0.05, 0)
    g.operator("SPLIT", [g.constant(1), both], [gate, candidate], options("Split", numSplits=2))
    z, n = g.tensor([1, 16], 1 / 256, -128), g.tensor([1, 16], 1 / 128, 0)
    g.operator("LOGISTIC", [gate], [z])
    g.operator("TANH", [candidate], [n])
    change, kept = g.tensor([1, 16], 1 / 64, 0), g.tensor([1, 16], 1 / 64, 0)
    g.operator("SUB", [n, h], [change], options("Sub"))
    g.operator("MUL", [z, change], [kept], options("Mul"))
    y = g.tensor([1, 16], 1 / 128, 0)
    g.operator("ADD", [h, kept], [y], options("Add"))
    return g.finish(y)


CASES: dict[str, Callable[[], bytes]] = {
    "conv_1x1": partial(convolution, (1, 1, 37), (1, 1), 10),
    "conv_1x1_wide": partial(convolution, (1, 1, 96), (1, 1), 128, activation=RELU),
    "conv_3x3_same": convolution,
    "conv_3x3_valid_relu6": partial(convolution, padding=VALID, activation=RELU6),
    "conv_stride": partial(convolution, stride=(2, 2)),
    "conv_dilated": partial(convolution, (9, 9, 4), dilation=(2, 3)),
    "conv_frequency": partial(convolution, (1, 32, 8), (1, 5), 16, stride=(1, 2)),
    "conv_time_and_frequency": partial(convolution, (3, 16, 4), (3, 3), 8, padding=VALID),
    "conv_per_tensor": partial(convolution, per_channel=False, activation=RELU_N1_TO_1),
    "conv_large_factor": partial(convolution, output_scale=0.0001),
    "depthwise_3x3": depthwise,
    "depthwise_dilated_time": partial(
        depthwise, (17, 1, 96), (3, 1), dilation=(8, 1), padding=VALID, activation=RELU
    ),
    "depthwise_time": partial(depthwise, (3, 1, 10), (3, 1), padding=VALID),
    "depthwise_multiplier": partial(depthwise, (4, 4, 3), multiplier=3),
    "depthwise_stride": partial(depthwise, stride=(2, 2), activation=RELU6),
    "depthwise_frequency": partial(depthwise, (1, 33, 8), (1, 3), padding=SAME),
    "dense_per_tensor": dense,
    "dense_per_channel": partial(dense, 64, 33, per_channel=True, activation=RELU),
    "dense_no_bias": partial(dense, 50, 12, has_bias=False),
    "dense_rows": partial(dense, 21, 9, rows=4),
    "dense_one_output": partial(dense, 7, 1),
    "add": partial(pair, "ADD"),
    "add_relu": partial(pair, "ADD", activation=RELU),
    "add_channel": partial(pair, "ADD", second=(6,)),
    "add_column": partial(pair, "ADD", second=(1, 4, 1, 1)),
    "add_scalar_constant": partial(pair, "ADD", second=(1,), constant=True),
    "add_first_smaller": partial(pair, "ADD", first=(1, 1, 5, 1)),
    "sub": partial(pair, "SUB"),
    "sub_channel_constant": partial(pair, "SUB", second=(6,), constant=True),
    "mul": partial(pair, "MUL"),
    "mul_column": partial(pair, "MUL", second=(1, 4, 5, 1)),
    "mul_relu6": partial(pair, "MUL", activation=RELU6),
    "mul_constant": partial(pair, "MUL", second=(1, 4, 5, 6), constant=True),
    "logistic": partial(table, "LOGISTIC"),
    "logistic_wide": partial(table, "LOGISTIC", 0.3, -50),
    "logistic_fine": partial(table, "LOGISTIC", 0.004, 100),
    "tanh": partial(table, "TANH", output=(1 / 128, 0)),
    "tanh_wide": partial(table, "TANH", 0.21, -3, (1 / 128, 0)),
    "tanh_fine": partial(table, "TANH", 0.003, 77, (1 / 128, 0)),
    "quantize": partial(table, "QUANTIZE", output=(0.13, -40)),
    "quantize_finer": partial(table, "QUANTIZE", output=(0.011, 20)),
    "relu": partial(table, "RELU", output=(0.04, -100)),
    "max_pool": partial(pool, "MAX_POOL_2D"),
    "max_pool_valid": partial(pool, "MAX_POOL_2D", padding=VALID, activation=RELU),
    "average_pool": partial(pool, "AVERAGE_POOL_2D"),
    "average_pool_global": partial(pool, "AVERAGE_POOL_2D", kernel=(7, 5), padding=VALID),
    "concatenation_time": partial(concatenation, 1, [[1, 4, 1, 6], [1, 1, 1, 6]]),
    "concatenation_channels": partial(concatenation, 3, [[1, 4, 2, 6], [1, 4, 2, 3]]),
    "concatenation_three": partial(concatenation, 2, [[1, 4, 2, 5], [1, 4, 1, 5], [1, 4, 3, 5]]),
    "concatenation_of_one_twice": repeated_concatenation,
    "slice_time": partial(
        strided_slice, [1, 5, 1, 6], [0, 1, 0, 0], [0, 0, 0, 0], [1] * 4, [1, 4, 1, 6],
        beginMask=13, endMask=15,
    ),
    "slice_channels": partial(
        strided_slice, [1, 5, 2, 6], [0, 0, 0, 1], [1, 5, 2, 4], [1] * 4, [1, 5, 2, 3]
    ),
    "slice_steps": partial(
        strided_slice, [1, 7, 2, 6], [0, 6, 0, 1], [1, 0, 2, 6], [1, -2, 1, 2], [1, 3, 2, 3]
    ),
    "slice_drops_axis": partial(
        strided_slice, [1, 5, 2, 6], [0, -1, 0, 0], [1, 0, 2, 6], [1] * 4, [1, 2, 6],
        shrinkAxisMask=2,
    ),
    "slice_box": plain_slice,
    "split_middle": partial(split, 1),
    "split_channels": partial(split, 2),
    "split_uneven": split_v,
    "reshape": reshape,
    "pad": pad,
    "pad_with_value": partial(pad, -9),
    "transpose": transpose,
    "transposed_frequency": transposed,
    "transposed_even_kernel": partial(transposed, kernel=(1, 4)),
    "transposed_valid": partial(transposed, kernel=(1, 4), padding=VALID),
    "transposed_long_stride": partial(transposed, kernel=(1, 3), stride=(1, 4)),
    "transposed_both_axes": partial(transposed, (5, 7, 3), (3, 2), (2, 3)),
    "transposed_plain": partial(transposed, (3, 8, 4), (3, 3), (1, 1)),
    "gated_step": gated,
}  # fmt: skip
