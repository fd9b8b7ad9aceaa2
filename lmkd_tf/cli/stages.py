# SPDX-License-Identifier: Apache-2.0
"""The stages of the road, each from a configuration and a folder to files."""

import copy
import functools
import itertools
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from lmkd_tf.cli.training import epochs_done, fit_stage, make_optimizer, remove_checkpoint
from lmkd_tf.compress.pruning import PruningStep, kernel_sparsity, prune, strip_pruning
from lmkd_tf.compress.quantization import calibrate_ranges, quantize
from lmkd_tf.compress.structured import shrink
from lmkd_tf.compress.twin import make_twin
from lmkd_tf.config.files import atomic_path, write_json
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig, TrainConfig
from lmkd_tf.data.index import SPLITS, clips_in
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import (
    EVALUATION_SEED,
    PairSource,
    training_pairs,
    validation_pairs,
)
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.rooms import RoomPool, load_rooms, simulate_rooms
from lmkd_tf.data.sources import open_store
from lmkd_tf.data.store import AudioStore
from lmkd_tf.distill.callbacks import RaiseOnNan
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.losses import SpeechLoss
from lmkd_tf.distill.objective import objective_of
from lmkd_tf.distill.perceptual_loss import PesqShapedLoss
from lmkd_tf.export.calibration import Calibration
from lmkd_tf.export.manifest import manifest_path
from lmkd_tf.export.tflite import to_tflite
from lmkd_tf.firmware.bundle import write_bundle
from lmkd_tf.firmware.emulator import FIRMWARE
from lmkd_tf.firmware.generate import generate
from lmkd_tf.models import SpeechEnhancer, build, from_preset
from lmkd_tf.models.builder import build_core
from lmkd_tf.models.enhancer import load_enhancer

OnProgress = Callable[[int, int], None]


class Audio:
    """The recordings of a corpus, opened once and shared by the stages.

    Args:
        folder: Corpus of any layout (see `lmkd_tf.data.readers.read_corpus`).
        config: Resolved configuration.
    """

    def __init__(self, folder: str | Path, config: ExperimentConfig):
        self.corpus = read_corpus(folder)
        self._config = config
        self._stores: dict[tuple[str, str], AudioStore] = {}
        self._room_pools: dict[str, RoomPool] = {}

    def with_config(self, config: ExperimentConfig) -> "Audio":
        """Returns the same recordings for another configuration, decoded once."""
        other = copy.copy(self)
        other._config = config
        return other

    def load_all(self, on_progress: OnProgress) -> None:
        """Decodes every split, reporting (files done, files in all)."""
        splits = [(kind, split) for split in SPLITS for kind in ("speech", "noise")]
        counts = [len(clips_in(getattr(self.corpus, kind), split, kind)) for kind, split in splits]
        for index, (kind, split) in enumerate(splits):
            before, total = sum(counts[:index]), sum(counts)
            self.store(kind, split, lambda done, _, b=before, t=total: on_progress(b + done, t))

    def store(self, kind: str, split: str, on_progress: OnProgress | None = None) -> AudioStore:
        """Returns decoded `"speech"` or `"noise"` of a split; skipped files are logged."""
        key = (kind, split)
        if key not in self._stores:
            clips = clips_in(getattr(self.corpus, kind), split, kind)
            rate_hz = self._config.stft.sample_rate_hz
            self._stores[key] = open_store(clips, rate_hz, on_progress=on_progress)
            if self._stores[key].skipped:
                logging.warning(
                    "Skipped in %s/%s:\n%s", kind, split, self._stores[key].describe_skipped()
                )
        return self._stores[key]

    def training(self, train: TrainConfig, first_batch: int) -> Any:
        """Returns endless training pairs from batch `first_batch` on."""
        return training_pairs(
            self.store("speech", "train"),
            self.store("noise", "train"),
            settings=self._mix_settings(),
            batch_size=train.batch_size,
            seed=self._config.seed,
            first_batch=first_batch,
            rooms=self._rooms("train"),
        )

    def pair_source(
        self, batch_size: int, split: str = "train", seed: int | None = None
    ) -> PairSource:
        """Returns the source of the pairs of a split; the seed is the configuration's own."""
        return PairSource(
            self.store("speech", split),
            self.store("noise", split),
            self._mix_settings(),
            batch_size,
            self._config.seed if seed is None else seed,
            self._rooms(split),
        )

    def nan_guard(self, train: TrainConfig, first_step: int) -> RaiseOnNan:
        """Returns a callback that stops at a loss that is not finite, with the batch's files."""
        return RaiseOnNan(lambda step: self.pair_source(train.batch_size).files(step), first_step)

    def validation(self, train: TrainConfig) -> Any:
        """Returns the fixed validation pairs."""
        return validation_pairs(
            self.store("speech", "valid"),
            self.store("noise", "valid"),
            settings=self._mix_settings(),
            batch_size=train.batch_size,
            num_batches=self._config.data.num_validation_batches,
            seed=EVALUATION_SEED,
            rooms=self._rooms("valid"),
        )

    def _mix_settings(self) -> MixSettings:
        data = self._config.data
        names = {f.name for f in fields(MixSettings)} & {f.name for f in fields(data)}
        return MixSettings(**{name: getattr(data, name) for name in names})

    def _rooms(self, split: str) -> RoomPool | None:
        """Returns rooms of the corpus or, where it has none, simulated ones."""
        data, rate_hz = self._config.data, self._config.stft.sample_rate_hz
        if data.room_probability == 0.0:
            return None
        if split not in self._room_pools:
            listed = [clip for clip in self.corpus.responses if clip.split == split]
            self._room_pools[split] = (
                load_rooms(listed, rate_hz)
                if listed
                else simulate_rooms(
                    data.num_simulated_rooms, seed=SPLITS.index(split), sample_rate_hz=rate_hz
                )
            )
        return self._room_pools[split]


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


