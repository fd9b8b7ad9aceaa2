# SPDX-License-Identifier: Apache-2.0
"""Reads a `.tflite` file as data: tensors, operators, work."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

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
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    is_constant: bool


@dataclass(frozen=True)
class Graph:
    """The main graph of a `.tflite` file.

    Args:
        tensors: All tensors.
        inputs: Input tensors in the order of the interpreter.
        outputs: Output tensors in the order of the interpreter.
        operators: Names of the operators in order of execution.
        macs: Multiply-accumulate operations of one invocation.
    """

    tensors: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[str, ...]
    macs: int

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
    content = _read_model_bytes(Path(path))
    schema = import_litert("schema_py_generated")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        graph = model.subgraphs[0]
    except Exception as error:  # a damaged flatbuffer fails in many ways
        raise ValueError(
            f"The file must hold a .tflite model. Received {path}, which is damaged ({error}). "
            "Export the student again."
        ) from error
    names = _signature_names(model)
    types = {value: name.lower() for name, value in vars(schema.TensorType).items()}
    tensors = tuple(
        _read_tensor(tensor, names.get(index), types, model.buffers)
        for index, tensor in enumerate(graph.tensors)
    )
    codes = _operator_names(schema, model)
    return Graph(
        tensors=tensors,
        inputs=tuple(tensors[index] for index in graph.inputs),
        outputs=tuple(tensors[index] for index in graph.outputs),
        operators=tuple(codes[operator.opcodeIndex] for operator in graph.operators),
        macs=sum(_macs(codes[op.opcodeIndex], op, tensors) for op in graph.operators),
    )


def _read_model_bytes(path: Path) -> bytes:
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
    scale, zero_point = _first_channel(tensor.quantization)
    data = buffers[tensor.buffer].data
    return Tensor(
        name=name or tensor.name.decode(),
        shape=tuple(int(size) for size in tensor.shape) if tensor.shape is not None else (),
        dtype=types[tensor.type],
        scale=scale,
        zero_point=zero_point,
        is_constant=data is not None and len(data) > 0,
    )


def _first_channel(quantization: Any) -> tuple[float, int]:
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return 0.0, 0
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])


def _operator_names(schema: Any, model: Any) -> list[str]:
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [names[code] for code in codes]


def _macs(name: str, operator: Any, tensors: tuple[Tensor, ...]) -> int:
    if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    kernel = tensors[operator.inputs[1]].shape
    output = tensors[operator.outputs[0]].shape
    per_output = prod(kernel[1:3]) if name == "DEPTHWISE_CONV_2D" else prod(kernel[1:])
    return prod(output) * per_output
