# SPDX-License-Identifier: Apache-2.0
"""What the grid network was compared with: transposed convolution, complex mask, deep filter.

Float networks over whole utterances, causal like the grid. They have no step graph, because the
firmware and the int8 export know real gains alone; `./x bench search` says what that costs.
"""

from types import ModuleType
from typing import Any, Literal

import keras
from keras import layers, ops

from lmkd_tf.dsp.mask import apply_band_mask, compress
from lmkd_tf.dsp.stft import inverse_stft
from lmkd_tf.models.enhancer import SpeechEnhancer
from lmkd_tf.models.grid import Graph, mask_head, trunk

UPSAMPLINGS = ("sub_pixel", "transposed")
COMPRESSION = 0.3  # of the complex spectrum that the network sees beside its features


def build_grid_variant(
    *,
    num_bands: int,
    bands_per_position: int,
    upsampling: Literal["sub_pixel", "transposed"],
    num_filtered_bins: int,
    num_taps: int,
    namespace: ModuleType = keras,
    is_step: bool = False,
    **sizes: Any,
) -> Any:
    """Builds a variant of `build_grid`.

    Args:
        num_bands: Number of bands E.
        bands_per_position: Neighboring bands in one position; see `build_grid`.
        upsampling: How the decoder doubles its positions.
        num_filtered_bins: The lowest K bins that are filtered after the gains, a multiple of
            `bands_per_position`; 0 for real gains alone. Where bands are single bins (the lowest
            54 of 144 bands, all of 257) position and bin belong together.
        num_taps: Complex taps N of that filter, of this frame and those before; one is a complex
            mask, several are a deep filter (Schröter et al. 2022).
        namespace: Must be `keras`.
        is_step: Must be False.
        **sizes: The other sizes of `build_grid`.

    Returns:
        Functional model from `(B, T, 1, E + 2 K)`, features and compressed spectrum of K bins, to
        `(B, T, 1, E + 2 N K)`, gains in [0, 1] and taps.

    Raises:
        ValueError: If a size does not fit, or a step graph or a `tf_keras` twin is asked for.
    """
    if is_step or namespace is not keras:
        raise ValueError(
            "A variant of the grid is float and has no step graph. "
            f"Received is_step={is_step}, namespace={namespace.__name__}. "
            "Use one of the students for a device."
        )
    if upsampling not in UPSAMPLINGS:
        raise ValueError(
            f"`upsampling` must be one of {', '.join(UPSAMPLINGS)}. "
            f"Received {upsampling!r}. Use 'sub_pixel'."
        )
    num_positions, rest = divmod(num_filtered_bins, bands_per_position)
    if rest or num_filtered_bins > num_bands or (num_filtered_bins > 0) != (num_taps > 0):
        raise ValueError(
            "`num_filtered_bins` must fill positions, fit into the bands and come with "
            f"`num_taps`. Received num_filtered_bins={num_filtered_bins}, num_taps={num_taps}, "
            f"num_bands={num_bands}, bands_per_position={bands_per_position}. Use for example "
            f"{4 * bands_per_position} bins and 1 tap, or 0 and 0."
        )
    graph = Graph(keras, is_step=False)
    inputs = graph.input("features", (None, 1, num_bands + 2 * num_filtered_bins))
    all_positions = num_bands // bands_per_position
    x = graph.reshape(inputs[..., :num_bands], (all_positions, bands_per_position), "positions")
    if num_taps:
        low = graph.reshape(
            inputs[..., num_bands:], (num_positions, 2 * bands_per_position), "low_positions"
        )
        low = layers.ZeroPadding2D(((0, 0), (0, all_positions - num_positions)))(low)
        x = layers.Concatenate(name="with_spectrum")([x, low])
    upsample = _transposed if upsampling == "transposed" else None
    decoded = trunk(graph, x, upsample=upsample, **sizes)
    mask = mask_head(graph, decoded, num_bands)
    if not num_taps:
        return graph.model(mask)
    # Zero taps leave what the gains made, which is where training starts.
    taps = graph.head(
        decoded[:, :, :num_positions],
        2 * num_taps * bands_per_position,
        "taps",
        kernel_initializer="zeros",
    )
    taps = graph.reshape(taps, (1, 2 * num_taps * num_filtered_bins), "taps_by_bin")
    return graph.model(layers.Concatenate(name="mask_and_taps")([mask, taps]))


def _transposed(graph: Graph, x: Any, channels: int) -> Any:
    """Two positions out of each one by a kernel over its neighbors."""
    expand = layers.Conv2DTranspose(
        channels, (1, 3), strides=(1, 2), padding="same", use_bias=False, name="expand_conv"
    )
    return layers.BatchNormalization(name="interleave")(expand(x))


@keras.saving.register_keras_serializable(package="lmkd_tf")
class GridVariantEnhancer(SpeechEnhancer):
    """Enhances waveforms around `build_grid_variant`; arguments and shapes of `SpeechEnhancer`.

    A filtered bin is `sum_i (1[i = 0] + c_i(t)) X(t - i)` with the taps c and the bin X after
    the gains.
    """

    def _prepare(self) -> None:
        super()._prepare()
        self._num_bins, self._num_taps = self.size["num_filtered_bins"], self.size["num_taps"]

    def _count_bands(self) -> int:
        return self.size["num_bands"]

    def step_graph(self) -> Any:
        """Refuses: neither export nor firmware knows complex taps.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "A network that streams here has real gains. "
            "Received a variant of the grid, which exists for comparison. "
            "Call it on whole recordings, or use one of the students."
        )

    def features(self, spectrum):
        """Returns `(B, T, 1, E + 2 K)` of a spectrum `(B, T, F, 2)`."""
        features = super().features(spectrum)
        if not self._num_taps:
            return features
        _, low = compress(spectrum[:, :, : self._num_bins], COMPRESSION)
        return ops.concatenate([features, self._flat(low)], axis=-1)

    def synthesize(self, spectrum, mask, num_samples):
        """Returns `(B, N)` from a spectrum `(B, T, F, 2)` and the output of the network."""
        mask = ops.cast(mask[:, :, 0], "float32")
        gains, taps = mask[..., : self.num_bands], mask[..., self.num_bands :]
        masked = apply_band_mask(spectrum, gains, self._matrix)
        if self._num_taps:
            low, high = masked[:, :, : self._num_bins], masked[:, :, self._num_bins :]
            masked = ops.concatenate([self._filter(low, taps), high], axis=2)
        return inverse_stft(masked, self.stft, num_samples)

    def _flat(self, low):
        batch, num_frames = ops.shape(low)[:2]
        return ops.reshape(low, (batch, num_frames, 1, 2 * self._num_bins))

    def _filter(self, low, taps):
        """Filters `(B, T, K, 2)` along time by taps `(B, T, 2 N K)`."""
        batch, num_frames = ops.shape(low)[:2]
        taps = ops.reshape(taps, (batch, num_frames, self._num_bins, self._num_taps, 2))
        filtered = low
        for index in range(self._num_taps):
            delayed = ops.pad(low, ((0, 0), (index, 0), (0, 0), (0, 0)))[:, : ops.shape(low)[1]]
            filtered = filtered + _product(taps[..., index, :], delayed)
        return filtered


def _product(x, y):
    """Complex product of `(..., 2)` and `(..., 2)`."""
    real = x[..., 0] * y[..., 0] - x[..., 1] * y[..., 1]
    imaginary = x[..., 0] * y[..., 1] + x[..., 1] * y[..., 0]
    return ops.stack([real, imaginary], axis=-1)
