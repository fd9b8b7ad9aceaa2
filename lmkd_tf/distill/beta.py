# SPDX-License-Identifier: Apache-2.0
"""Symmetric Beta variates by inversion, on every backend and under XLA.

`keras.random.beta` divides gamma variates, and XLA has no kernel for those on TensorFlow.
"""

import functools

import keras
import numpy as np
import scipy.special
from keras import ops

_NUM_INTERVALS = 4096


def symmetric_beta(shape, alpha: float, seed):
    """Draws from Beta(α, α) through a table of its quantiles.

    Between two of 4097 quantiles the law is uniform; mean and variance are those of Beta
    to five digits for α from 0.1 to 100.

    Args:
        shape: Shape of the result.
        alpha: α > 0.
        seed: `keras.random.SeedGenerator`.

    Returns:
        float32 tensor in [0, 1].
    """
    position = _NUM_INTERVALS * keras.random.uniform(shape, seed=seed)
    index = ops.minimum(ops.cast(ops.floor(position), "int32"), _NUM_INTERVALS - 1)
    table = ops.convert_to_tensor(_quantiles(alpha))
    low, high = ops.take(table, index), ops.take(table, index + 1)
    return low + (high - low) * (position - ops.cast(index, "float32"))


@functools.lru_cache(maxsize=32)
def _quantiles(alpha: float) -> np.ndarray:
    shares = np.linspace(0.0, 1.0, _NUM_INTERVALS + 1)
    return scipy.special.betaincinv(alpha, alpha, shares).astype(np.float32)
