# SPDX-License-Identifier: Apache-2.0
"""Delay of a system: found by cross-correlation, one for all of its files."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import scipy.fft

MAX_DELAY_SAMPLES = 4800  # 0.3 s at 16 kHz: the slowest published system buffers as much
_TOLERANCE_SAMPLES = 8


def delay_samples(reference: np.ndarray, estimate: np.ndarray) -> int:
    """Finds how much later the estimate is than the reference.

    Args:
        reference: Clean speech, shape `(N,)`.
        estimate: The same speech, delayed, shape `(M,)`.

    Returns:
        Lag of the largest cross-correlation within 0.3 s, in samples; negative if the
        estimate is early.

    Example:
        >>> click = np.eye(1, 100)[0]
        >>> delay_samples(click, np.roll(click, 7))
        7
    """
    length = scipy.fft.next_fast_len(len(reference) + len(estimate), real=True)
    spectrum = scipy.fft.rfft(estimate, length) * np.conj(scipy.fft.rfft(reference, length))
    correlation = scipy.fft.irfft(spectrum, length)
    reach = min(MAX_DELAY_SAMPLES, (length - 1) // 2)
    lags = np.arange(-reach, reach + 1)
    return int(lags[np.argmax(correlation[lags])])


def common_delay_samples(delays: Sequence[int]) -> int:
    """Returns the delay that most files of a system have.

    Args:
        delays: Delay of each file, in samples; at least one.

    Returns:
        The most frequent delay.

    Raises:
        ValueError: If it is not that of at least half of the files, within half a millisecond.
    """
    delay, _ = Counter(delays).most_common(1)[0]
    num_alike = sum(abs(other - delay) <= _TOLERANCE_SAMPLES for other in delays)
    if 2 * num_alike < len(delays):
        raise ValueError(
            "A system must delay all files alike. "
            f"Received delays from {min(delays)} to {max(delays)} samples, of which {delay} is "
            f"the most frequent, in {num_alike} of {len(delays)} files. Check that the files "
            "belong together, or give the delay, as in NAME=FOLDER@320."
        )
    return delay


def advance(signal: np.ndarray, delay: int, length: int) -> np.ndarray:
    """Removes a delay and cuts or pads a signal.

    Args:
        signal: Delayed signal, shape `(M,)`.
        delay: Samples to take off the start; a negative number puts zeros there.
        length: Samples wanted.

    Returns:
        Signal of shape `(length,)`; zeros where there was nothing.

    Example:
        >>> advance(np.array([0.0, 0.0, 1.0, 2.0]), 2, 3)
        array([1., 2., 0.])
    """
    shifted = signal[delay:] if delay >= 0 else np.concatenate([np.zeros(-delay), signal])
    return np.concatenate([shifted[:length], np.zeros(max(0, length - len(shifted)))])
