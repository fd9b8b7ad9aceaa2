# SPDX-License-Identifier: Apache-2.0
"""Operators that only move bytes: slices, joins, padding, transposition."""

from collections.abc import Sequence

from lmkd_tf.firmware.graph import GraphOperator, QuantizedGraph
from lmkd_tf.firmware.kernel_call import (
    Kernel,
    Place,
    address_of,
    at,
    axis_fields,
    merged_axes,
    structure,
)
from lmkd_tf.firmware.memory_plan import Slice, row_major_strides


def _copy(
    place: Place, name: str, shape: Sequence[int], steps: Sequence[Sequence[int]]
) -> tuple[str, str]:
    """Structure and call of a copy of a box; `steps` are the strides of source and target."""
    axes = merged_axes(place, zip(shape, *steps, strict=True))
    fields = axis_fields(("counts", "source_strides", "target_strides"), axes)
    return structure("lmkd_nn_copy", name, fields), f"lmkd_nn_copy(&{name}, "


def lower_slice(place: Place) -> Kernel:
    """Lowers a slice or a split; what is a view of its input needs no call."""
    declarations, statements = "", []
    data_input = 1 if place.operator.name == "SPLIT" else 0
    source = place.source(data_input)
    strides = row_major_strides(source.shape)
    for number, output in enumerate(place.outputs):
        part = place.slices[output.index]
        start = sum(a * b for a, b in zip(part.starts, strides, strict=True))
        pointers = at(place.pointer(source), start), place.pointer(output)
        if address_of(pointers[0]) == address_of(pointers[1]):
            continue  # a view: read where it lies
        name = f"{place.name}_{number}"
        steps = [a * b for a, b in zip(part.steps, strides, strict=True)]
        box, call = _copy(place, name, part.shape, (steps, row_major_strides(part.shape)))
        declarations += box
        statements.append(f"{call}{pointers[0]}, {pointers[1]});")
    return declarations, statements


def lower_concatenation(place: Place) -> Kernel:
    """Lowers a join; what was computed in its place needs no call."""
    output = place.outputs[0]
    axis = place.operator.options.axis % len(output.shape)
    strides = row_major_strides(output.shape)
    declarations, statements, start = "", [], 0
    for number in range(len(place.inputs)):
        source = place.source(number)
        target = at(place.pointer(output), start * strides[axis])
        start += source.shape[axis]
        pointer = place.pointer(source)
        if address_of(pointer) == address_of(target):
            continue  # computed in its place
        name = f"{place.name}_{number}"
        box, call = _copy(place, name, source.shape, (row_major_strides(source.shape), strides))
        declarations += box
        statements.append(f"{call}{pointer}, {target});")
    return declarations, statements


def lower_pad(place: Place) -> Kernel:
    """Lowers padding."""
    source, output = place.source(0), place.outputs[0]
    before = place.source(1).values.reshape(-1, 2)[:, 0]
    strides = row_major_strides(output.shape)
    start = int(sum(int(a) * b for a, b in zip(before, strides, strict=True)))
    value = output.zero_point
    if place.operator.name == "PADV2":
        value = int(place.source(2).values.ravel()[0])
    steps = (row_major_strides(source.shape), strides)
    box, call = _copy(place, place.name, source.shape, steps)
    target = place.pointer(output)
    return box, [
        f"lmkd_nn_fill({target}, {value}, {output.size});",
        f"{call}{place.pointer(source)}, {at(target, start)});",
    ]


def lower_transpose(place: Place) -> Kernel:
    """Lowers a change of the order of axes."""
    source, output = place.source(0), place.outputs[0]
    order = [int(axis) for axis in place.source(1).values.ravel()]
    strides = row_major_strides(source.shape)
    steps = ([strides[axis] for axis in order], row_major_strides(output.shape))
    box, call = _copy(place, place.name, output.shape, steps)
    return box, [f"{call}{place.pointer(source)}, {place.pointer(output)});"]


def lower_alias(place: Place) -> Kernel:
    """Lowers what only renames axes."""
    del place
    return "", []


def find_slices(graph: QuantizedGraph, operator: GraphOperator) -> dict[int, Slice]:
    """Returns what each output of an operator selects of its input, by tensor.

    Args:
        graph: Graph of the operator.
        operator: Any operator; one that does not slice gives nothing.

    Raises:
        ValueError: If a strided slice makes new axes or leaves axes out.
    """
    if operator.name in ("SPLIT", "SPLIT_V"):
        return _split(graph, operator)
    if operator.name == "SLICE":
        return {operator.outputs[0]: _plain_slice(graph, operator)}
    if operator.name == "STRIDED_SLICE":
        return {operator.outputs[0]: _strided_slice(graph, operator)}
    return {}


def _split(graph: QuantizedGraph, operator: GraphOperator) -> dict[int, Slice]:
    is_even = operator.name == "SPLIT"
    source = graph.tensors[operator.inputs[1 if is_even else 0]]
    chosen = graph.tensors[operator.inputs[0 if is_even else 2]].values
    axis = int(chosen.ravel()[0]) % len(source.shape)
    slices, start = {}, 0
    for index in operator.outputs:
        shape = graph.tensors[index].shape
        starts = tuple(start if k == axis else 0 for k in range(len(shape)))
        slices[index] = Slice(starts, (1,) * len(shape), shape)
        start += shape[axis]
    return slices


def _plain_slice(graph: QuantizedGraph, operator: GraphOperator) -> Slice:
    starts = graph.tensors[operator.inputs[1]].values.ravel()
    shape = graph.tensors[operator.outputs[0]].shape
    return Slice(tuple(int(s) for s in starts), (1,) * len(shape), shape)


def _strided_slice(graph: QuantizedGraph, operator: GraphOperator) -> Slice:
    """Reads begin, end and steps with their masks, as NumPy's slices."""
    source = graph.tensors[operator.inputs[0]]
    begin, end, steps = (graph.tensors[i].values.ravel() for i in operator.inputs[1:4])
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
