# SPDX-License-Identifier: Apache-2.0
"""Scale-invariant signal-to-distortion ratio in dB: numpy, loss and metric.

`10 * log10(|a s|^2 / |a s - e|^2)` with `a = <e, s> / <s, s>`, speech `s` and
estimate `e` without their means (Le Roux et al., "SDR - half-baked or well
done?", ICASSP 2019, equations 4 and 5).
"""

import keras
import numpy as np
from keras import ops

# Added to energies: the noise of 16-bit rounding over a second is about 1e-6.
_EPSILON = 1e-8


def si_sdr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Computes SI-SDR of one signal, in dB.

    Args:
        reference: Clean speech, shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.

    Returns:
        SI-SDR in dB; infinite for a perfect estimate, minus infinite for an
        estimate that has nothing of the reference.

    Raises:
        ValueError: If the shapes differ or the reference is silent.

    Example:
        >>> si_sdr_db(np.array([1.0, -1.0, 1.0, -1.0]), np.array([2.0, 0.0, 0.0, -2.0]))
        0.0
    """
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(
            "`reference` and `estimate` must have the same shape (N,). "
            f"Received {reference.shape} and {estimate.shape}. Cut both to the same length."
        )
    if reference.size == 0 or np.ptp(reference) == 0.0:
        raise ValueError(
            "`reference` must hold speech, since SI-SDR of silence is undefined. "
            f"Received {reference.size} equal samples. Leave this clip out."
        )
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = np.dot(estimate, reference) / np.dot(reference, reference) * reference
    target_energy, error_energy = np.sum(target**2), np.sum((estimate - target) ** 2)
    if target_energy == 0.0:
        return -np.inf
    return float(10.0 * np.log10(target_energy / error_energy)) if error_energy else np.inf


def negative_si_sdr_db(y_true, y_pred):
    """Computes the negative SI-SDR, finite even for silence.

    Args:
        y_true: Clean speech, shape `(B, N)`.
        y_pred: Estimate, shape `(B, N)`.

    Returns:
        Negative SI-SDR in dB, shape `(B,)`.
    """
    speech = y_true - ops.mean(y_true, axis=-1, keepdims=True)
    estimate = y_pred - ops.mean(y_pred, axis=-1, keepdims=True)
    energy = ops.sum(ops.square(speech), axis=-1, keepdims=True)
    target = ops.sum(estimate * speech, axis=-1, keepdims=True) / (energy + _EPSILON) * speech
    target_energy = ops.sum(ops.square(target), axis=-1) + _EPSILON
    error_energy = ops.sum(ops.square(estimate - target), axis=-1) + _EPSILON
    return (10.0 / np.log(10.0)) * (ops.log(error_energy) - ops.log(target_energy))


@keras.saving.register_keras_serializable(package="lmkd_tf")
class SiSdr(keras.metrics.MeanMetricWrapper):
    """Averages SI-SDR in dB over examples.

    Args:
        name: Name in the logs.
        dtype: Type of the running sum.
    """

    def __init__(self, name: str = "si_sdr_db", dtype=None) -> None:
        super().__init__(_si_sdr_db, name=name, dtype=dtype)
        self._direction = "up"

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {"name": self.name, "dtype": self.dtype}


def _si_sdr_db(y_true, y_pred):
    return -negative_si_sdr_db(y_true, y_pred)
