# SPDX-License-Identifier: Apache-2.0
"""The supervised loss of speech enhancement."""

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
    + w_si_sdr * negative_si_sdr_db`, where `S_c` has the magnitude `|S|^c` and the
    phase of S. The spectral terms are those of CMGAN's generator loss (Cao et
    al., 2022) without its discriminator; the weights are reconstructed.

    Args:
        stft: Frame of the transform; a `StftConfig` or its fields as a dict.
        exponent: Magnitude compression c, in (0, 1].
        magnitude_weight: w_mag.
        complex_weight: w_complex.
        si_sdr_weight: w_si_sdr, per dB.
        name: Name of the loss.

    Input shape:
        `y_true` and `y_pred`: clean and enhanced speech in [-1, 1], `(B, N)`.

    Output shape:
        `call` returns one value per example, `(B,)`.
    """

    def __init__(
        self,
        stft: StftConfig | dict | None = None,
        exponent: float = 0.3,
        magnitude_weight: float = 0.7,
        complex_weight: float = 0.3,
        si_sdr_weight: float = 0.01,
        name: str = "speech_loss",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if not 0.0 < exponent <= 1.0:
            raise ValueError(
                "`exponent` must lie in (0, 1]. "
                f"Received exponent={exponent}. Use 0.3 for the usual compression."
            )
        self.stft = StftConfig(**stft) if isinstance(stft, dict) else stft or StftConfig()
        self.exponent = exponent
        self.magnitude_weight = magnitude_weight
        self.complex_weight = complex_weight
        self.si_sdr_weight = si_sdr_weight

    def call(self, y_true, y_pred):
        """Computes the loss per example, shape `(B,)`."""
        clean_magnitude, clean = compress(stft(y_true, self.stft), self.exponent)
        magnitude, enhanced = compress(stft(y_pred, self.stft), self.exponent)
        magnitude_error = ops.mean(ops.square(clean_magnitude - magnitude), axis=(1, 2))
        complex_error = ops.mean(ops.sum(ops.square(clean - enhanced), axis=-1), axis=(1, 2))
        spectral = self.magnitude_weight * magnitude_error + self.complex_weight * complex_error
        return 10.0 * spectral + self.si_sdr_weight * negative_si_sdr_db(y_true, y_pred)

    def get_config(self) -> dict:
        """Returns the constructor arguments as plain values."""
        frame = {name: getattr(self.stft, name) for name in self.stft.__dataclass_fields__}
        names = ("exponent", "magnitude_weight", "complex_weight", "si_sdr_weight")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), "stft": frame, **own}
