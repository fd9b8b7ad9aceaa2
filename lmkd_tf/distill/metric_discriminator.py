# SPDX-License-Identifier: Apache-2.0
"""A discriminator that learns PESQ, and the training of a network against it."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.training import PairTrainer, regularization
from lmkd_tf.dsp.mask import compress
from lmkd_tf.dsp.stft import stft as transform
from lmkd_tf.metrics.perceptual import import_package, pesq_wb

# P.862.2 maps equal signals to 0.999 + 4 / (1 + exp(3.8224 - 1.3669 * 4.5)).
BEST_PESQ_WB = 4.6439
_WORST_PESQ_WB = 1.0
_COMPRESSION = 0.3
_SILENCE = 1e-5
_NUM_CONVOLUTIONS = 4


def normalized_pesq(speech: np.ndarray, enhanced: np.ndarray) -> np.ndarray:
    """Computes PESQ-WB of every clip, from 0 (1.0) to 1 (equal signals), on the host.

    Args:
        speech: Clean speech at 16 kHz in [-1, 1], `(B, N)`.
        enhanced: Enhanced speech, `(B, N)`.

    Returns:
        Scores `(B,)`, float32; NaN where PESQ finds no speech or the samples are not finite.

    Raises:
        ImportError: If `pesq` is not installed.
    """
    scores = np.full(len(speech), np.nan, np.float32)
    for index, (clean, found) in enumerate(zip(speech, enhanced, strict=True)):
        value = pesq_wb(clean, found).value if np.all(np.isfinite(found)) else None
        if value is not None:
            scores[index] = (value - _WORST_PESQ_WB) / (BEST_PESQ_WB - _WORST_PESQ_WB)
    return np.clip(scores, 0.0, 1.0)


def build_discriminator(num_bins: int, channels: int = 16) -> keras.Model:
    """Builds the network that rates enhanced speech beside the clean one.

    Convolutions of 4 x 4 at stride 2 with instance normalization, the largest value of each
    channel, and two dense layers: the discriminator of CMGAN (Cao et al., 2022) without its
    spectral normalization and dropout.

    Args:
        num_bins: Frequency bins F.
        channels: Channels of the first convolution; each further one has twice as many.

    Returns:
        Functional model from compressed magnitudes `(B, T, F, 2)` to ratings `(B, 1)` in [0, 1].
    """
    inputs = x = keras.Input((None, num_bins, 2), dtype="float32")
    for index in range(_NUM_CONVOLUTIONS):
        width = channels * 2**index
        convolution = layers.Conv2D(width, 4, 2, "same", use_bias=False, dtype="float32")
        normalization = layers.GroupNormalization(groups=width, dtype="float32")
        x = layers.LeakyReLU(0.2, dtype="float32")(normalization(convolution(x)))
    x = layers.GlobalMaxPooling2D(dtype="float32")(x)
    x = layers.LeakyReLU(0.2, dtype="float32")(layers.Dense(4 * channels, dtype="float32")(x))
    rating = layers.Dense(1, activation="sigmoid", dtype="float32")(x)
    return keras.Model(inputs, rating, name="discriminator")


@keras.saving.register_keras_serializable(package="lmkd_tf")
class MetricTrainer(PairTrainer):
    """Trains a network and, in turn, a discriminator that learns its PESQ (MetricGAN, CMGAN).

    With D(s, y) the rating of y beside the clean s, and Q their normalized PESQ-WB, a step
    lowers L(s, y) + w mean (D(s, y) - 1)^2 by the network, then mean (D(s, s) - 1)^2 +
    mean (D(s, y) - Q)^2 by the discriminator, over the same y. Clips for which PESQ is not
    defined are left out of the last mean. Evaluation has L alone, since D changes.

    Logs: `loss`, `metric_loss` (the network's term without w) and `discriminator_loss`.

    Args:
        network: Model to train, from noisy to enhanced speech `(B, N)` at 16 kHz.
        metric_weight: w, above zero.
        stft: Frame of the discriminator's transform; a `StftConfig` or its fields as a dict.
        channels: Channels of the discriminator's first convolution.
        discriminator_rate: Learning rate of the discriminator (Adam).

    Raises:
        ValueError: If the backend is not TensorFlow or the weight is not positive.
        ImportError: If `pesq` is not installed.
    """

    def __init__(
        self,
        network: Any,
        metric_weight: float = 0.05,
        stft: StftConfig | dict | None = None,
        channels: int = 16,
        discriminator_rate: float = 1e-3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _check(metric_weight)
        import_package("pesq")
        self.network = network
        self.metric_weight = metric_weight
        self.stft = StftConfig(**stft) if isinstance(stft, dict) else stft or StftConfig()
        self.channels = channels
        self.discriminator_rate = discriminator_rate
        self.discriminator = build_discriminator(self.stft.num_bins, channels)
        # Tracked and built, so that a checkpoint holds its state.
        self.discriminator_optimizer = keras.optimizers.Adam(discriminator_rate)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        self._metric_tracker = keras.metrics.Mean(name="metric_loss")
        self._discriminator_tracker = keras.metrics.Mean(name="discriminator_loss")
        self.built = True

    @property
    def trainable_variables(self) -> list[Any]:
        """Variables of the network: those that the compiled optimizer changes and averages."""
        return self.network.trainable_variables

    def call(self, inputs, training: bool = False):
        """Runs the network."""
        return self.network(inputs, training=training)

    def rate(self, speech, enhanced):
        """Returns D(s, y), `(B,)`, of two signals `(B, N)`, both at the level of the speech."""
        speech, enhanced = ops.cast(speech, "float32"), ops.cast(enhanced, "float32")
        power = ops.mean(ops.square(speech), axis=1, keepdims=True)
        level = ops.sqrt(ops.maximum(power, _SILENCE**2))
        both = [
            compress(transform(samples / level, self.stft), _COMPRESSION)[0]
            for samples in (speech, enhanced)
        ]
        return self.discriminator(ops.stack(both, axis=-1))[:, 0]

    def metric_loss(self, speech, enhanced):
        """Returns the network's term, mean (D(s, y) - 1)^2."""
        return ops.mean(ops.square(self.rate(speech, enhanced) - 1.0))

    def discriminator_loss(self, speech, enhanced, scores):
        """Returns mean (D(s, s) - 1)^2 + mean (D(s, y) - Q)^2.

        Args:
            speech: Clean speech, `(B, N)`.
            enhanced: Enhanced speech, `(B, N)`.
            scores: Q, `(B,)`, NaN for a clip without a score.
        """
        has_score = ops.logical_not(ops.isnan(scores))
        target = ops.where(has_score, scores, 0.0)
        error = ops.square(self.rate(speech, enhanced) - target) * ops.cast(has_score, "float32")
        count = ops.maximum(ops.sum(ops.cast(has_score, "float32")), 1.0)
        return self.metric_loss(speech, speech) + ops.sum(error) / count

    def forward(self, data: Any, *, training: bool) -> tuple[Any, tuple[Any, ...]]:
        """Computes the loss of the network on one batch; in evaluation the supervised one."""
        noisy, speech, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        enhanced = self.network(noisy, training=training)
        loss = self.loss(speech, enhanced, sample_weight) + regularization(self.network)
        if training:
            metric_loss = self.metric_loss(speech, enhanced)
            self._metric_tracker.update_state(metric_loss)
            loss = loss + self.metric_weight * metric_loss
        return loss, (noisy, speech, enhanced, sample_weight)

    def _train(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss, outcome = self.forward(data, training=True)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(scaled, [v.value for v in variables], unconnected_gradients=zero)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        _, speech, enhanced, _ = outcome
        self._train_discriminator(speech, tf.stop_gradient(enhanced))
        return self._log(loss, outcome)

    def _train_discriminator(self, speech: Any, enhanced: Any) -> None:
        import tensorflow as tf

        signals = [ops.cast(samples, "float32") for samples in (speech, enhanced)]
        scores = tf.numpy_function(normalized_pesq, signals, tf.float32, stateful=False)
        scores = tf.ensure_shape(scores, speech.shape[:1])
        with tf.GradientTape() as tape:
            loss = self.discriminator_loss(speech, enhanced, scores)
        variables = self.discriminator.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        self.discriminator_optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._discriminator_tracker.update_state(loss)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments as plain values."""
        frame = {name: getattr(self.stft, name) for name in self.stft.__dataclass_fields__}
        names = ("metric_weight", "channels", "discriminator_rate")
        return {
            **{name: getattr(self, name) for name in names},
            "stft": frame,
            "network": keras.saving.serialize_keras_object(self.network),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MetricTrainer":
        """Makes a trainer from `get_config`."""
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects)
        return cls(**{**config, "network": network})


def _check(metric_weight: float) -> None:
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A metric discriminator is trained on TensorFlow, with PESQ on the host in the step. "
            f"Received the backend {keras.backend.backend()}. "
            "Use --backend=tensorflow, or metric_weight=0."
        )
    if metric_weight <= 0.0:
        raise ValueError(
            "`metric_weight` of a metric discriminator must be positive. "
            f"Received metric_weight={metric_weight}. Train the network alone for none."
        )
