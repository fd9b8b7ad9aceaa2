# SPDX-License-Identifier: Apache-2.0
"""The transforms of a stream, in NumPy: a frame gives the same bits alone or among others.

They are those of `stft.py`, `features.py` and `mask.py`, which train the networks. Keras leaves
the order of the sums in a matrix product to its back-end, and that order depends on the number of
frames; here every frame is transformed, and every sum over bands taken, on its own.
"""

import numpy as np
from scipy import sparse

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import (
    FEATURE_CENTER_DB,
    FEATURE_FLOOR_DB,
    FEATURE_SCALE_DB,
    analysis_matrix,
)
from lmkd_tf.dsp.stft import window


class HopTransforms:
    """Analysis, features, mask and synthesis of frames, in float64.

    Args:
        config: Frame of the transform.
        num_bands: Number of bands E.
    """

    def __init__(self, config: StftConfig, num_bands: int):
        matrix = erb_matrix(config, num_bands)
        self._config = config
        self._window = window(config).astype(np.float64)
        self._to_bins = sparse.csr_array(matrix.astype(np.float64))  # (F, E)
        self._to_bands = sparse.csr_array(analysis_matrix(matrix).T.astype(np.float64))  # (E, F)

    def analyze(self, frames: np.ndarray) -> np.ndarray:
        """Returns the complex spectrum `(T, F)` of samples `(T, window_length)`."""
        return np.fft.rfft(frames * self._window, n=self._config.fft_length)

    def features(self, spectrum: np.ndarray) -> np.ndarray:
        """Returns what the network sees of a spectrum `(T, F)`: float32, `(T, E)`."""
        power = np.real(spectrum) ** 2 + np.imag(spectrum) ** 2
        energy = np.asarray(self._to_bands @ power.T).T
        level_db = 10.0 * np.log10(energy + 10.0 ** (FEATURE_FLOOR_DB / 10.0))
        return ((level_db - FEATURE_CENTER_DB) / FEATURE_SCALE_DB).astype(np.float32)

    def apply(self, gains: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
        """Multiplies a spectrum `(T, F)` by gains of the bands `(T, E)`."""
        return spectrum * np.asarray(self._to_bins @ gains.T.astype(np.float64)).T

    def synthesize(self, spectrum: np.ndarray) -> np.ndarray:
        """Returns windowed samples `(T, window_length)` of a spectrum `(T, F)`."""
        frames = np.fft.irfft(spectrum, n=self._config.fft_length)
        return frames[:, : self._config.window_length] * self._window
