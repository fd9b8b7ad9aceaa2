# SPDX-License-Identifier: Apache-2.0
"""Runs a one-hop student: TFLite Micro (the golden runtime) or TFLite's reference.

This is the only file that imports an interpreter. The default TFLite kernels
(XNNPACK) are here to be timed only: they differ from TFLM by a few steps of the last bit.
"""

import importlib
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.export.manifest import Manifest, read_manifest

RUNTIMES = ("tflm", "tflite")
_TIMED_ONLY = "xnnpack"
# More than any student of this package needs; the manifest holds the true size.
_ARENA_BYTES = 4 * 1024 * 1024


def import_litert(name: str) -> Any:
    """Imports a module of the LiteRT runtime.

    Raises:
        ImportError: If the package is not installed, with the way to get it.
    """
    return _import(f"ai_edge_litert.{name}")


def import_tflm() -> Any:
    """Imports the TFLite Micro interpreter.

    Raises:
        ImportError: If the package is not installed, with the way to get it.
    """
    return _import("tflite_micro").runtime


class StepModel:
    """A quantized one-hop student with its state.

    Args:
        path: `.tflite` file with its manifest beside it.
        runtime: `"tflm"`, `"tflite"` (reference kernels) or, to time it, `"xnnpack"`.

    Raises:
        FileNotFoundError: If the model or its manifest is missing.
        ValueError: If they do not belong together, or the runtime is unknown.
        ImportError: If the runtime is not installed.
    """

    def __init__(self, path: str | Path, runtime: str = "tflm"):
        if runtime not in (*RUNTIMES, _TIMED_ONLY):
            raise ValueError(
                f"`runtime` must be one of {RUNTIMES}. Received {runtime!r}. Use 'tflm'."
            )
        self.manifest: Manifest = read_manifest(path)
        content = Path(path).read_bytes()
        self._inputs = self.manifest.inputs
        self._outputs = self.manifest.outputs
        self._invoke = (
            _open_tflm(content, len(self._outputs))
            if runtime == "tflm"
            else _open_tflite(content, is_reference=runtime == "tflite")
        )
        self._zero_states = [
            np.full(tensor["shape"], tensor["zero_point"], tensor["dtype"])
            for tensor in self._inputs
        ]
        positions = {tensor["name"]: index for index, tensor in enumerate(self._outputs)}
        self._mask_position = positions["mask"]
        self._state_positions = {
            index: positions[f"next_{tensor['name']}"]
            for index, tensor in enumerate(self._inputs)
            if tensor["name"] != "features"
        }
        self._features_position = next(
            index for index, tensor in enumerate(self._inputs) if tensor["name"] == "features"
        )
        self.reset()

    def reset(self) -> None:
        """Forgets the past: every state is the quantized zero again."""
        self._values = [value.copy() for value in self._zero_states]

    def step_quantized(self, features: np.ndarray) -> np.ndarray:
        """Runs one hop on quantized values.

        Args:
            features: Integers of the model's type, shape `(E,)`.

        Returns:
            Mask as integers, shape `(E,)`.
        """
        position = self._features_position
        self._values[position] = features.reshape(self._zero_states[position].shape)
        outputs = self._invoke(self._values)
        for position, output in self._state_positions.items():
            self._values[position] = outputs[output]
        return outputs[self._mask_position].ravel()

    def quantize(self, features: np.ndarray) -> np.ndarray:
        """Quantizes features `(..., E)`, ties to even, saturating."""
        tensor = self._inputs[self._features_position]
        limits = np.iinfo(tensor["dtype"])
        codes = np.rint(features / np.float32(tensor["scale"])) + tensor["zero_point"]
        return np.clip(codes, limits.min, limits.max).astype(tensor["dtype"])

    def gains(self, features: np.ndarray) -> np.ndarray:
        """Runs consecutive hops, carrying the state.

        Args:
            features: Features, float32, shape `(T, E)`.

        Returns:
            Mask, float32, shape `(T, E)`.
        """
        codes = [self.step_quantized(frame) for frame in self.quantize(features)]
        return self.dequantize_mask(np.array(codes).reshape(features.shape))

    def dequantize_mask(self, codes: np.ndarray) -> np.ndarray:
        """Returns the gains, float32, of a mask as integers."""
        tensor = self._outputs[self._mask_position]
        steps = np.asarray(codes, np.float32) - np.float32(tensor["zero_point"])
        return steps * np.float32(tensor["scale"])

    @property
    def states(self) -> dict[str, np.ndarray]:
        """What the next hop starts from, by the name of the input."""
        return {self._inputs[i]["name"]: self._values[i].copy() for i in self._state_positions}


def _open_tflm(content: bytes, num_outputs: int) -> Any:
    interpreter = import_tflm().Interpreter.from_bytes(content, arena_size=_ARENA_BYTES)

    def invoke(values: list[np.ndarray]) -> list[np.ndarray]:
        for index, value in enumerate(values):
            interpreter.set_input(value, index)
        interpreter.invoke()
        return [interpreter.get_output(index) for index in range(num_outputs)]

    return invoke


def _open_tflite(content: bytes, *, is_reference: bool) -> Any:
    litert = import_litert("interpreter")
    kinds = litert.OpResolverType
    resolver = kinds.BUILTIN_REF if is_reference else kinds.AUTO
    interpreter = litert.Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    inputs = [detail["index"] for detail in interpreter.get_input_details()]
    outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def invoke(values: list[np.ndarray]) -> list[np.ndarray]:
        for index, value in zip(inputs, values, strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return invoke


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This step needs {module}, which the extra `micro` installs on Linux x86-64 only. "
            f"Received an import error on {sys.platform} {platform.machine()} ({error}). "
            "Install lmkd-tf[micro] there; to enhance elsewhere, use --backend=keras."
        ) from error