def build_network(model: ModelConfig, config: ExperimentConfig) -> SpeechEnhancer:
    """Builds an untrained network of the configuration."""
    return build(model.architecture, stft=config.stft, **model.size)


def core_builder(model: ModelConfig) -> Callable[..., Any]:
    """Returns the builder of a network's core (see `lmkd_tf.compress.twin`)."""
    return functools.partial(build_core, model.architecture, **model.size)


def compressed_student(config: ExperimentConfig) -> ModelConfig:
    """Returns the network of the student after structured pruning."""
    channels = config.compress.channels
    return config.student if channels is None else replace(config.student, channels=channels)


def train_teacher(
    config: ExperimentConfig, audio: Audio, folder: Path, callbacks: list[Any]
) -> None:
    """Trains the teacher on both views of each pair, or loads its preset; `teacher.keras`.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        folder: Where the results go.
        callbacks: Callbacks for `fit`, such as progress.
    """
    if config.teacher_preset:
        save_model(from_preset(config.teacher_preset), folder / "teacher.keras")
        return
    train = config.teacher_training
    keras.utils.set_random_seed(config.seed)
    teacher = build_network(config.teacher, config)
    teacher.compile(optimizer=make_optimizer(train), loss=build_loss(config))
    first_step = epochs_done(folder) * train.steps_per_epoch
    pairs = audio.training(train, first_step).map(_both_views)
    validation = audio.validation(train).map(_both_views)
    callbacks = [audio.nan_guard(train, first_step), *callbacks]
    fit_stage(teacher, pairs, validation, train, folder, callbacks)
    save_model(teacher, folder / "teacher.keras")
    remove_checkpoint(folder)


