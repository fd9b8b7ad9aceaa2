# SPDX-License-Identifier: Apache-2.0
"""Compiled training steps on one batch, and the passes that they are made of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from lmkd_tf.cli.train_stages import build_distiller, build_network
from lmkd_tf.config.schema import ExperimentConfig
from lmkd_tf.distill.cache import cache_teacher
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.losses import SpeechLoss
from lmkd_tf.models import SpeechEnhancer, from_preset
from lmkd_tf.models.taps import TappedModel, tap_model

Step = Callable[[], Any]
_TAP = "tap"


class StepFactory:
    """Makes steps that all see the same batch and the same teacher.

    Args:
        config: Networks, taps, batch size and crop.
        is_xla: Whether XLA compiles the steps.
    """

    def __init__(self, config: ExperimentConfig, is_xla: bool = False):
        self._config = config
        self._is_xla = is_xla
        preset = config.teacher_preset
        self._teacher = from_preset(preset) if preset else build_network(config.teacher, config)
        self._loss = SpeechLoss(stft=config.stft)
        self._views, self._speech = _batch(config)
        self._both = ops.concatenate(list(self._views.values()))  # (2B, N)
        self._both_speech = ops.concatenate([self._speech, self._speech])

    def distillation(self, method: str, is_cached: bool = False) -> Step:
        """Returns a step of our distiller with an objective of `METHODS`."""
        config = replace(self._config, distill=replace(self._config.distill, method=method))
        distiller = build_distiller(config, self._teacher, self._student())
        distiller.compile(optimizer=keras.optimizers.Adam(), loss=self._loss)
        distiller.optimizer.build(distiller.variables_to_train())
        batch = (self._views, self._speech)
        return self._step_of(distiller, _with_latents(distiller, batch) if is_cached else batch)

    def keras_distillation(self) -> Step:
        """Returns a step of `keras.distillation.Distiller` with one feature loss.

        That class takes functional models with taps on the way from input to output
        and has no projector. So the student's tap is a layer with two outputs, the
        latent for the network and its projection for the loss.
        """
        from keras import distillation

        _, teacher_layer, student_layer = self._config.distill.taps[-1]
        teacher = _functional(self._teacher, teacher_layer, self._both.shape[1])
        student = _functional(
            self._student(), student_layer, self._both.shape[1], width=_width(teacher)
        )
        losses = distillation.FeatureDistillation([None, "mse"], _TAP, _TAP)
        distiller = distillation.Distiller(teacher, student, losses)
        distiller.compile(optimizer=keras.optimizers.Adam(), loss=self._loss)
        distiller.optimizer.build(distiller.trainable_variables)
        return self._step_of(distiller, (self._both, self._both_speech))

    def passes(self) -> dict[str, Step]:
        """Returns the passes that a step of latent mixup cannot do without."""
        taps = self._config.distill.taps
        student = tap_model(self._student(), [tap[2] for tap in taps])
        teacher = tap_model(self._teacher, [tap[1] for tap in taps])
        x, context = student.start(self._both)
        latents, _ = student.run(0, x, context, training=False)
        count = len(self._speech)
        latent, context = latents[-1][:count], [c[:count] for c in context]

        def train_student():
            with tf.GradientTape() as tape:
                x, context = student.start(self._both)
                _, latent = student.run(0, x, context, training=True)
                _, output = student.run(1, latent, context, training=True)
                first, second = ops.split(output, 2)
                # Like this, and as in a step, the clean speech is transformed once.
                loss = 0.5 * (self._loss(self._speech, first) + self._loss(self._speech, second))
            return tape.gradient(loss, _values(student))

        def run_teacher():
            return teacher.run(0, *teacher.start(self._both), training=False)[0]

        def train_tail():
            with tf.GradientTape() as tape:
                tape.watch(latent)
                _, output = student.run(1, latent, context, training=True)
                loss = self._loss(self._speech, output)
            return [g for g in tape.gradient(loss, [latent, *_values(student)]) if g is not None]

        steps = {
            "student, both views, forward and backward": train_student,
            "teacher, both views, forward to the tap": run_teacher,
            "student's tail on the mixed latent": train_tail,
        }
        return {name: self._compiled(step) for name, step in steps.items()}

    def _student(self) -> SpeechEnhancer:
        keras.utils.set_random_seed(self._config.seed)
        return build_network(self._config.student, self._config)

    def _step_of(self, model: keras.Model, batch: Any) -> Step:
        return self._compiled(lambda: model.train_step(batch))

    def _compiled(self, step: Step) -> Step:
        # Without AutoGraph, as in `fit`.
        return tf.function(step, jit_compile=self._is_xla, autograph=False)


def _batch(config: ExperimentConfig) -> tuple[dict[str, Any], Any]:
    """Noise of the level of speech: the time of a step does not depend on the signal."""
    num_samples = round(config.data.crop_seconds * config.stft.sample_rate_hz)
    shape = (3, config.distillation_training.batch_size, num_samples)
    signals = np.random.default_rng(config.seed).normal(0.0, 0.05, shape).astype(np.float32)
    first, second, speech = (tf.constant(signal) for signal in signals)
    return {"first_view": first + speech, "second_view": second + speech}, speech


def _with_latents(distiller: LatentMixupDistiller, batch: Any) -> Any:
    return next(iter(cache_teacher(distiller, tf.data.Dataset.from_tensors(batch))))


def _values(network: Any) -> list[Any]:
    return [variable.value for variable in network.trainable_variables]


class _Tap(keras.layers.Layer):
    """Passes a latent on and beside it returns it (projected) for a feature loss."""

    def __init__(self, width: int | None):
        super().__init__(name=_TAP)
        self._project = keras.layers.Dense(width) if width else keras.layers.Identity()

    def call(self, latent):
        return [latent, self._project(latent)]


def _functional(
    enhancer: SpeechEnhancer, layer: str, num_samples: int, width: int | None = None
) -> keras.Model:
    """Rebuilds an enhancer as one graph with a layer "tap", sharing its weights."""
    tapped = TappedModel(enhancer.core, [layer])
    noisy = keras.Input((num_samples,))
    features, spectrum = keras.layers.Lambda(enhancer.analyze)(noisy)
    latents, _ = tapped.run(0, features, [features], training=False)
    latent, _ = _Tap(width)(latents[-1])
    _, mask = tapped.run(1, latent, [features], training=False)
    synthesize = keras.layers.Lambda(lambda x: enhancer.synthesize(x[0], x[1], num_samples))
    return keras.Model(noisy, synthesize([spectrum, mask]))


def _width(model: keras.Model) -> int:
    return int(model.get_layer(_TAP).output[1].shape[-1])
