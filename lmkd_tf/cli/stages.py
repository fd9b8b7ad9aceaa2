# SPDX-License-Identifier: Apache-2.0
"""The stages that compress and export, each from a configuration and a folder to files."""

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lmkd_tf.cli.train_stages import Audio, build_network, compiled_distiller, save_model
from lmkd_tf.cli.training import fit_stage
from lmkd_tf.compress.pruning import PruningStep, kernel_sparsity, prune, strip_pruning
from lmkd_tf.compress.quantization import calibrate_ranges, quantize
from lmkd_tf.compress.twin import make_twin
from lmkd_tf.config.files import atomic_path, write_json
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig
from lmkd_tf.export.manifest import manifest_path
from lmkd_tf.export.tflite import export_int8, export_int16
from lmkd_tf.firmware.generate import generate
from lmkd_tf.models import SpeechEnhancer
from lmkd_tf.models.builder import build_core
from lmkd_tf.models.enhancer import load_enhancer


@dataclass(frozen=True)
class Inputs:
    """What the compression stages start from.

    Args:
        teacher: Trained teacher.
        student: Student of the stage before.
        projectors: `projectors.npz` of the distillation.
    """

    teacher: Any
    student: Any
    projectors: Path


def core_builder(model: ModelConfig) -> Callable[..., Any]:
    """Returns the builder of a network's core (see `lmkd_tf.compress.twin`)."""
    return functools.partial(build_core, model.architecture, **model.size)


def prune_student(
    config: ExperimentConfig, audio: Audio, folder: Path, inputs: Inputs, callbacks: list[Any]
) -> None:
    """Prunes the student under the distiller; `pruned.keras`, `sparsity.json`.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        folder: Where the results go.
        inputs: Networks and projectors to start from.
        callbacks: Callbacks for `fit`, such as progress.
    """
    train = config.compress.pruning
    num_steps = train.epochs * train.steps_per_epoch
    core = make_twin(core_builder(config.student), inputs.student.core)
    pruned = prune(core, sparsity=config.compress.sparsity, num_steps=num_steps)
    callbacks = [PruningStep(pruned), *callbacks]
    _fit_twin(config, audio, folder, inputs, pruned, train, callbacks)
    result = build_network(config.student, config)
    result.core.set_weights(strip_pruning(pruned).get_weights())
    write_json(folder / "sparsity.json", kernel_sparsity(result.core))
    save_model(result, folder / "pruned.keras")


def quantize_student(
    config: ExperimentConfig, audio: Audio, folder: Path, inputs: Inputs, callbacks: list[Any]
) -> None:
    """Trains the pruned student with fake quantization; `quantized.weights.h5`.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        folder: Where the results go.
        inputs: Networks and projectors to start from.
        callbacks: Callbacks for `fit`, such as progress.
    """
    train = config.compress.quantization
    twin = make_twin(core_builder(config.student), inputs.student.core)
    quantized = quantize(twin)
    noisy = (views["first_view"] for views, _ in audio.validation(train))
    calibrate_ranges(quantized, twin, (inputs.student.analyze(batch)[0] for batch in noisy))
    _fit_twin(config, audio, folder, inputs, quantized, train, callbacks)
    write_json(folder / "sparsity.json", kernel_sparsity(quantized))
    _require_room(folder, sum(weight.nbytes for weight in quantized.get_weights()))
    with atomic_path(folder / "quantized.weights.h5") as temporary:
        quantized.save_weights(str(temporary))


def export_student(config: ExperimentConfig, audio: Audio, folder: Path, sources: Path) -> None:
    """Exports int8 and int16 step graphs with manifests, and the C arrays of int8.

    Args:
        config: Resolved configuration.
        audio: Recordings, for the calibration of the int16 graph.
        folder: Where the results go.
        sources: Work directory with the finished stages `pruned` and `quantized`.
    """
    network = {"architecture": config.student.architecture, "size": config.student.size}
    weights = sources / "quantized" / "quantized.weights.h5"
    name = config.student.architecture
    output = folder / f"{name}_int8.tflite"
    export_int8(output, **network, weights=weights, stft=config.stft)
    pruned = load_enhancer(sources / "pruned" / "pruned.keras")
    export_int16(
        folder / f"{name}_int16.tflite",
        **network,
        core=pruned.core,
        calibration=_calibration_features(config, audio, pruned),
        stft=config.stft,
    )
    generate(manifest_path(output), folder / "c")


def _require_room(folder: Path, num_bytes: int) -> None:
    """Refuses to write HDF5 to a disk that is about full, which would crash the process."""
    wanted, free = 4 * num_bytes + 65536, shutil.disk_usage(folder).free
    if free < wanted:
        raise OSError(
            f"The disk must have room for the result. Received {folder} with {free} bytes free, "
            f"{wanted} may be needed. Free some space and run this again."
        )


def _fit_twin(config, audio, folder, inputs, core, train, callbacks) -> None:
    """Fits a wrapped `tf_keras` core under the distiller; it starts over when interrupted."""
    keras.utils.set_random_seed(config.seed)
    student = SpeechEnhancer(core, config.stft)
    distiller = compiled_distiller(config, inputs.teacher, student, train)
    with np.load(inputs.projectors) as stored:
        weights = [stored[name] for name in stored.files]
    for projector in distiller.projectors:
        count = len(projector.weights)
        projector.set_weights(weights[:count])
        weights = weights[count:]
    pairs, callbacks = audio.training(train, 0), [*audio.watchers(train, 0), *callbacks]
    fit_stage(
        distiller, pairs, audio.validation(train), train, folder, callbacks, is_resumable=False
    )


def _calibration_features(
    config: ExperimentConfig, audio: Audio, model: SpeechEnhancer
) -> np.ndarray:
    """Returns features `(T, E)` of consecutive noisy validation frames."""
    frames: list[np.ndarray] = []
    wanted = config.compress.num_calibration_frames
    for views, _ in audio.validation(config.compress.quantization):
        features, _ = model.analyze(views["first_view"])
        frames += list(keras.ops.convert_to_numpy(features)[:, :, 0].reshape(-1, model.num_bands))
        if len(frames) >= wanted:
            break
    return np.stack(frames[:wanted])
