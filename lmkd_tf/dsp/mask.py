# SPDX-License-Identifier: Apache-2.0
"""Masks and magnitude compression."""

import numpy as np
from keras import ops

# Keeps the gradient of the power law finite at zero magnitude.
_EPSILON = 1e-8


def apply_band_mask(spectrum, mask, matrix: np.ndarray):
    """Multiplies a spectrum by a mask given in bands.

    Args:
        spectrum: Shape `(B, T, F, 2)`.
        mask: Gains in [0, 1], shape `(B, T, E)`.
        matrix: Interpolation matrix of `erb_matrix`, shape `(F, E)`.

    Returns:
        Masked spectrum of shape `(B, T, F, 2)`.
    """
    return spectrum * ops.matmul(mask, matrix.T)[..., None]


def compress(spectrum, exponent: float):
    """Raises the magnitude of a spectrum to a power and keeps its phase.

    Args:
        spectrum: Shape `(..., 2)`.
        exponent: Power between 0 and 1.

    Returns:
        Magnitude of shape `(...)` and compressed spectrum of shape `(..., 2)`.
    """
    # One logarithm and two exponentials are several times faster than `power`.
    log_magnitude = 0.5 * ops.log(ops.sum(ops.square(spectrum), axis=-1) + _EPSILON)
    compressed = spectrum * ops.exp((exponent - 1.0) * log_magnitude)[..., None]
    return ops.exp(exponent * log_magnitude), compressed
