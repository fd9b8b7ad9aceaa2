# SPDX-License-Identifier: Apache-2.0
"""Reads an int8 `.tflite` graph with its constants, as the ahead-of-time generator needs it."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.export.interpreter import import_litert

_DTYPES = {
    "FLOAT32": np.float32,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class GraphTensor:
    """One tensor with its quantization and, where constant, its values.

    Args:
        index: Position in the graph.
        name: Name in the graph.
        shape: Shape, unitless.
        dtype: Name in the schema, such as `"INT8"`.
        scales: Quantization steps, one per channel or one in all; empty if not quantized.
        zero_point: Quantized value of zero.
        data: Values of a constant, else None.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_point: int
    data: np.ndarray | None

    @property
    def size(self) -> int:
        """Number of elements; one byte each in an int8 tensor."""
        return prod(self.shape)

    @property
    def scale(self) -> float:
        """The quantization step of a tensor with one."""
        return self.scales[0] if self.scales else 0.0

    @property
    def values(self) -> np.ndarray:
        """Values of a constant.

        Raises:
            ValueError: If the tensor is not a constant.
        """
        if self.data is None:
            raise ValueError(
                "This operand must be a constant of the model. "
                f"Received {self.name!r}, which is computed. Export the student with it fixed."
            )
        return self.data


@dataclass(frozen=True)
class GraphOperator:
    """One operator.

    Args:
        position: Place in the order of execution.
        name: Name in the schema, such as `"CONV_2D"`.
        inputs: Tensor indices; -1 for an absent optional one.
        outputs: Tensor indices.
        options: Built-in options as the schema has them, or None.
    """

    position: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True)
class QuantizedGraph:
    """The main graph of a `.tflite` file.

    Args:
        tensors: All tensors, by index.
        operators: Operators in order of execution.
        inputs: Indices of the inputs, in the order of the interpreter.
        outputs: Indices of the outputs, in the order of the interpreter.
    """

    tensors: tuple[GraphTensor, ...]
    operators: tuple[GraphOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_quantized_graph(path: str | Path) -> QuantizedGraph:
    """Reads the main graph of a `.tflite` file with its constants.

    Args:
        path: `.tflite` file.

    Returns:
        The graph.

    Raises:
        ValueError: If the file is no `.tflite` model.
    """
    schema = import_litert("schema_py_generated")
    content = Path(path).read_bytes()
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        graph = model.subgraphs[0]
    except Exception as error:  # a damaged flatbuffer fails in many ways
        raise ValueError(
            f"The file must hold a .tflite model. Received {path}, which is damaged ({error}). "
            "Export the student again."
        ) from error
    types = {value: name for name, value in vars(schema.TensorType).items()}
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return QuantizedGraph(
        tensors=tuple(
            _tensor(index, tensor, types[tensor.type], model.buffers)
            for index, tensor in enumerate(graph.tensors)
        ),
        operators=tuple(
            GraphOperator(
                position=position,
                name=names[codes[operator.opcodeIndex]],
                inputs=tuple(int(i) for i in operator.inputs),
                outputs=tuple(int(i) for i in operator.outputs),
                options=operator.builtinOptions,
            )
            for position, operator in enumerate(graph.operators)
        ),
        inputs=tuple(int(i) for i in graph.inputs),
        outputs=tuple(int(i) for i in graph.outputs),
    )


def _tensor(index: int, tensor: Any, dtype: str, buffers: Any) -> GraphTensor:
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    scales, zero_point = _quantization(tensor.quantization)
    content = buffers[tensor.buffer].data
    data = None
    if content is not None and len(content) and dtype in _DTYPES:
        data = np.frombuffer(bytes(bytearray(content)), _DTYPES[dtype]).reshape(shape)
    return GraphTensor(
        index=index,
        name=tensor.name.decode() if tensor.name else f"tensor_{index}",
        shape=shape,
        dtype=dtype,
        scales=scales,
        zero_point=zero_point,
        data=data,
    )


def _quantization(quantization: Any) -> tuple[tuple[float, ...], int]:
    if quantization is None or quantization.scale is None:
        return (), 0
    zeros = quantization.zeroPoint
    scales = tuple(float(np.float32(scale)) for scale in quantization.scale)
    return scales, int(zeros[0]) if zeros is not None and len(zeros) else 0
