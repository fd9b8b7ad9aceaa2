# SPDX-License-Identifier: Apache-2.0
"""What computes the mask: Keras, TFLite's reference kernels, TFLite Micro or the firmware."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lmkd_tf.evaluate.streaming import Backend
from lmkd_tf.export.interpreter import StepModel
from lmkd_tf.export.manifest import manifest_path, read_manifest
from lmkd_tf.firmware.host import HostFirmware

BACKENDS = ("keras", "tflite", "tflm", "firmware")


class KerasBackend:
    """Runs the step graph of a float network, hop by hop, with its state.

    Every hop is the same computation, so its result does not depend on how many are asked
    for at once.

    Args:
        model: `SpeechEnhancer` that can stream.

    Raises:
        ValueError: If the model has no step graph.
    """

    name = "keras"

    def __init__(self, model: Any):
        self.stft = model.stft
        self.num_bands = model.num_bands
        step = model.step_graph()
        self._run = _compiled(step)
        self._zero_states = [np.zeros(tensor.shape, np.float32) for tensor in step.inputs[1:]]
        self.reset()

    def reset(self) -> None:
        """Forgets the past."""
        self._states = self._zero_states

    def gains(self, features: np.ndarray) -> np.ndarray:
        """Returns the mask `(T, E)` for features `(T, E)`, carrying the state."""
        masks = np.empty_like(features)
        for index, frame in enumerate(features):
            mask, *self._states = self._run(frame[None, None, None], *self._states)
            masks[index] = np.asarray(mask).ravel()
        return masks


def _compiled(step: Any) -> Callable[..., Any]:
    """Returns a function of features and states that computes mask and next states."""

    def run(*values: Any) -> Any:
        return step(list(values), training=False)

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(run)
    import tensorflow as tf

    return tf.function(run)


class StepBackend:
    """Runs a quantized one-hop student.

    Args:
        model_path: `.tflite` file with its manifest beside it.
        runtime: `"tflite"` or `"tflm"`.
    """

    def __init__(self, model_path: str | Path, runtime: str):
        self._step = StepModel(model_path, runtime)
        self.name = runtime
        self.stft = self._step.manifest.stft_config
        self.num_bands = self._step.manifest.num_bands
        self.reset = self._step.reset
        self.gains = self._step.gains


class FirmwareBackend:
    """Runs the C firmware, compiled for this machine, in a second process.

    `gains` runs its network; `process_hops` the whole of it, transforms included, which is
    what enhances audio.

    Args:
        model_path: int8 `.tflite` file with its manifest beside it.
    """

    name = "firmware"

    def __init__(self, model_path: str | Path):
        manifest = read_manifest(model_path)
        self.stft = manifest.stft_config
        self.num_bands = manifest.num_bands
        firmware = HostFirmware(manifest_path(model_path))
        self.reset = firmware.reset
        self.gains = firmware.gains
        self.process_hops = firmware.process_hops
        self.set_attenuation_limit = firmware.set_attenuation_limit
        self.set_bypass = firmware.set_bypass


def open_backend(kind: str, model_path: str | Path) -> Backend:
    """Opens a model on a back-end.

    Args:
        kind: `"keras"` for a `.keras` file, `"tflite"`, `"tflm"` or `"firmware"` for a
            `.tflite`.
        model_path: Model file.

    Returns:
        Object with `stft`, `num_bands`, `name`, `reset()` and `gains(features)`.

    Raises:
        ValueError: If the back-end is unknown or does not fit the file.
        FileNotFoundError: If there is no such file.
    """
    if kind not in BACKENDS:
        raise ValueError(
            f"`backend` must be one of {', '.join(BACKENDS)}. Received {kind!r}. Use tflm."
        )
    wanted = ".keras" if kind == "keras" else ".tflite"
    if Path(model_path).suffix != wanted:
        raise ValueError(
            f"The back-end {kind} needs a {wanted} file. Received {model_path}. "
            "Choose another --backend or another model."
        )
    if kind == "firmware":
        return FirmwareBackend(model_path)
    if kind != "keras":
        return StepBackend(model_path, kind)
    from lmkd_tf.models.enhancer import load_enhancer

    return keras_backend(load_enhancer(model_path))


def keras_backend(model: Any) -> Backend:
    """Wraps a float network as a back-end.

    Raises:
        ValueError: If the model has no step graph.
    """
    return KerasBackend(model)
