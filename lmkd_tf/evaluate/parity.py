# SPDX-License-Identifier: Apache-2.0
"""How far two back-ends, or two signals, are from each other."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import band_features
from lmkd_tf.dsp.stft import stft
from lmkd_tf.evaluate.streaming import Backend, StreamingEnhancer


@dataclass(frozen=True)
class Parity:
    """Agreement of two back-ends on one signal.

    Args:
        num_frames: Consecutive frames compared, state carried throughout.
        is_identical: Whether every gain is the same, bit for bit.
        gains_snr_db: First gains over their difference, in dB; infinite if identical.
        audio_snr_db: First enhanced signal over the difference, in dB.
        max_gain_difference: Largest difference of a gain.
    """

    num_frames: int
    is_identical: bool
    gains_snr_db: float
    audio_snr_db: float
    max_gain_difference: float


def snr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Computes the energy of `reference` over that of the difference, in dB.

    Args:
        reference: Any shape.
        other: Same shape.

    Returns:
        Ratio in dB; infinite if both are identical.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> round(snr_db(np.ones(5), np.full(5, 1.01)), 1)
        40.0
    """
    if reference.shape != other.shape:
        raise ValueError(
            "`reference` and `other` must have the same shape. "
            f"Received {reference.shape} and {other.shape}. Compare outputs of one signal."
        )
    reference = np.asarray(reference, np.float64)
    error_energy = np.sum((reference - other) ** 2)
    if error_energy == 0.0:
        return np.inf
    energy = np.sum(reference**2)
    return float(10.0 * np.log10(energy / error_energy)) if energy else -np.inf


def compare_backends(first: Backend, second: Backend, samples: np.ndarray) -> Parity:
    """Runs two back-ends over one signal from a fresh state.

    Args:
        first: Reference.
        second: Back-end to check; must have the same frame and bands.
        samples: Signal in [-1, 1], shape `(N,)`.

    Returns:
        Their agreement.

    Raises:
        ValueError: If the back-ends differ in frame or number of bands.
    """
    if (first.stft, first.num_bands) != (second.stft, second.num_bands):
        raise ValueError(
            "Two back-ends must share frame and bands to be compared. "
            f"Received {first.stft}, {first.num_bands} bands ({first.name}) and "
            f"{second.stft}, {second.num_bands} bands ({second.name}). Use exports of one network."
        )
    spectrum = stft(np.asarray(samples, np.float32)[None], first.stft)
    matrix = erb_matrix(first.stft, first.num_bands)
    features = np.asarray(ops.convert_to_numpy(band_features(spectrum, matrix)))[0]
    gains = []
    for backend in (first, second):
        backend.reset()
        gains.append(backend.gains(features))
    audio = [StreamingEnhancer(backend).enhance(samples) for backend in (first, second)]
    return Parity(
        num_frames=len(features),
        is_identical=bool(np.array_equal(*gains)),
        gains_snr_db=snr_db(*gains),
        audio_snr_db=snr_db(*audio),
        max_gain_difference=float(np.max(np.abs(gains[0] - gains[1]), initial=0.0)),
    )
