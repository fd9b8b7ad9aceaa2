# SPDX-License-Identifier: Apache-2.0
"""The stages that train a float network; with the JAX backend they need no TensorFlow."""

import copy
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from lmkd_tf.cli.training import epochs_done, fit_stage, make_optimizer, remove_checkpoint
from lmkd_tf.cli.validation import ValidationScores
from lmkd_tf.config.files import atomic_path
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig, TrainConfig
from lmkd_tf.data.accelerator import AcceleratorSource
from lmkd_tf.data.index import SPLITS, clips_in
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import (
    EVALUATION_SEED,
    EvaluationClip,
    PairSource,
    evaluation_set,
    training_pairs,
    validation_pairs,
    without_effects,
)
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.rooms import RoomPool, load_rooms, simulate_rooms
from lmkd_tf.data.sources import open_store
from lmkd_tf.data.store import AudioStore
from lmkd_tf.distill.callbacks import RaiseOnNan
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.losses import SpeechLoss
from lmkd_tf.distill.metric_discriminator import MetricTrainer
from lmkd_tf.distill.objective import objective_of
from lmkd_tf.distill.perceptual_loss import PesqShapedLoss
from lmkd_tf.models import SpeechEnhancer, build, from_preset
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

    def training(self, train: TrainConfig, first_batch: int, *, is_joined: bool = False) -> Any:
        """Returns endless training pairs from batch `first_batch` on.

        Args:
            train: Batch size.
            first_batch: Index of the first batch.
            is_joined: Whether the two views come as one batch of 2B, without names.
        """
        if keras.backend.backend() == "jax":
            return _Batches(self._on_accelerator(train), None, first_batch, is_joined)
        pairs = training_pairs(
            self.store("speech", "train"),
            self.store("noise", "train"),
            settings=self._mix_settings(),
            batch_size=train.batch_size,
            seed=self._config.seed,
            first_batch=first_batch,
            rooms=self._rooms("train"),
        )
        return pairs.map(_both_views) if is_joined else pairs

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

    def watchers(self, train: TrainConfig, first_step: int) -> list[Any]:
        """Returns the callbacks of every training: the guard and, if asked for, the scores."""
        watchers: list[Any] = [self.nan_guard(train, first_step)]
        if train.num_scored_clips:
            watchers.append(ValidationScores(self.scored_clips(train.num_scored_clips)))
        return watchers

    def scored_clips(self, count: int) -> list[EvaluationClip]:
        """Returns fixed noisy utterances of the `valid` split."""
        return evaluation_set(
            self.store("speech", "valid"),
            self.store("noise", "valid"),
            snrs_db=self._config.data.evaluation_snrs_db,
            count=count,
            seed=EVALUATION_SEED,
        )

    def validation(self, train: TrainConfig, *, is_joined: bool = False) -> Any:
        """Returns the fixed validation pairs; see `training`."""
        stores = self.store("speech", "valid"), self.store("noise", "valid")
        settings, rooms = self._mix_settings(), self._rooms("valid")
        count, size = self._config.data.num_validation_batches, train.batch_size
        if keras.backend.backend() == "jax":
            plain = without_effects(settings)
            source = PairSource(*stores, plain, size, EVALUATION_SEED, rooms)
            return _Batches(
                [source.batch(i) for i in range(count)].__getitem__, count, 0, is_joined
            )
        pairs = validation_pairs(
            *stores,
            settings=settings,
            batch_size=size,
            num_batches=count,
            seed=EVALUATION_SEED,
            rooms=rooms,
        )
        return pairs.map(_both_views) if is_joined else pairs

    def _on_accelerator(self, train: TrainConfig) -> Callable[[int], Any]:
        import jax

        return AcceleratorSource(self.pair_source(train.batch_size), jax.jit).batch

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
            if listed:
                logging.info("Rooms of split '%s': %d of the corpus", split, len(listed))
                self._room_pools[split] = load_rooms(listed, rate_hz)
            else:
                count = data.num_simulated_rooms
                # Said aloud: packed corpora and shards hold no responses, whatever they were
                # made of.
                logging.warning(
                    "Rooms of split '%s': %d simulated; the corpus (%s) lists no room impulse "
                    "responses for it",
                    *(split, count, self.corpus.layout),
                )
                self._room_pools[split] = simulate_rooms(
                    count, seed=SPLITS.index(split), sample_rate_hz=rate_hz
                )
        return self._room_pools[split]


def build_network(model: ModelConfig, config: ExperimentConfig) -> SpeechEnhancer:
    """Builds an untrained network of the configuration."""
    return build(model.architecture, stft=config.stft, **model.size)


def build_seeded(model: ModelConfig, config: ExperimentConfig) -> SpeechEnhancer:
    """Builds an untrained network with the weights that the configuration's seed gives."""
    keras.utils.set_random_seed(config.seed)
    return build_network(model, config)


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
    teacher = build_seeded(config.teacher, config)
    _fit_alone(teacher, config, audio, folder / "teacher.keras", config.teacher_training, callbacks)


