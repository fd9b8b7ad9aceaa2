# SPDX-License-Identifier: Apache-2.0
"""Frequency bands: single bins where the ear resolves them, ERB-spaced above."""

import functools

import numpy as np

from lmkd_tf.config.schema import StftConfig


def erb_width_hz(frequency_hz):
    """Returns the equivalent rectangular bandwidth of hearing, in Hz.

    `24.7 * (4.37 * f / 1000 + 1)`, Glasberg & Moore 1990, equation 3.

    Args:
        frequency_hz: Center frequency, in Hz; scalar or array.
    """
    return 24.7 * (4.37 * np.asarray(frequency_hz) / 1000.0 + 1.0)


def band_centers(config: StftConfig, num_bands: int) -> np.ndarray:
    """Returns the center of every band, in (fractional) bins.

    Two neighbors are one bin apart at low frequency, and a constant share of
    the ERB where that is wider. The share is found by bisection so that exactly
    `num_bands` bands reach from 0 Hz to half of the sampling rate.

    Args:
        config: Frame of the transform.
        num_bands: Number of bands, from 2 to the number of bins.

    Returns:
        Increasing float64 array of shape `(E,)`, from 0 to `num_bins - 1`.

    Raises:
        ValueError: If there are fewer than two bands or more bands than bins.
    """
    if not 2 <= num_bands <= config.num_bins:
        raise ValueError(
            "`num_bands` must lie between 2 and the number of bins. "
            f"Received num_bands={num_bands}, num_bins={config.num_bins}. "
            f"Use at most {config.num_bins}."
        )
    last_bin = config.num_bins - 1
    bins = np.linspace(0.0, last_bin, 64 * last_bin + 1)
    erb_bins = erb_width_hz(bins * config.sample_rate_hz / config.fft_length) * (
        config.fft_length / config.sample_rate_hz
    )

    def cumulative(bands_per_erb: float) -> np.ndarray:
        density = np.minimum(1.0, bands_per_erb / erb_bins)  # bands per bin
        steps = 0.5 * (density[1:] + density[:-1]) * np.diff(bins)
        return np.concatenate([[0.0], np.cumsum(steps)])

    low, high = 0.0, float(erb_bins[-1])
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if cumulative(middle)[-1] < num_bands - 1 else (low, middle)
    counted = cumulative(high)
    return np.interp(np.linspace(0.0, counted[-1], num_bands), counted, bins)


@functools.lru_cache(maxsize=8)
def erb_matrix(config: StftConfig, num_bands: int) -> np.ndarray:
    """Returns the interpolation matrix from bands to bins.

    Bin `f` lies between two band centers and takes its gain from both by linear
    interpolation, so every row sums to one: `gains_bins = gains_bands @ matrix.T`.

    Args:
        config: Frame of the transform.
        num_bands: Number of bands E, at most F. With E = F it is the identity.

    Returns:
        float32 array of shape `(F, E)`.

    Raises:
        ValueError: If there are fewer than two bands or more bands than bins.
    """
    centers = band_centers(config, num_bands)
    bins = np.arange(config.num_bins)
    columns = [np.interp(bins, centers, unit) for unit in np.eye(num_bands)]
    return np.stack(columns, axis=1).astype(np.float32)
