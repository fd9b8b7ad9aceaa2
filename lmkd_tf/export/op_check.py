# SPDX-License-Identifier: Apache-2.0
"""Refuses graphs that a microcontroller would run wrongly or not at all.

Everything is read from the bytes of the exported file, whatever made it, and every refusal names
the operator and the tensor.
"""

import math
from collections.abc import Callable, Iterator

from lmkd_tf.export.flatbuffer import Graph, Node, Tensor
from lmkd_tf.export.operators import OPERATORS, REFUSED

_NUM_NAMED = 6
_LAYERS = "Build the student from the layers in docs/streaming.md and export it again."
# Shapes, axes, indices and biases.
_HELPER_TYPES = ("int32", "int64", "bool")


def check_graph(graph: Graph, dtype: str) -> None:
    """Checks that a step graph is fully quantized and moves its state unchanged.

    A QUANTIZE is allowed where it changes the step between two tensors of the type of the
    activations, as the converter does in front of a join; a DEQUANTIZE never.

    Args:
        graph: Graph of the exported file.
        dtype: Type of its activations, `"int8"` or `"int16"`.

    Raises:
        ValueError: If there is an operator that is not in the table, a float or variable tensor,
            a hybrid operator, an integer without a range, a size that is not fixed, an input or
            output of another type, or a state whose scale changes from input to output.
    """
    _check_operators(graph, dtype)
    rules: tuple[tuple[str, Callable[[Graph, str], Iterator[str]], str], ...] = (
        (
            "An operator must not mix float values with integer weights.",
            _hybrid,
            "Calibrate the activations on real frames instead of quantizing weights alone.",
        ),
        ("A quantized graph must not hold float tensors.", _floats, _LAYERS),
        (
            "A step graph must keep its state in inputs and outputs.",
            _variables,
            "Build it with is_step=True.",
        ),
        ("Every size of a step graph must be fixed, its batch 1.", _unfixed, _LAYERS),
        (f"Inputs and outputs must be {dtype}.", _other_ends, f"Export with the type {dtype}."),
        (
            "Every integer tensor must have a range.",
            _without_range,
            "Calibrate on frames that reach every layer, and check for dead channels and NaN.",
        ),
        (
            "A bias must fit in 32 bits of its step.",
            _saturated,
            "A channel whose weights are all zero has none: prune less, or remove channels.",
        ),
        (f"Activations must be {dtype} throughout.", _other_activations, _LAYERS),
        (
            "A state must have the same scale going in and coming out.",
            _unequal_states,
            "Join it with the new frames by the layer state_concatenate, which ties the two.",
        ),
    )
    for rule, find, remedy in rules:
        _refuse(rule, list(find(graph, dtype)), remedy)


def _refuse(rule: str, found: list[str], remedy: str) -> None:
    if found:
        more = f" and {len(found) - _NUM_NAMED} more" if len(found) > _NUM_NAMED else ""
        raise ValueError(f"{rule} Received {', '.join(found[:_NUM_NAMED])}{more}. {remedy}")


def _check_operators(graph: Graph, dtype: str) -> None:
    for name, (reason, remedy) in REFUSED.items():
        found = [_describe(node) for node in graph.nodes if node.name == name]
        _refuse(f"A step graph must not hold {name}: {reason}.", found, remedy)
    unknown = [_describe(node) for node in graph.nodes if not _is_known(node.name, dtype)]
    allowed = [name for name in OPERATORS if _is_known(name, dtype)]
    _refuse(
        f"A step graph with {dtype} activations may hold {', '.join(allowed)}.", unknown, _LAYERS
    )
    if graph.num_graphs != 1:
        raise ValueError(
            "A step graph must be one graph, without bodies of loops or branches. "
            f"Received a file with {graph.num_graphs}. {_LAYERS}"
        )


def _is_known(name: str, dtype: str) -> bool:
    entry = OPERATORS.get(name)
    return entry is not None and (dtype == "int8" or entry.tflite_steps_int16 is not None)


def _describe(node: Node) -> str:
    return f"{node.name} {node.outputs[0].name!r}" if node.outputs else node.name


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype.startswith(("float", "bfloat"))


def _hybrid(graph: Graph, dtype: str) -> Iterator[str]:
    for node in graph.nodes:
        floats = [t for t in (*node.inputs, *node.outputs) if _is_float(t) and not t.is_constant]
        integers = [t for t in node.inputs if t.dtype in ("int8", "int4") and t.is_constant]
        if floats and integers and node.name != "QUANTIZE":
            yield f"{_describe(node)} ({floats[0].dtype} with {integers[0].dtype} weights)"


def _floats(graph: Graph, dtype: str) -> Iterator[str]:
    writers = {id(t): node.name for node in graph.nodes for t in node.outputs}
    readers = {id(t): node.name for node in graph.nodes for t in node.inputs}
    for tensor in graph.tensors:
        if _is_float(tensor):
            place = writers.get(id(tensor)) or readers.get(id(tensor)) or "no operator"
            yield f"{tensor.dtype} {tensor.name!r} at {place}"


def _variables(graph: Graph, dtype: str) -> Iterator[str]:
    for tensor in graph.tensors:
        if tensor.is_variable or tensor.dtype in ("resource", "variant"):
            yield f"variable {tensor.name!r}"


def _unfixed(graph: Graph, dtype: str) -> Iterator[str]:
    for tensor in graph.tensors:
        if not tensor.is_static:
            yield f"{tensor.name!r} of open shape"
    for tensor in graph.inputs:
        if not tensor.shape or tensor.shape[0] != 1:
            yield f"{tensor.name!r} of shape {tensor.shape}"


def _other_ends(graph: Graph, dtype: str) -> Iterator[str]:
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.dtype != dtype:
            yield f"{tensor.dtype} {tensor.name!r}"


def _without_range(graph: Graph, dtype: str) -> Iterator[str]:
    for node in graph.nodes:
        for tensor in (*node.inputs, *node.outputs):
            is_integer = tensor.dtype not in _HELPER_TYPES
            scales = tensor.scales or (tensor.scale,)
            if is_integer and not all(math.isfinite(s) and s > 0.0 for s in scales):
                yield f"{tensor.name!r} at {node.name}"


def _saturated(graph: Graph, dtype: str) -> Iterator[str]:
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor.is_saturated:
                yield f"{tensor.name!r} at {node.name}"


def _other_activations(graph: Graph, dtype: str) -> Iterator[str]:
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor.dtype != dtype:
                yield f"{tensor.dtype} {tensor.name!r} at {node.name}"


def _unequal_states(graph: Graph, dtype: str) -> Iterator[str]:
    outputs = {tensor.name: tensor for tensor in graph.outputs}
    for state in graph.inputs:
        if state.name == "features":
            continue
        after = outputs.get(f"next_{state.name}")
        if after is None:
            yield f"{state.name!r} without an output 'next_{state.name}'"
        elif not _is_same_quantity(state, after):
            yield (
                f"{state.name!r} ({state.shape}, scale {state.scale:.9g}, zero point "
                f"{state.zero_point}) and {after.name!r} ({after.shape}, {after.scale:.9g}, "
                f"{after.zero_point})"
            )


def _is_same_quantity(state: Tensor, after: Tensor) -> bool:
    # Calibration rounds the two scales apart by parts per million, far below one step.
    return (
        math.isclose(state.scale, after.scale, rel_tol=1e-5)
        and state.zero_point == after.zero_point
        and state.shape == after.shape
    )
