# SPDX-License-Identifier: Apache-2.0
"""CMGAN's generator: two-stage conformers on a compressed spectrum (Abdulatif et al. 2022).

A dense encoder halves the frequency axis; blocks of a time and a frequency conformer follow; one
decoder estimates a mask for the magnitude, the other a complex correction. Width and depth are
arguments, so that teacher (64 channels) and student (12 channels) share this file. The network
sees the whole utterance: it has no step graph.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras
from keras import layers, ops

from lmkd_tf.dsp.centered_stft import centered_stft, inverse_centered_stft
from lmkd_tf.models.axial_attention import AxialAttention
from lmkd_tf.models.enhancer import SpeechEnhancer, TappedEnhancer, check_samples

COMPRESSION = 0.3
NUM_HEADS = 4
DENSE_DILATIONS = (1, 2, 4, 8)  # frames
KERNEL_LENGTH = 31  # of the convolution in a conformer, in frames or bins
EPSILON = 1e-5  # of every normalization
# Powers below are silence: they keep level and phase finite.
_SILENCE = 1e-12


def build_cmgan(
    *,
    channels: int,
    num_blocks: int,
    frame: tuple[int, int],
    max_distances: tuple[int, int],
    dropout: float,
    namespace: ModuleType = keras,
    is_step: bool = False,
) -> Any:
    """Builds the generator on compressed spectra.

    Args:
        channels: Width C, a multiple of 4.
        num_blocks: Two-stage conformer blocks; `tscb_1` is the first.
        frame: Length of the transform, which gives the number of bins F, and its hop, which
            `CMGANEnhancer` uses; both in samples.
        max_distances: Distances from which on attention does not tell positions apart: in
            frames along time, and in halved bins along frequency.
        dropout: Share of values dropped in training.
        namespace: Must be `keras`.
        is_step: Must be False.

    Returns:
        Functional model from `(B, T, F, 3)`, compressed magnitude and compressed spectrum, to
        the enhanced compressed spectrum `(B, T, F, 2)`.

    Raises:
        ValueError: If the frame does not fit, or a step graph or a `tf_keras` twin is asked for.
    """
    if is_step or namespace is not keras:
        raise ValueError(
            "CMGAN sees whole utterances, so it neither streams nor is compressed. "
            f"Received is_step={is_step}, namespace={namespace.__name__}. "
            "Distil it into a streaming student."
        )
    if frame[0] % 4 or frame[0] % frame[1]:
        raise ValueError(
            "The length of `frame` must be a multiple of 4 and of its hop. "
            f"Received {tuple(frame)}. Use for example (400, 100)."
        )
    num_bins = frame[0] // 2 + 1
    spectrum = layers.Input((None, num_bins, 3), name="spectrum")
    x = _pointwise_unit(spectrum, channels, "encoder_in")
    x = _dense_block(x, "encoder_dense")
    x = layers.ZeroPadding2D((0, 1), name="encoder_pad")(x)
    x = layers.Conv2D(channels, (1, 3), strides=(1, 2), name="encoder_conv")(x)
    x = _norm_prelu(x, "encoder")
    for index in range(1, num_blocks + 1):
        x = _conformer(x, f"tscb_{index}_time", 1, max_distances[0], dropout)
        x = _conformer(x, f"tscb_{index}_frequency", 2, max_distances[1], dropout, f"tscb_{index}")
    mask = _mask_decoder(x)
    correction = _complex_decoder(x)
    enhanced = MaskAndCorrect(name="enhanced")([spectrum, mask, correction])
    return keras.Model(spectrum, enhanced)


@keras.saving.register_keras_serializable(package="lmkd_tf")
class MaskAndCorrect(layers.Layer):
    """Multiplies the spectrum by the mask and adds the correction.

    Its inputs are `(B, T, F, 3)`, `(B, T, F, 1)` and `(B, T, F, 2)`.
    """

    def call(self, inputs):
        """Returns the enhanced spectrum `(B, T, F, 2)`."""
        spectrum, mask, correction = inputs
        return spectrum[..., 1:] * mask + correction

    def compute_output_shape(self, input_shape):
        """Returns the shape of the correction."""
        return input_shape[2]


@keras.saving.register_keras_serializable(package="lmkd_tf")
class CMGANEnhancer(SpeechEnhancer):
    """Enhances waveforms around `build_cmgan`: level, centered STFT, compression and back.

    The arguments are those of `SpeechEnhancer`. The network has a transform of its own
    (`frame` in `size`), so the frame of `stft` serves mixing by bands in distillation only.

    Input shape:
        Noisy speech in [-1, 1], `(B, N)`, N above `fft_length / 2`.

    Output shape:
        Enhanced speech, `(B, N)`.
    """

    def _prepare(self) -> None:
        self.num_bands = int(self.core.output_shape[-2])  # every bin is a band
        self._frame = tuple(self.size["frame"])

    def step_graph(self) -> Any:
        """Refuses: the network sees whole utterances.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "A network that streams must be causal. "
            "Received a CMGAN, which sees whole utterances. "
            "Call it on whole recordings, compare it with lmkd-evaluate, or stream a student."
        )

    def analyze(self, noisy) -> tuple[Any, Any]:
        """Returns features `(B, T, F, 3)` and the level `(B, 1)` of noisy speech `(B, N)`.

        The signal is brought to a power of one, and filled up to whole hops by its beginning.
        """
        check_samples(noisy)
        noisy = ops.cast(noisy, "float32")
        fft_length, hop_length = self._frame
        num_samples = _num_samples(noisy)
        _check_length(num_samples, fft_length)
        level = ops.sqrt(ops.maximum(ops.mean(ops.square(noisy), 1, keepdims=True), _SILENCE))
        scaled = noisy / level
        scaled = ops.concatenate([scaled, scaled[:, : -num_samples % hop_length]], axis=1)
        spectrum = _compress(centered_stft(scaled, fft_length, hop_length), COMPRESSION)
        # The little that is added has no effect but on the gradient of an exact zero.
        magnitude = ops.sqrt(ops.sum(ops.square(spectrum), axis=-1, keepdims=True) + _SILENCE**2)
        return ops.concatenate([magnitude, spectrum], axis=-1), level

    def synthesize(self, spectrum, mask, num_samples):
        """Returns `(B, N)` from the network's spectrum `(B, T, F, 2)` and the level `(B, 1)`.

        Args:
            spectrum: The level, which `analyze` returns in this place.
            mask: Output of the network.
            num_samples: Length N.
        """
        enhanced = _compress(ops.cast(mask, "float32"), 1.0 / COMPRESSION)
        return inverse_centered_stft(enhanced, *self._frame)[:, :num_samples] * spectrum

    def tapped(self, layer_names: list[str], cut_names: Sequence[str] = ()) -> "TappedCMGAN":
        """Returns this model cut at named layers of its core."""
        return TappedCMGAN(self, layer_names, cut_names)


