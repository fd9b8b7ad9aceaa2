# SPDX-License-Identifier: Apache-2.0
"""What the networks see: normalized log energies of the bands."""

import numpy as np
from keras import ops

# In one bin of a 512-sample window, 16-bit quantization noise has -77 dB: 2**-30 / 12, times the
# sum of the squared window, 256. The floor lies 17 dB above it and ends the range of the features.
FEATURE_FLOOR_DB = -60.0
# Maps -60 .. +40 dB, silence to full scale, onto -1 .. 1.
FEATURE_CENTER_DB = -10.0
FEATURE_SCALE_DB = 50.0


def analysis_matrix(matrix: np.ndarray) -> np.ndarray:
    """Returns the weights that average bin energies within each band.

    Args:
        matrix: Interpolation matrix of `erb_matrix`, shape `(F, E)`.

    Returns:
        float32 array of shape `(F, E)` whose columns sum to one.
    """
    return (matrix / matrix.sum(axis=0, keepdims=True)).astype(np.float32)


def band_features(spectrum, matrix: np.ndarray):
    """Computes normalized log band energies.

    `(10 * log10(energy + floor) - center) / scale`, with the mean energy of the
    bins of a band.

    Args:
        spectrum: Shape `(B, T, F, 2)`.
        matrix: Interpolation matrix of `erb_matrix`, shape `(F, E)`.

    Returns:
        Features of shape `(B, T, E)`, about -1 (silence) to 1 (full scale).
    """
    energy = ops.matmul(ops.sum(ops.square(spectrum), axis=-1), analysis_matrix(matrix))
    level_db = (10.0 / np.log(10.0)) * ops.log(energy + 10.0 ** (FEATURE_FLOOR_DB / 10.0))
    return (level_db - FEATURE_CENTER_DB) / FEATURE_SCALE_DB
