# SPDX-License-Identifier: Apache-2.0
"""What computes the mask: Keras, TFLite's reference kernels, TFLite Micro or the firmware."""

from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.evaluate.streaming import Backend
from lmkd_tf.export.interpreter import StepModel
from lmkd_tf.export.manifest import manifest_path, read_manifest
from lmkd_tf.firmware.host import HostFirmware

BACKENDS = ("keras", "tflite", "tflm", "firmware")


class KerasBackend:
    """Runs a float student on blocks of frames, with the past frames it depends on.

    The network has a finite memory, so the newest frames are exact when the frames
    of its receptive field stand before them; at the start there are fewer, and the
    network's own zero padding is what the whole utterance would have had.

    Args:
        model: `SpeechEnhancer`.
        memory_frames: Frames before the newest that its output depends on.
    """

    name = "keras"

    def __init__(self, model: Any, memory_frames: int):
        self.stft = model.stft
        self.num_bands = model.num_bands
        self._core = model.core
        self._memory_frames = memory_frames
        self.reset()

    def reset(self) -> None:
        """Forgets the past."""
        self._past = np.zeros((0, self.num_bands), np.float32)

    def gains(self, features: np.ndarray) -> np.ndarray:
        """Returns the mask `(T, E)` for features `(T, E)`, carrying the state."""
        frames = np.concatenate([self._past, features])
        self._past = frames[max(0, len(frames) - self._memory_frames) :]
        mask = self._core(frames[None, :, None], training=False)
        return np.asarray(mask)[0, len(frames) - len(features) :, 0]


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
    """Wraps a float student as a back-end."""
    return KerasBackend(model, model.memory_frames)
