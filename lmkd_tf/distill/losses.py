# SPDX-License-Identifier: Apache-2.0
"""The supervised loss of speech enhancement."""

from collections.abc import Sequence

import keras
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.mask import compress
from lmkd_tf.dsp.stft import stft
from lmkd_tf.metrics.si_sdr import negative_si_sdr_db


@keras.saving.register_keras_serializable(package="lmkd_tf")
class SpeechLoss(keras.losses.Loss):
    """Compressed-spectrum error plus negative SI-SDR.

    `10 * (w_mag * mean (|S|^c - |Y|^c)^2 + w_complex * mean |S_c - Y_c|^2)
    + w_si_sdr * negative_si_sdr_db + w_wave * mean |s - y|`, where `S_c` has the magnitude
    `|S|^c` and the phase of S. The spectral terms and the last one are those of CMGAN's
    generator loss (Cao et al., 2022) without its discriminator; the weights are
    reconstructed. With `resolutions` the spectral part is the mean over several transforms,
    after the multi-resolution loss of Yamamoto et al. (arXiv 1910.11480); *sketch*. With
    `magnitude_asymmetry` a, the squares of the first term count 1 + a times where speech is
    lost and 1 - a times where noise is left, after the asymmetric loss of VoiceFilter-Lite
    (Wang et al., arXiv 2009.04323); *sketch*.

    Args:
        stft: Frame of the transform; a `StftConfig` or its fields as a dict.
        exponent: Magnitude compression c, in (0, 1].
        magnitude_weight: w_mag.
        complex_weight: w_complex.
        si_sdr_weight: w_si_sdr, per dB.
        waveform_weight: w_wave.
        resolutions: Windows of further transforms in samples, each with half as hop.
        magnitude_asymmetry: a, in [-1, 1].

    Input shape:
        `y_true` and `y_pred`: clean and enhanced speech in [-1, 1], `(B, N)`.

    Output shape:
        `call` returns one value per example, `(B,)`.

    Raises:
        ValueError: If the exponent, the waveform's weight, a window or the asymmetry is out of
            range.
    """

    def __init__(  # noqa: PLR0913 - the terms of a loss
        self,
        stft: StftConfig | dict | None = None,
        exponent: float = 0.3,
        magnitude_weight: float = 0.7,
        complex_weight: float = 0.3,
        si_sdr_weight: float = 0.01,
        waveform_weight: float = 0.0,
        resolutions: Sequence[int] = (),
        magnitude_asymmetry: float = 0.0,
        **kwargs,
    ):
        super().__init__(**{"name": "speech_loss", **kwargs})
        _check(exponent, waveform_weight, resolutions, magnitude_asymmetry)
        self.stft = StftConfig(**stft) if isinstance(stft, dict) else stft or StftConfig()
        self.exponent = exponent
        self.magnitude_weight = magnitude_weight
        self.complex_weight = complex_weight
        self.si_sdr_weight = si_sdr_weight
        self.waveform_weight = waveform_weight
        self.resolutions = tuple(resolutions)
        self.magnitude_asymmetry = magnitude_asymmetry

    def call(self, y_true, y_pred):
        """Computes the loss per example, shape `(B,)`."""
        further = [
            StftConfig(self.stft.sample_rate_hz, window, window // 2, window)
            for window in self.resolutions
        ]
        frames = [self.stft, *further]
        spectral = sum(self._spectral_error(y_true, y_pred, frame) for frame in frames)
        loss = 10.0 * spectral / len(frames) + self.si_sdr_weight * negative_si_sdr_db(
            y_true, y_pred
        )
        if self.waveform_weight:
            loss = loss + self.waveform_weight * ops.mean(ops.abs(y_true - y_pred), axis=-1)
        return loss

    def get_config(self) -> dict:
        """Returns the constructor arguments as plain values."""
        frame = {name: getattr(self.stft, name) for name in self.stft.__dataclass_fields__}
        names = ("exponent", "magnitude_weight", "complex_weight", "si_sdr_weight")
        names += ("waveform_weight", "magnitude_asymmetry")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), "stft": frame, **own, "resolutions": list(self.resolutions)}

    def _spectral_error(self, y_true, y_pred, frame: StftConfig):
        """Weighted magnitude and complex error with one transform, `(B,)`."""
        clean_magnitude, clean = compress(stft(y_true, frame), self.exponent)
        magnitude, enhanced = compress(stft(y_pred, frame), self.exponent)
        lost = clean_magnitude - magnitude
        squares = (1.0 + self.magnitude_asymmetry * ops.sign(lost)) * ops.square(lost)
        magnitude_error = ops.mean(squares, axis=(1, 2))
        complex_error = ops.mean(ops.sum(ops.square(clean - enhanced), axis=-1), axis=(1, 2))
        return self.magnitude_weight * magnitude_error + self.complex_weight * complex_error


def _check(exponent, waveform_weight, resolutions, magnitude_asymmetry) -> None:
    if not -1.0 <= magnitude_asymmetry <= 1.0:
        raise ValueError(
            "`magnitude_asymmetry` must lie in [-1, 1]. "
            f"Received magnitude_asymmetry={magnitude_asymmetry}. Use 0.0 for none."
        )
    if not 0.0 < exponent <= 1.0:
        raise ValueError(
            "`exponent` must lie in (0, 1]. "
            f"Received exponent={exponent}. Use 0.3 for the usual compression."
        )
    if waveform_weight < 0.0:
        raise ValueError(
            "`waveform_weight` must not be negative. "
            f"Received waveform_weight={waveform_weight}. Use 0.0 to switch the term off."
        )
    if any(window < 2 or window % 2 for window in resolutions):
        raise ValueError(
            "`resolutions` must be even window lengths in samples. "
            f"Received resolutions={tuple(resolutions)}. Use for example (256, 1024)."
        )