def train_network(
    config: ExperimentConfig, audio: Audio, folder: Path, callbacks: list[Any]
) -> None:
    """Trains the configuration's `network` without a teacher; `network.keras`.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        folder: Where the results go.
        callbacks: Callbacks for `fit`, such as progress.
    """
    network = build_seeded(config.network, config)
    if config.network_start and config.network_start_is_partial:
        _start_where_it_fits(network, config.network_start)
    elif config.network_start:
        _start_from(network, config.network_start)
    _fit_alone(network, config, audio, folder / "network.keras", config.network_training, callbacks)


def _fit_alone(network, config, audio, path, train, callbacks) -> None:
    """Fits a network on both views of each pair and saves it."""
    folder = path.parent
    model = _against_discriminator(network, config, train) if train.metric_weight else network
    model.compile(optimizer=make_optimizer(train), loss=build_loss(config))
    first_step = epochs_done(folder) * train.steps_per_epoch
    pairs = audio.training(train, first_step, is_joined=True)
    validation = audio.validation(train, is_joined=True)
    callbacks = [*audio.watchers(train, first_step), *callbacks]
    fit_stage(model, pairs, validation, train, folder, callbacks)
    save_model(network, path)
    remove_checkpoint(folder)


def _against_discriminator(network, config, train) -> MetricTrainer:
    """Returns what trains a network together with a metric discriminator."""
    return MetricTrainer(
        network,
        metric_weight=train.metric_weight,
        stft=config.stft,
        discriminator_rate=2.0 * train.learning_rate,  # as for CMGAN
    )


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
    student = build_seeded(config.student, config)
    if config.student_start:
        _start_from(student, config.student_start)
    distiller = compiled_distiller(config, teacher, student, train)
    first_step = epochs_done(folder) * train.steps_per_epoch
    callbacks = [*audio.watchers(train, first_step), *callbacks]
    pairs = audio.training(train, first_step)
    fit_stage(distiller, pairs, audio.validation(train), train, folder, callbacks)
    weights = [w for projector in distiller.projectors for w in projector.get_weights()]
    with atomic_path(folder / "projectors.npz") as temporary:
        np.savez(temporary, *weights)
    save_model(distiller.student, folder / "student.keras")
    remove_checkpoint(folder)


def _start_from(network: SpeechEnhancer, path: str) -> None:
    """Gives a network the weights of a trained one."""
    weights = load_enhancer(path).core.get_weights()
    own = [tuple(weight.shape) for weight in network.core.weights]
    if [weight.shape for weight in weights] != own:
        raise ValueError(
            "`student_start` and `network_start` must be networks of the same architecture and "
            f"size as what starts from them. Received {path} with other weights. Set `student` or "
            "`network` to the network of that file."
        )
    network.core.set_weights(weights)


def _start_where_it_fits(network: SpeechEnhancer, path: str) -> None:
    """Gives a network the weights of those layers of another that are like its own."""
    others = {layer.name: layer.get_weights() for layer in load_enhancer(path).core.layers}
    own = [layer for layer in network.core.layers if layer.weights]
    fitting = [
        layer
        for layer in own
        if _shapes(layer.get_weights()) == _shapes(others.get(layer.name, []))
    ]
    if not fitting:
        raise ValueError(
            "`network_start` must have layers in common with the network that starts from it. "
            f"Received {path} with none. Leave `network_start` empty to start from random weights."
        )
    for layer in fitting:
        layer.set_weights(others[layer.name])
    logging.info("%d of %d layers start from %s", len(fitting), len(own), path)


def _shapes(weights: list[np.ndarray]) -> list[tuple[int, ...]]:
    return [weight.shape for weight in weights]


def save_model(model: Any, path: Path) -> None:
    """Writes a `.keras` file atomically."""
    with atomic_path(path) as temporary:
        model.save(temporary, include_optimizer=False)


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


def compiled_distiller(
    config: ExperimentConfig, teacher: Any, student: Any, train: TrainConfig
) -> LatentMixupDistiller:
    """Builds the distiller of the configuration with optimizer and loss.

    Args:
        config: Resolved configuration.
        teacher: Trained teacher.
        student: Student to train.
        train: Training stage that the optimizer serves.

    Returns:
        Compiled distiller.
    """
    distiller = build_distiller(config, teacher, student)
    distiller.compile(optimizer=make_optimizer(train), loss=build_loss(config))
    return distiller


def _both_views(views: dict[str, Any], speech: Any) -> tuple[Any, Any]:
    noisy = keras.ops.concatenate([views["first_view"], views["second_view"]], axis=0)
    return noisy, keras.ops.concatenate([speech, speech], axis=0)


class _Batches(keras.utils.PyDataset):
    """Batches of a function from their number, without `tf.data`.

    Args:
        batch: Function from the number of a batch to two views and speech, `(B, N)` each.
        count: Number of batches; None for no end.
        first: Number of the first batch.
        is_joined: Whether the two views come as one batch of 2B, without names.
    """

    def __init__(self, batch: Callable[[int], Any], count: int | None, first: int, is_joined: bool):
        super().__init__()
        self._batch, self._count, self._first, self._is_joined = batch, count, first, is_joined

    @property
    def num_batches(self) -> int | None:
        return self._count

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        first, second, speech = self._batch(self._first + index)
        views = {"first_view": first, "second_view": second}
        return _both_views(views, speech) if self._is_joined else (views, speech)
