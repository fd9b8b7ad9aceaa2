# SPDX-License-Identifier: Apache-2.0
"""Float samples in [-1, 1] to int16 and back; the only place that knows full scale."""

import numpy as np

_FULL_SCALE = 32768.0


def float_to_int16(samples: np.ndarray) -> np.ndarray:
    """Rounds float samples to int16; what is beyond full scale clips, never wraps.

    Args:
        samples: Samples in [-1, 1], float, any shape.

    Returns:
        Samples of the same shape, int16, where 32767 stands for 1 - 2**-15.

    Raises:
        TypeError: If the samples are not float.
        ValueError: If a sample is NaN or infinite.

    Example:
        >>> float_to_int16(np.array([-1.5, -1.0, 0.5, 1.0])).tolist()
        [-32768, -32768, 16384, 32767]
    """
    if not np.issubdtype(samples.dtype, np.floating):
        raise TypeError(
            "`samples` must be float in [-1, 1]. "
            f"Received dtype {samples.dtype}. "
            "Convert int16 samples with int16_to_float first."
        )
    if not np.isfinite(samples).all():
        raise ValueError(
            "`samples` must be finite. "
            f"Received {int((~np.isfinite(samples)).sum())} NaN or infinite values. "
            "Replace them before the conversion."
        )
    scaled = np.rint(samples * samples.dtype.type(_FULL_SCALE))
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1.0).astype(np.int16)


def int16_to_float(samples: np.ndarray) -> np.ndarray:
    """Scales int16 samples to float32 in [-1, 1); exact.

    Args:
        samples: Samples, int16, any shape.

    Returns:
        Samples of the same shape, float32.

    Raises:
        TypeError: If the samples are not int16.

    Example:
        >>> int16_to_float(np.array([-32768, 16384], dtype=np.int16)).tolist()
        [-1.0, 0.5]
    """
    if samples.dtype != np.int16:
        raise TypeError(
            "`samples` must be int16. "
            f"Received dtype {samples.dtype}. "
            "Pass the decoded PCM, or leave out the conversion where samples are float already."
        )
    return samples.astype(np.float32) * np.float32(1.0 / _FULL_SCALE)
