# SPDX-License-Identifier: Apache-2.0
"""Refuses graphs that a microcontroller would run wrongly or not at all."""

import math

from lmkd_tf.export.flatbuffer import Graph, Tensor

# Kernels that TFLM, CMSIS-NN and TFLite's reference compute bit for bit alike
# for the students of this package.
ALLOWED_OPERATORS = frozenset(
    {
        "ADD",
        "CONCATENATION",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "LOGISTIC",
        "QUANTIZE",
        "RESHAPE",
        "STRIDED_SLICE",
    }
)


def check_graph(graph: Graph, dtype: str) -> None:
    """Checks that a step graph is fully quantized and moves its state unchanged.

    Args:
        graph: Graph of the exported file.
        dtype: Type of its activations, `"int8"` or `"int16"`.

    Raises:
        ValueError: If there is a float tensor, an operator out of the list (WHILE
            and flex operators among them), an input or output of another type, or
            a state whose scale changes from input to output.
    """
    floats = [tensor.name for tensor in graph.tensors if tensor.dtype.startswith("float")]
    unknown = sorted(set(graph.operators) - ALLOWED_OPERATORS)
    others = [t.name for t in (*graph.inputs, *graph.outputs) if t.dtype != dtype]
    for rule, found in (
        ("A quantized graph must not hold float tensors.", floats),
        ("A graph must hold only operators that TFLM runs bit for bit.", unknown),
        (f"Inputs and outputs must be {dtype}.", others),
        ("A state must have the same scale going in and coming out.", _unequal_states(graph)),
    ):
        if found:
            raise ValueError(
                f"{rule} Received {found[:8]}. Build the student from the layers in "
                "docs/streaming.md and export it again."
            )


def _unequal_states(graph: Graph) -> list[str]:
    outputs = {tensor.name: tensor for tensor in graph.outputs}
    unequal = []
    for state in graph.inputs:
        if state.name == "features":
            continue
        after = outputs.get(f"next_{state.name}")
        if after is None or not _is_same_quantity(state, after):
            unequal.append(state.name)
    return unequal


def _is_same_quantity(state: Tensor, after: Tensor) -> bool:
    # Calibration rounds the two scales apart by parts per million, far below one step.
    return (
        math.isclose(state.scale, after.scale, rel_tol=1e-5)
        and state.zero_point == after.zero_point
        and state.shape == after.shape
    )
