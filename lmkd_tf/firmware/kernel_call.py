# SPDX-License-Identifier: Apache-2.0
"""What the lowering of every operator shares: constants, calls, addresses and axes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmkd_tf.firmware.fixed_point import activation_range
from lmkd_tf.firmware.graph import GraphOperator, GraphTensor
from lmkd_tf.firmware.memory_plan import Slice

BYTES_PER_WORD = 4
MAX_AXES = 4
_ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
# Constant structure of an operator, and its statements.
Kernel = tuple[str, list[str]]


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
        statements: C statements; none where the result lies in place already.
    """

    position: int
    comment: str
    declaration: str
    statements: tuple[str, ...]


class Place:
    """One operator with what its kernel needs to know.

    Args:
        operator: Operator of the graph.
        tensors: All tensors of the graph, by index.
        slices: What each output of a slicing operator selects, by tensor.
        image: Constants of the model; kernels add theirs.
        address: Function from a tensor's index to a C expression for its first byte.
        scratch: C expression for the operator's scratch.
    """

    def __init__(
        self,
        operator: GraphOperator,
        tensors: Sequence[GraphTensor] | Mapping[int, GraphTensor],
        slices: Mapping[int, Slice],
        image: Image,
        address: Callable[[int], str],
        scratch: str,
    ):
        self.operator, self.slices, self.image = operator, slices, image
        self.address, self.scratch = address, scratch
        self.inputs = [tensors[i] if i >= 0 else None for i in operator.inputs]
        self.outputs = [tensors[i] for i in operator.outputs]
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


def round_up(value: int, multiple: int) -> int:
    """Returns the next multiple, or the value where it is one.

    Example:
        >>> round_up(5, 4), round_up(8, 4)
        (8, 8)
    """
    return -(-value // multiple) * multiple


def structure(kind: str, name: str, fields: Iterable[tuple[str, Any]]) -> str:
    """Returns the declaration of a constant structure in C.

    Example:
        >>> structure("box", "prv_box", [("width", 3)]).split()
        ['static', 'const', 'struct', 'box', 'prv_box', '=', '{', '.width', '=', '3,', '};']
    """
    lines = "".join(f"    .{key} = {value},\n" for key, value in fields)
    return f"static const struct {kind} {name} = {{\n{lines}}};\n"


def at(pointer: str, offset: int) -> str:
    """Returns a C expression `offset` bytes behind another."""
    return f"{pointer} + {offset}" if offset else pointer


def address_of(pointer: str) -> tuple[str, int]:
    """Returns base and offset of an expression `base + number + number`.

    Example:
        >>> address_of("memory + 32 + 4")
        ('memory', 36)
    """
    base, *numbers = pointer.split(" + ")
    return base, sum(map(int, numbers))


def merged_axes(place: Place, axes: Iterable[Sequence[int]]) -> list[list[int]]:
    """Merges neighboring axes that two layouts walk alike.

    Args:
        place: Operator, to be named where there are too many axes.
        axes: Count, first stride and second stride of each axis, the last one fastest.

    Returns:
        `MAX_AXES` axes, filled up with axes of one element in front.

    Raises:
        ValueError: If more axes are left.
    """
    merged: list[list[int]] = []
    for axis in map(list, axes):
        if axis[0] == 1:
            continue
        if merged and all(merged[-1][k] == axis[0] * axis[k] for k in (1, 2)):
            merged[-1] = [merged[-1][0] * axis[0], *axis[1:]]
        else:
            merged.append(axis)
    if len(merged) > MAX_AXES:
        raise ValueError(
            f"The kernels must be able to walk a tensor along {MAX_AXES} axes. "
            f"Received {len(merged)} at {place.operator.name} {place.operator.position}. "
            "Reshape the tensor to fewer axes."
        )
    return [[1, 0, 0]] * (MAX_AXES - len(merged)) + merged


def axis_fields(names: Sequence[str], axes: Sequence[Sequence[int]]) -> list[tuple[str, str]]:
    """Returns fields of a structure that hold counts and both strides of `merged_axes`."""
    return [
        (name, f"{{{', '.join(str(axis[k]) for axis in axes)}}}") for k, name in enumerate(names)
    ]