class TappedCMGAN(TappedEnhancer):
    """The `TappedModel` of a `CMGANEnhancer`: cuts its core, keeps its ends."""

    _enhancer: CMGANEnhancer

    def start(self, noisy) -> tuple[Any, list[Any]]:
        """Returns features and the context `[noisy]` of noisy speech `(B, N)`."""
        return self._enhancer.analyze(noisy)[0], [noisy]

    def run(self, segment: int, x, context: list[Any], training: bool) -> tuple[list[Any], Any]:
        """Runs one segment; after the last one `x` is speech `(B, N)`."""
        (noisy,) = context
        # Level and compression are not linear, so those of a mixture are taken anew.
        features, level = self._enhancer.analyze(noisy)
        latents, x = self._core.run(segment, x, [features], training)
        if segment == self.num_segments - 1:
            x = self._enhancer.synthesize(level, x, _num_samples(noisy))
        return latents, x


def _compress(spectrum, exponent: float):
    """Raises the magnitude of a spectrum `(..., 2)` to a power and keeps its phase."""
    power = ops.sum(ops.square(spectrum), axis=-1, keepdims=True)
    return spectrum * ops.exp(0.5 * (exponent - 1.0) * ops.log(power + _SILENCE))


def _check_length(num_samples: Any, fft_length: int) -> None:
    if isinstance(num_samples, int) and num_samples <= fft_length // 2:
        raise ValueError(
            f"CMGAN needs more than {fft_length // 2} samples, half of a window. "
            f"Received {num_samples}. Append zeros."
        )


def _num_samples(samples):
    return samples.shape[1] if samples.shape[1] is not None else ops.shape(samples)[1]


def _norm_prelu(x, name: str):
    """Instance normalization and one slope per channel; the output has the name given."""
    norm = layers.GroupNormalization(-1, epsilon=EPSILON, name=f"{name}_norm")
    slopes = keras.initializers.Constant(0.25)
    return layers.PReLU(slopes, shared_axes=[1, 2], name=name)(norm(x))


def _pointwise_unit(x, channels: int, name: str):
    return _norm_prelu(layers.Conv2D(channels, 1, name=f"{name}_conv")(x), name)


