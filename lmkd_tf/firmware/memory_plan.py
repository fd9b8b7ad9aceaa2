# SPDX-License-Identifier: Apache-2.0
"""Places the tensors of a graph in one block of memory, ahead of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from lmkd_tf.firmware.graph import GraphOperator, QuantizedGraph

ALIGNMENT_BYTES = 16
ALIASES = frozenset({"RESHAPE", "EXPAND_DIMS", "SQUEEZE"})


@dataclass(frozen=True)
class StateCopy:
    """A move of state that ends a hop.

    Args:
        source: First byte of the new state.
        target: First byte of the state that the next hop reads.
        num_bytes: Length; source and target may overlap.
    """

    source: int
    target: int
    num_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """Where everything lies, in bytes from the start of the block.

    Args:
        offsets: First byte of each computed tensor, by index.
        scratch: First byte of the scratch of an operator, by its position.
        state_copies: Moves that end a hop, in order.
        persistent_bytes: Front part that has to survive from hop to hop.
        total_bytes: Size of the block.
    """

    offsets: dict[int, int]
    scratch: dict[int, int]
    state_copies: tuple[StateCopy, ...]
    persistent_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Slice:
    """One output of an operator that only selects a box of its input.

    Args:
        starts: First index per axis.
        steps: Step per axis.
        shape: Number of elements per axis, before axes are dropped.
    """

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    shape: tuple[int, ...]


def plan_memory(
    graph: QuantizedGraph,
    states: Sequence[tuple[int, int]],
    slices: Mapping[int, Slice],
    scratch_bytes: Mapping[int, int],
) -> MemoryPlan:
    """Places every computed tensor, so that joins and slices along time cost nothing.

    A contiguous part of another tensor is a view of it: an input of a concatenation
    is computed in its place, a slice is read where it lies. What lives at the same
    time never overlaps otherwise.

    Args:
        graph: Graph to place; its tensors have one byte per element.
        states: Pairs of an input and the output that becomes that input at the next hop.
        slices: What each output of a slicing operator selects, by tensor.
        scratch_bytes: Scratch that an operator needs, by its position.

    Returns:
        The plan.

    Raises:
        ValueError: If states are exchanged in a circle.
    """
    views = _find_views(graph, slices)
    lifetimes, sizes = _lifetimes(graph, views, states)
    persistent = {_resolve(views, state)[0] for state, _ in states}
    end = len(graph.operators)
    for root in persistent:
        lifetimes[root] = (-1, end)
    for position, num_bytes in scratch_bytes.items():
        lifetimes[~position], sizes[~position] = (position, position), num_bytes
    placed = _place(lifetimes, sizes, persistent)
    offsets = {}
    for tensor in _computed(graph):
        root, start = _resolve(views, tensor)
        offsets[tensor] = placed[root] + start
    moves = [StateCopy(offsets[new], offsets[old], graph.tensors[old].size) for old, new in states]
    return MemoryPlan(
        offsets=offsets,
        scratch={position: placed[~position] for position in scratch_bytes},
        state_copies=_order_copies([m for m in moves if m.source != m.target]),
        persistent_bytes=max((_end(placed[r], sizes[r]) for r in persistent), default=0),
        total_bytes=max((_end(placed[r], sizes[r]) for r in placed), default=0),
    )


def row_major_strides(shape: Sequence[int]) -> list[int]:
    """Returns the elements from one index to the next, per axis.

    Example:
        >>> row_major_strides([2, 3, 4])
        [12, 4, 1]
    """
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _end(start: int, num_bytes: int) -> int:
    return -(-(start + num_bytes) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _computed(graph: QuantizedGraph) -> list[int]:
    produced = [tensor for operator in graph.operators for tensor in operator.outputs]
    return [*graph.inputs, *produced]


def _resolve(views: Mapping[int, tuple[int, int]], tensor: int) -> tuple[int, int]:
    """Follows views to the tensor that owns the memory; returns it and the offset in it."""
    start = 0
    while tensor in views:
        tensor, step = views[tensor]
        start += step
    return tensor, start


def _find_views(graph: QuantizedGraph, slices: Mapping[int, Slice]) -> dict[int, tuple[int, int]]:
    views: dict[int, tuple[int, int]] = {}
    for operator in graph.operators:
        if operator.name in ALIASES:
            views[operator.outputs[0]] = (operator.inputs[0], 0)
        elif operator.name == "CONCATENATION":
            _view_parts(graph, operator, views)
        for tensor in operator.outputs:
            start = _contiguous_start(graph, operator, slices.get(tensor))
            if start is not None:
                views[tensor] = (operator.inputs[_data_input(operator)], start)
    return views


def _data_input(operator: GraphOperator) -> int:
    return 1 if operator.name == "SPLIT" else 0


def _view_parts(
    graph: QuantizedGraph, operator: GraphOperator, views: dict[int, tuple[int, int]]
) -> None:
    """Lets inputs of a concatenation lie in its output, where that is one run of bytes."""
    output = graph.tensors[operator.outputs[0]]
    axis = operator.options.axis % len(output.shape)
    if prod(output.shape[:axis]) != 1:
        return
    start = 0
    for tensor in operator.inputs:
        is_free = tensor not in views and graph.tensors[tensor].data is None
        if is_free and operator.inputs.count(tensor) == 1:
            views[tensor] = (output.index, start)
        start += graph.tensors[tensor].size


def _contiguous_start(
    graph: QuantizedGraph, operator: GraphOperator, part: Slice | None
) -> int | None:
    """First element of a slice that is one run of its input, else None."""
    source = graph.tensors[operator.inputs[_data_input(operator)]] if part else None
    if part is None or source is None or source.data is not None:
        return None
    if any(step != 1 for step, size in zip(part.steps, part.shape, strict=True) if size > 1):
        return None
    cut = [axis for axis, size in enumerate(part.shape) if size != source.shape[axis]]
    if cut and prod(part.shape[: cut[-1]]) != 1:
        return None
    strides = row_major_strides(source.shape)
    return sum(start * stride for start, stride in zip(part.starts, strides, strict=True))


def _lifetimes(
    graph: QuantizedGraph,
    views: Mapping[int, tuple[int, int]],
    states: Sequence[tuple[int, int]],
) -> tuple[dict[int, tuple[int, int]], dict[int, int]]:
    """First and last operator during which each owner of memory is in use, and its size."""
    end = len(graph.operators)
    spans = {tensor: [-1, -1] for tensor in graph.inputs}
    for operator in graph.operators:
        for tensor in operator.outputs:
            spans[tensor] = [operator.position, operator.position]
        for tensor in operator.inputs:
            if tensor in spans:
                spans[tensor][1] = operator.position
    for tensor in graph.outputs:
        spans[tensor][1] = end
    lifetimes: dict[int, tuple[int, int]] = {}
    for tensor, (first, last) in spans.items():
        root = _resolve(views, tensor)[0]
        known = lifetimes.get(root, (first, last))
        lifetimes[root] = (min(known[0], first), max(known[1], last))
    return lifetimes, {root: graph.tensors[root].size for root in lifetimes}


def _place(
    lifetimes: Mapping[int, tuple[int, int]], sizes: Mapping[int, int], persistent: set[int]
) -> dict[int, int]:
    """Gives each owner the lowest place that is free while it lives, the largest first."""
    placed: dict[int, int] = {}
    for root in sorted(lifetimes, key=lambda r: (r not in persistent, -sizes[r], r)):
        first, last = lifetimes[root]
        taken = sorted(
            (placed[other], _end(placed[other], sizes[other]))
            for other in placed
            if lifetimes[other][0] <= last and first <= lifetimes[other][1]
        )
        start = 0
        for low, high in taken:
            if start + sizes[root] <= low:
                break
            start = max(start, high)
        placed[root] = start
    return placed


def _order_copies(copies: list[StateCopy]) -> tuple[StateCopy, ...]:
    """Orders moves so that none overwrites what another has still to read."""
    ordered: list[StateCopy] = []
    waiting = list(copies)
    while waiting:
        free = [
            copy
            for copy in waiting
            if not any(_overlaps(copy, other) for other in waiting if other is not copy)
        ]
        if not free:
            raise ValueError(
                "States must not be exchanged in a circle. "
                f"Received {len(waiting)} states that each overwrite another. "
                "Build the step graph so that every state has a tensor of its own."
            )
        ordered.append(free[0])
        waiting.remove(free[0])
    return tuple(ordered)


def _overlaps(copy: StateCopy, other: StateCopy) -> bool:
    """Whether the target of `copy` overlaps the source of `other`."""
    return (
        copy.target < other.source + other.num_bytes and other.source < copy.target + copy.num_bytes
    )
