# SPDX-License-Identifier: Apache-2.0
"""Turns the operators of an int8 graph into calls of the C kernels in `nn.h`.

Each operator becomes a constant structure with its sizes and factors, and a call. What
TFLM prepares at run time (factors, activation ranges, folded zero points, tables) is
prepared here in the same arithmetic, so the results are the same bits.
"""

from collections.abc import Callable

from lmkd_tf.export.operators import OPERATORS, REFUSED
from lmkd_tf.firmware import elementwise, movement, transposed, weighted
from lmkd_tf.firmware.graph import GraphOperator, QuantizedGraph
from lmkd_tf.firmware.kernel_call import Call, Image, Kernel, Place
from lmkd_tf.firmware.memory_plan import ALIASES, Slice


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
            _check_supported(graph, operator)
            self.slices.update(movement.find_slices(graph, operator))
            is_transposed = operator.name == "TRANSPOSE_CONV"
            count = transposed.spread_bytes if is_transposed else weighted.scratch_bytes
            num_bytes = count(operator, graph.tensors)
            if num_bytes:
                self.scratch_bytes[operator.position] = num_bytes

    def lower(self, operator: GraphOperator, address: Callable[[int], str], scratch: str) -> Call:
        """Returns the call of one operator.

        Args:
            operator: Operator of the graph.
            address: Function from a tensor's index to a C expression for its first byte.
            scratch: C expression for the operator's scratch.

        Returns:
            The call; it has no statements where the result lies in place already.
        """
        tensors = self.graph.tensors
        place = Place(operator, tensors, self.slices, self.image, address, scratch)
        declaration, statements = _KERNELS[operator.name](place)
        shapes = ", ".join("x".join(map(str, tensors[i].shape)) for i in operator.inputs if i >= 0)
        result = "x".join(map(str, tensors[operator.outputs[0]].shape))
        comment = f"{operator.name} {shapes} -> {result}"
        return Call(operator.position, comment, declaration, tuple(statements))


def supported_operators() -> tuple[str, ...]:
    """Returns the names of the operators that have a kernel, sorted."""
    return tuple(OPERATORS)


def _check_supported(graph: QuantizedGraph, operator: GraphOperator) -> None:
    if operator.name not in _KERNELS:
        _, remedy = REFUSED.get(operator.name, ("", "Build the student from other layers."))
        raise ValueError(
            f"A firmware model must use operators that have a kernel: "
            f"{', '.join(supported_operators())}. "
            f"Received {operator.name} at operator {operator.position}. "
            f"{remedy}"
        )
    data = [i for i in (*operator.inputs, *operator.outputs) if i >= 0]
    for tensor in (graph.tensors[i] for i in data):
        if tensor.data is None and tensor.dtype != "INT8":
            raise ValueError(
                "Every computed tensor of a firmware model must be int8. "
                f"Received {tensor.dtype.lower()} in {tensor.name!r} at {operator.name}. "
                "Export the student with the type int8."
            )


_KERNELS: dict[str, Callable[[Place], Kernel]] = {
    "ADD": elementwise.lower_add,
    "AVERAGE_POOL_2D": weighted.lower_pool,
    "CONCATENATION": movement.lower_concatenation,
    "CONV_2D": weighted.lower_convolution,
    "DEPTHWISE_CONV_2D": weighted.lower_depthwise,
    "FULLY_CONNECTED": weighted.lower_fully_connected,
    "LOGISTIC": elementwise.lower_table,
    "MAX_POOL_2D": weighted.lower_pool,
    "MUL": elementwise.lower_multiply,
    "PAD": movement.lower_pad,
    "PADV2": movement.lower_pad,
    "QUANTIZE": elementwise.lower_table,
    "RELU": elementwise.lower_table,
    "SLICE": movement.lower_slice,
    "SPLIT": movement.lower_slice,
    "SPLIT_V": movement.lower_slice,
    "STRIDED_SLICE": movement.lower_slice,
    "SUB": elementwise.lower_add,
    "TANH": elementwise.lower_table,
    "TRANSPOSE": movement.lower_transpose,
    "TRANSPOSE_CONV": transposed.lower_transposed,
    **dict.fromkeys(ALIASES, movement.lower_alias),
}