def _dense_block(x, name: str):
    """Dilated convolutions, each of which sees the outputs of all before it; the last goes on."""
    channels, seen, y = x.shape[-1], x, x
    for index, dilation in enumerate(DENSE_DILATIONS, 1):
        last = name if index == len(DENSE_DILATIONS) else f"{name}_{index}"
        y = layers.ZeroPadding2D(((dilation, 0), (1, 1)), name=f"{name}_pad_{index}")(seen)
        conv = layers.Conv2D(
            channels, (2, 3), dilation_rate=(dilation, 1), name=f"{name}_conv_{index}"
        )
        y = _norm_prelu(conv(y), last)
        seen = layers.Concatenate(name=f"{name}_join_{index}")([y, seen])
    return y


def _conformer(x, name: str, axis: int, max_distance: int, dropout: float, output: str = ""):
    """Feed-forward, attention, convolution and feed-forward, all with residuals, and one around."""
    y = _feed_forward(x, f"{name}_ff1", dropout)
    z = _layer_norm(y, f"{name}_attention_norm")
    z = AxialAttention(axis, NUM_HEADS, max_distance, name=f"{name}_attention")(z)
    z = layers.Dropout(dropout, name=f"{name}_attention_dropout")(z)
    y = layers.Add(name=f"{name}_attention_add")([y, z])
    y = _convolution(y, name, axis)
    y = _layer_norm(_feed_forward(y, f"{name}_ff2", dropout), f"{name}_norm")
    return layers.Add(name=output or name)([x, y])


def _feed_forward(x, name: str, dropout: float):
    channels = x.shape[-1]
    y = _layer_norm(x, f"{name}_norm")
    y = layers.Dense(4 * channels, activation="silu", name=f"{name}_wide")(y)
    y = layers.Dropout(dropout, name=f"{name}_wide_dropout")(y)
    y = layers.Dense(channels, name=f"{name}_narrow")(y)
    y = layers.Dropout(dropout, name=f"{name}_narrow_dropout")(y)
    y = layers.Rescaling(0.5, name=f"{name}_half")(y)
    return layers.Add(name=f"{name}_add")([x, y])


def _convolution(x, name: str, axis: int):
    """Gated pointwise, depthwise along the axis, pointwise."""
    channels, kernel = x.shape[-1], (KERNEL_LENGTH, 1) if axis == 1 else (1, KERNEL_LENGTH)
    y = _layer_norm(x, f"{name}_conv_norm")
    value = layers.Dense(2 * channels, name=f"{name}_conv_value")(y)
    gate = layers.Dense(2 * channels, activation="sigmoid", name=f"{name}_conv_gate")(y)
    y = layers.Multiply(name=f"{name}_conv_gated")([value, gate])
    y = layers.DepthwiseConv2D(kernel, padding="same", name=f"{name}_conv_depthwise")(y)
    batch_norm = layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, name=f"{name}_batch_norm")
    y = layers.Activation("silu", name=f"{name}_conv_silu")(batch_norm(y))
    y = layers.Dense(channels, name=f"{name}_conv_narrow")(y)
    return layers.Add(name=f"{name}_conv_add")([x, y])


def _layer_norm(x, name: str):
    return layers.LayerNormalization(epsilon=EPSILON, name=name)(x)


def _sub_pixel(x, name: str):
    """Doubles the frequency axis: two neighbors come from two groups of channels."""
    channels, num_bins = x.shape[-1], x.shape[-2]
    y = layers.ZeroPadding2D((0, 1), name=f"{name}_pad")(x)
    y = layers.Conv2D(2 * channels, (1, 3), name=f"{name}_conv")(y)
    return layers.Reshape((-1, 2 * num_bins, channels), name=name)(y)


def _mask_decoder(x):
    x = _sub_pixel(_dense_block(x, "mask_dense"), "mask_sub_pixel")
    x = layers.Conv2D(1, (1, 2), name="mask_conv")(x)
    x = layers.Conv2D(1, 1, name="mask_scale")(_norm_prelu(x, "mask_rectified"))
    slopes = keras.initializers.Constant(-0.25)  # one per bin: what is negative turns positive
    return layers.PReLU(slopes, shared_axes=[1], name="mask")(x)


def _complex_decoder(x):
    x = _sub_pixel(_dense_block(x, "complex_dense"), "complex_sub_pixel")
    return layers.Conv2D(2, (1, 2), name="complex")(_norm_prelu(x, "complex_rectified"))
