# SPDX-License-Identifier: Apache-2.0
"""Reads a `.tflite` file as data: tensors, operators, work."""

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.export.interpreter import import_litert


@dataclass(frozen=True)
class Tensor:
    """One tensor of the main graph.

    Args:
        name: Name in the signature for inputs and outputs, else in the graph.
        shape: Shape, unitless.
        dtype: `"int8"`, `"int16"`, `"int32"`, `"int64"`, `"float32"`, ...
        scale: Quantization step (first channel), 0 if not quantized.
        zero_point: Quantized value of zero.
        is_constant: Whether the file holds its values.
        is_static: Whether every size is fixed.
        is_variable: Whether it keeps its value between invocations.
        scales: Quantization steps, one per channel or one in all; empty if not quantized.
        is_saturated: Whether a constant of int32 holds the largest or smallest number there is.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    is_constant: bool
    is_static: bool = True
    is_variable: bool = False
    scales: tuple[float, ...] = ()
    is_saturated: bool = False


@dataclass(frozen=True)
class Node:
    """One operator of a graph.

    Args:
        name: Name in the schema, such as `"CONV_2D"`.
        inputs: Tensors it reads, absent ones left out.
        outputs: Tensors it writes.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Graph:
    """The main graph of a `.tflite` file.

    Args:
        tensors: All tensors.
        inputs: Input tensors in the order of the interpreter.
        outputs: Output tensors in the order of the interpreter.
        nodes: Operators in order of execution.
        macs: Multiply-accumulate operations of one invocation.
        num_graphs: Graphs in the file; the others are bodies of loops and branches.
        metadata: Content of the entries of the file's metadata, by name.
    """

    tensors: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    macs: int
    num_graphs: int = 1
    metadata: dict[str, bytes] = field(default_factory=dict)

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of the operators in order of execution."""
        return tuple(node.name for node in self.nodes)

    @property
    def num_parameters(self) -> int:
        """Weights and biases stored in the file (shapes and indices left out)."""
        stored = [t for t in self.tensors if t.is_constant and t.scale]
        return sum(prod(t.shape) for t in stored)

    @property
    def operator_counts(self) -> dict[str, int]:
        """Number of uses of each operator, by name."""
        return dict(sorted(Counter(self.operators).items()))


def read_graph(path: str | Path) -> Graph:
    """Reads the main graph of a `.tflite` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a `.tflite` model.
    """
    content = read_model_bytes(path)
    schema = import_litert("schema_py_generated")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        graph = model.subgraphs[0]
        return _read_main_graph(schema, model, graph)
    except Exception as error:  # a damaged flatbuffer fails in many ways
        raise ValueError(
            f"The file must hold a .tflite model. Received {path}, which is damaged ({error}). "
            "Export the student again."
        ) from error


def _read_main_graph(schema: Any, model: Any, graph: Any) -> Graph:
    names = _signature_names(model)
    types = {value: name.lower() for name, value in vars(schema.TensorType).items()}
    tensors = tuple(
        _read_tensor(tensor, names.get(index), types, model.buffers)
        for index, tensor in enumerate(graph.tensors)
    )
    codes = _operator_names(schema, model)
    nodes = tuple(
        Node(
            codes[operator.opcodeIndex],
            tuple(tensors[index] for index in operator.inputs if index >= 0),
            tuple(tensors[index] for index in operator.outputs),
        )
        for operator in graph.operators
    )
    return Graph(
        tensors=tensors,
        inputs=tuple(tensors[index] for index in graph.inputs),
        outputs=tuple(tensors[index] for index in graph.outputs),
        nodes=nodes,
        macs=sum(_macs(node) for node in nodes),
        num_graphs=len(model.subgraphs),
        metadata={
            entry.name.decode(): bytes(bytearray(model.buffers[entry.buffer].data))
            for entry in model.metadata or []
            if model.buffers[entry.buffer].data is not None
        },
    )


def read_model_bytes(path: str | Path) -> bytes:
    """Reads a `.tflite` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not start as a `.tflite` file does.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"A .tflite model is needed. Received {path}, which does not exist. "
            "Check the path or run lmkd-export first."
        )
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError(
            "The file must hold a .tflite model. "
            f"Received {path} ({len(content)} bytes), which is not one. Export the student again."
        )
    return content


def _signature_names(model: Any) -> dict[int, str]:
    names = {}
    for signature in model.signatureDefs or []:
        for entry in [*signature.inputs, *signature.outputs]:
            # tfmot puts "quant_" before the name of every layer.
            names[entry.tensorIndex] = entry.name.decode().removeprefix("quant_")
    return names


def _read_tensor(tensor: Any, name: str | None, types: dict[int, str], buffers: Any) -> Tensor:
    scales, zero_point = _quantization(tensor.quantization)
    data = buffers[tensor.buffer].data
    signature = tensor.shapeSignature
    return Tensor(
        name=name or tensor.name.decode(),
        shape=tuple(int(size) for size in tensor.shape) if tensor.shape is not None else (),
        dtype=types[tensor.type],
        scale=scales[0] if scales else 0.0,
        zero_point=zero_point,
        is_constant=data is not None and len(data) > 0,
        is_static=signature is None or all(size >= 0 for size in signature),
        is_variable=bool(tensor.isVariable),
        scales=scales,
        is_saturated=bool(scales) and types[tensor.type] == "int32" and _is_saturated(data),
    )


def _is_saturated(data: Any) -> bool:
    if data is None or not len(data):
        return False
    values = np.frombuffer(bytes(bytearray(data)), np.int32)
    return bool(np.isin(values, [-(2**31), 2**31 - 1]).any())


def _quantization(quantization: Any) -> tuple[tuple[float, ...], int]:
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return (), 0
    zeros = quantization.zeroPoint
    first_zero = int(zeros[0]) if zeros is not None and len(zeros) else 0
    return tuple(float(scale) for scale in quantization.scale), first_zero


def _operator_names(schema: Any, model: Any) -> list[str]:
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [names[code] for code in codes]


def _macs(node: Node) -> int:
    if node.name == "TRANSPOSE_CONV":  # every input meets every tap; the strides only place it
        kernel, source = node.inputs[1].shape, node.inputs[2].shape
        return prod(source) * prod(kernel[:3])
    if node.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    kernel = node.inputs[1].shape
    output = node.outputs[0].shape
    per_output = prod(kernel[1:3]) if node.name == "DEPTHWISE_CONV_2D" else prod(kernel[1:])
    return prod(output) * per_output
