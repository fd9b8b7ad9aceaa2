# SPDX-License-Identifier: Apache-2.0
"""The stages that compress and export, each from a configuration and a folder to files."""

import functools
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from lmkd_tf.cli.train_stages import Audio, build_network, compiled_distiller, save_model
from lmkd_tf.cli.training import fit_stage
from lmkd_tf.compress.pruning import PruningStep, kernel_sparsity, prune, strip_pruning
from lmkd_tf.compress.quantization import calibrate_ranges, limit_logits, quantize
from lmkd_tf.compress.structured import shrink
from lmkd_tf.compress.twin import make_twin
from lmkd_tf.config.files import atomic_path, write_json
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig
from lmkd_tf.data.pipeline import EVALUATION_SEED
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.export.calibration import Calibration
from lmkd_tf.export.manifest import Manifest, manifest_path
from lmkd_tf.export.tflite import to_tflite
from lmkd_tf.firmware.bundle import write_bundle
from lmkd_tf.firmware.emulator import FIRMWARE
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
        projectors: `projectors.npz` of the distillation, or None to start with new ones.
    """

    teacher: Any
    student: Any
    projectors: Path | None


def core_builder(model: ModelConfig) -> Callable[..., Any]:
    """Returns the builder of a network's core (see `lmkd_tf.compress.twin`)."""
    return functools.partial(build_core, model.architecture, **model.size)


def compressed_student(config: ExperimentConfig) -> ModelConfig:
    """Returns the network of the student after structured pruning."""
    return replace(config.student, **config.compress.size)


def prune_student(
    config: ExperimentConfig, audio: Audio, folder: Path, inputs: Inputs, callbacks: list[Any]
) -> None:
    """Shrinks and prunes the student under the distiller; `pruned.keras`, `sparsity.json`.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        folder: Where the results go.
        inputs: Networks and projectors to start from.
        callbacks: Callbacks for `fit`, such as progress.
    """
    settings, train = config.compress, config.compress.pruning
    if not settings.sparsity and not settings.size:
        write_json(folder / "sparsity.json", kernel_sparsity(inputs.student.core))
        save_model(inputs.student, folder / "pruned.keras")
        return
    core, smaller = inputs.student.core, compressed_student(config)
    if settings.size:
        noisy = next(iter(audio.validation(train)))[0]["first_view"]
        features, _ = inputs.student.analyze(noisy)
        core = shrink(core_builder(config.student), core, features=features, **settings.size)
    pruned = prune(
        make_twin(core_builder(smaller), core),
        sparsity=settings.sparsity,
        num_steps=train.epochs * train.steps_per_epoch,
        schedule=settings.schedule,
        pattern=settings.pattern,
        excluded=settings.excluded,
    )
    callbacks = [PruningStep(pruned), *callbacks]
    fit_twin(config, audio, folder, inputs, pruned, train, callbacks)
    result = build_network(smaller, config)
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
    twin = make_twin(core_builder(compressed_student(config)), inputs.student.core)
    quantized = quantize(twin)
    noisy = (views["first_view"] for views, _ in audio.validation(train))
    calibrate_ranges(quantized, twin, (inputs.student.analyze(batch)[0] for batch in noisy))
    fit_twin(config, audio, folder, inputs, quantized, train, callbacks)
    limit_logits(quantized)
    write_json(folder / "sparsity.json", kernel_sparsity(quantized))
    _require_room(folder, sum(weight.nbytes for weight in quantized.get_weights()))
    with atomic_path(folder / "quantized.weights.h5") as temporary:
        quantized.save_weights(str(temporary))


def export_calibrated(
    student: SpeechEnhancer,
    output: Path,
    noisy: Iterable[Any],
    *,
    architecture: str,
    size: dict[str, Any],
) -> Manifest:
    """Exports a float student as int8 with ranges of real frames, without fine-tuning.

    Args:
        student: Trained student.
        output: `.tflite` file to write, its manifest goes beside it.
        noisy: Batches of noisy speech, `(B, N)`.
        architecture: Name in `lmkd_tf.models.ARCHITECTURES`.
        size: Size arguments of the network.

    Returns:
        Manifest of the exported file.
    """
    twin = make_twin(functools.partial(build_core, architecture, **size), student.core)
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, (student.analyze(batch)[0] for batch in noisy))
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "quantized.weights.h5"
        quantized.save_weights(str(weights))
        return to_tflite(weights, output, architecture=architecture, size=size, stft=student.stft)