def distill_student(
    config: ExperimentConfig, audio: Audio, folder: Path, teacher: Any, callbacks: list[Any]
) -> None:
    """Distills the teacher into the student; `student.keras`, `projectors.npz`.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        folder: Where the results go.
        teacher: Trained teacher.
        callbacks: Callbacks for `fit`, such as progress.
    """
    train = config.distillation_training
    keras.utils.set_random_seed(config.seed)
    distiller = _distiller(config, teacher, build_network(config.student, config), train)
    first_step = epochs_done(folder) * train.steps_per_epoch
    callbacks = [audio.nan_guard(train, first_step), *callbacks]
    pairs = audio.training(train, first_step)
    fit_stage(distiller, pairs, audio.validation(train), train, folder, callbacks)
    weights = [w for projector in distiller.projectors for w in projector.get_weights()]
    with atomic_path(folder / "projectors.npz") as temporary:
        np.savez(temporary, *weights)
    save_model(distiller.student, folder / "student.keras")
    remove_checkpoint(folder)


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
    core, smaller = inputs.student.core, compressed_student(config)
    if settings.channels is not None:
        noisy = next(iter(audio.validation(train)))[0]["first_view"]
        features, _ = inputs.student.analyze(noisy)
        core = shrink(
            core_builder(config.student), core, channels=settings.channels, features=features
        )
    pruned = prune(
        make_twin(core_builder(smaller), core),
        sparsity=settings.sparsity,
        num_steps=train.epochs * train.steps_per_epoch,
        schedule=settings.schedule,
        pattern=settings.pattern,
        excluded=settings.excluded,
    )
    callbacks = [PruningStep(pruned), *callbacks]
    _fit_twin(config, audio, folder, inputs, pruned, train, callbacks)
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
    _fit_twin(config, audio, folder, inputs, quantized, train, callbacks)
    write_json(folder / "sparsity.json", kernel_sparsity(quantized))
    _require_room(folder, sum(weight.nbytes for weight in quantized.get_weights()))
    with atomic_path(folder / "quantized.weights.h5") as temporary:
        quantized.save_weights(str(temporary))


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


def save_model(model: Any, path: Path) -> None:
    """Writes a `.keras` file atomically."""
    with atomic_path(path) as temporary:
        model.save(temporary, include_optimizer=False)


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
    distiller = _distiller(config, inputs.teacher, student, train)
    _load_projectors(distiller, inputs.projectors)
    pairs, callbacks = audio.training(train, 0), [audio.nan_guard(train, 0), *callbacks]
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


def build_loss(config: ExperimentConfig) -> Any:
    """Returns the supervised loss of the configuration."""
    settings = asdict(config.loss)
    pesq_shaped_weight = settings.pop("pesq_shaped_weight")
    loss = SpeechLoss(stft=config.stft, **settings)
    if not pesq_shaped_weight:
        return loss
    return PesqShapedLoss(loss, weight=pesq_shaped_weight, stft=config.stft)


def build_distiller(config: ExperimentConfig, teacher: Any, student: Any) -> LatentMixupDistiller:
    """Builds the distiller of the configuration, not compiled.

    Raises:
        ValueError: If taps or objective do not fit the networks.
    """
    distill = config.distill
    return LatentMixupDistiller(
        teacher=teacher,
        student=student,
        taps=distill.taps,
        objective=objective_of(distill.method, **distill.changes),
        mixup_alpha=distill.mixup_alpha,
        distillation_weight=distill.distillation_weight,
        seed=config.seed,
    )


def _distiller(
    config: ExperimentConfig, teacher: Any, student: Any, train: TrainConfig
) -> LatentMixupDistiller:
    distiller = build_distiller(config, teacher, student)
    distiller.compile(optimizer=make_optimizer(train), loss=build_loss(config))
    return distiller


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


def _both_views(views: dict[str, Any], speech: Any) -> tuple[Any, Any]:
    noisy = keras.ops.concatenate([views["first_view"], views["second_view"]], axis=0)
    return noisy, keras.ops.concatenate([speech, speech], axis=0)
