# SPDX-License-Identifier: Apache-2.0
"""Small int8 graphs built directly as flatbuffers: any operator, with any scales."""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

from lmkd_tf.export.interpreter import import_litert, import_tflm

S: Any = import_litert("schema_py_generated")
INT8_RANGE = (-128, 127)


class GraphBuilder:
    """Collects tensors and operators of one graph.

    Args:
        seed: Seed of everything that is drawn.
    """

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.model, self.graph = S.ModelT(), S.SubGraphT()
        self.model.version = 3
        self.model.buffers = [S.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], [self.graph]
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []

    def tensor(
        self,
        shape: Sequence[int],
        scale: float | Sequence[float] = 0.05,
        zero_point: int = 0,
        data: np.ndarray | None = None,
        axis: int = 0,
    ) -> int:
        """Adds a tensor, int8 unless `data` says otherwise; returns its index."""
        tensor = S.TensorT()
        tensor.shape, tensor.name = list(shape), f"t{len(self.graph.tensors)}"
        types = {"int8": S.TensorType.INT8, "int32": S.TensorType.INT32}
        tensor.type = S.TensorType.INT8 if data is None else types[str(data.dtype)]
        tensor.buffer = 0
        if data is not None:
            buffer = S.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        scales = [scale] if isinstance(scale, int | float) else list(scale)
        if scales != [0.0]:
            tensor.quantization = S.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = [zero_point] * len(scales)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values: Any) -> int:
        """Adds an int32 constant such as a shape or an axis."""
        data = np.asarray(values, np.int32)
        return self.tensor(data.shape, 0.0, data=data)

    def input(self, shape: Sequence[int], scale: float = 0.05, zero_point: int = 0) -> int:
        """Adds an input of the graph."""
        index = self.tensor(shape, scale, zero_point)
        self.graph.inputs.append(index)
        return index

    def weights(self, shape: Sequence[int], axis: int, per_channel: bool = True) -> int:
        """Adds random weights with their scales."""
        data = self.rng.integers(-127, 128, shape).astype(np.int8)
        count = shape[axis] if per_channel else 1
        scales = (0.002 + 0.01 * self.rng.random(count)).tolist()
        return self.tensor(shape, scales, data=data, axis=axis)

    def bias(self, count: int, scale: float = 1e-4) -> int:
        """Adds a random bias."""
        data = self.rng.integers(-3000, 3000, count).astype(np.int32)
        return self.tensor([count], scale, data=data)

    def operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None
    ) -> None:
        """Adds an operator; `options` is an object of the schema, its class ends in `T`."""
        code = S.OperatorCodeT()
        code.builtinCode = getattr(S.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        self.model.operatorCodes.append(code)
        operator = S.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(S.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.graph.operators.append(operator)

    def finish(self, *outputs: int) -> bytes:
        """Returns the file, with these outputs."""
        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(4096)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def options(kind: str, **values: Any) -> Any:
    """Returns options of the schema, such as `options("Conv2D", strideH=2)`."""
    made = getattr(S, f"{kind}OptionsT")()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def run_in_tflm(content: bytes, inputs: Sequence[np.ndarray], num_outputs: int) -> list[np.ndarray]:
    """Runs one inference in the interpreter of the pinned wheel."""
    interpreter = import_tflm().Interpreter.from_bytes(content, arena_size=2**20)
    for index, value in enumerate(inputs):
        interpreter.set_input(value, index)
    interpreter.invoke()
    return [interpreter.get_output(index) for index in range(num_outputs)]