def export_student(config: ExperimentConfig, audio: Audio, folder: Path, sources: Path) -> None:
    """Exports int8 and int16 step graphs with manifests; C sources and firmware bundle of int8.

    Args:
        config: Resolved configuration.
        audio: Recordings, for the calibration of the int16 graph.
        folder: Where the results go.
        sources: Work directory with the finished stages `pruned` and `quantized`.
    """
    student = compressed_student(config)
    network = {"architecture": student.architecture, "size": student.size}
    weights = sources / "quantized" / "quantized.weights.h5"
    name = config.student.architecture
    output = folder / f"{name}_int8.tflite"
    to_tflite(weights, output, **network, stft=config.stft)
    pruned = load_enhancer(sources / "pruned" / "pruned.keras")
    to_tflite(
        pruned.core,
        folder / f"{name}_int16.tflite",
        **network,
        stft=config.stft,
        dtype="int16",
        calibration=draw_calibration(config, audio, pruned),
    )
    generate(manifest_path(output), folder / "c")
    if (FIRMWARE / "src").is_dir():
        write_bundle(output, folder / "bundle")
    else:
        logging.warning("No firmware bundle: it holds C sources, which a checkout has.")


def _require_room(folder: Path, num_bytes: int) -> None:
    """Refuses to write HDF5 to a disk that is about full, which would crash the process."""
    wanted, free = 4 * num_bytes + 65536, shutil.disk_usage(folder).free
    if free < wanted:
        raise OSError(
            f"The disk must have room for the result. Received {folder} with {free} bytes free, "
            f"{wanted} may be needed. Free some space and run this again."
        )


def fit_twin(config, audio, folder, inputs, core, train, callbacks) -> None:
    """Fits a wrapped `tf_keras` core under the distiller; it starts over when interrupted.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        folder: Where the history goes.
        inputs: Teacher and projectors.
        core: Core returned by `prune` or `quantize`; it is trained.
        train: Length of the stage.
        callbacks: Callbacks for `fit`, such as progress.
    """
    keras.utils.set_random_seed(config.seed)
    student = SpeechEnhancer(core, config.stft)
    distiller = compiled_distiller(config, inputs.teacher, student, train)
    if inputs.projectors:
        _load_projectors(distiller, inputs.projectors)
    pairs, callbacks = audio.training(train, 0), [*audio.watchers(train, 0), *callbacks]
    fit_stage(
        distiller, pairs, audio.validation(train), train, folder, callbacks, is_resumable=False
    )


def _load_projectors(distiller: LatentMixupDistiller, path: Path) -> None:
    """Goes on with the trained projectors; those of a student that was shrunk start anew."""
    with np.load(path) as stored:
        weights = [stored[name] for name in stored.files]
    for projector in distiller.projectors:
        count = len(projector.weights)
        own, weights = weights[:count], weights[count:]
        if [w.shape for w in own] == [tuple(w.shape) for w in projector.weights]:
            projector.set_weights(own)


def draw_calibration(
    config: ExperimentConfig, audio: Audio, model: SpeechEnhancer, seed: int = EVALUATION_SEED
) -> Calibration:
    """Draws consecutive noisy frames of the validation split.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        model: Network whose features are wanted.
        seed: Seed of the draw.

    Returns:
        The frames, with their seed and recordings.
    """
    wanted, batch_size = config.compress.num_calibration_frames, 8
    source = audio.pair_source(batch_size, split="valid", seed=seed)
    frames: list[np.ndarray] = []
    files: dict[str, None] = {}
    for index in itertools.count():
        features, _ = model.analyze(source.batch(index)[0])
        frames += list(keras.ops.convert_to_numpy(features)[:, :, 0].reshape(-1, model.num_bands))
        files |= {"/".join(Path(name).parts[-3:]): None for name in source.files(index)}
        if len(frames) >= wanted:
            break
    return Calibration(np.stack(frames[:wanted]), seed, tuple(files))
