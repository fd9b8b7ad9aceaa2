# SPDX-License-Identifier: Apache-2.0
"""Levels in dBFS and the gains that reach them; numpy and scipy only.

0 dBFS is the RMS of a square wave of full scale, so a full-scale sine has -3.01 dBFS.
Sums run in double precision: processors add in different orders, and what is left of that
after rounding a gain to float32 is nothing, so that a mix is the same on every machine.
"""

import numpy as np
from scipy.ndimage import maximum_filter1d
from scipy.signal import lfilter

# Stands for the level of silence; below what 24-bit audio can hold.
SILENCE_DBFS = -160.0

# The active level leaves out pauses: frames of 20 ms more than 30 dB below the loudest
# frame. (ITU-T P.56 uses 15.9 dB below the mean active level, which is about the same
# place since the loudest syllables are 10 to 15 dB above that mean. Over 146 utterances of
# 60 speakers this level reads 0.52 dB more than that of P.56, standard deviation 0.38 dB:
# P.56 counts 0.2 s after each word as active. On 96 files of VoiceBank+DEMAND, which were
# mixed by P.56, the SNR by frames is 0.34 dB above the one stated, standard deviation 0.52,
# and that by `p56_level_dbfs` 0.08 dB, 0.17.)
_FRAME_SECONDS = 0.02
_ACTIVE_MARGIN_DB = 30.0

# ITU-T P.56 (12/2011), method B: time constant of the envelope, hangover, margin.
_P56_TIME_CONSTANT_S = 0.03
_P56_HANGOVER_S = 0.2
_P56_MARGIN_DB = 15.9
_P56_THRESHOLDS = 2.0 ** np.arange(-15, 0)

SPEECH_LEVELS = ("frames", "p56")


def power_to_dbfs(power: float) -> float:
    """Returns a mean square as a level in dBFS, not below `SILENCE_DBFS`.

    Example:
        >>> round(power_to_dbfs(0.5), 2)
        -3.01
    """
    return float(10.0 * np.log10(max(power, 10.0 ** (SILENCE_DBFS / 10.0))))


def db_to_gain(level_db: float) -> float:
    """Returns the amplitude factor of a gain in dB.

    Example:
        >>> round(db_to_gain(-6.0), 3)
        0.501
    """
    return float(10.0 ** (level_db / 20.0))


def mean_power(samples: np.ndarray) -> float:
    """Returns the mean square of samples `(N,)`; 0 for an empty array."""
    flat = np.ravel(samples).astype(np.float64, copy=False)
    # Not np.dot: BLAS would start threads for this, which wait for each other on a busy machine.
    return float(np.einsum("i,i->", flat, flat)) / max(flat.size, 1)


def rms_dbfs(samples: np.ndarray) -> float:
    """Returns the RMS level of samples `(N,)` in dBFS; `SILENCE_DBFS` for silence.

    Example:
        >>> round(rms_dbfs(np.full(100, 0.1)), 6)
        -20.0
    """
    return power_to_dbfs(mean_power(samples))


def active_level_dbfs(samples: np.ndarray, sample_rate_hz: int = 16000) -> float:
    """Returns the level of speech in dBFS without its pauses.

    The mean power over the frames of 20 ms that are within 30 dB of the loudest one.

    Args:
        samples: Speech, float, shape `(N,)`, in [-1, 1].
        sample_rate_hz: Sample rate in Hz.

    Returns:
        Active level in dBFS; `SILENCE_DBFS` for silence.
    """
    frame_length = round(_FRAME_SECONDS * sample_rate_hz)
    num_frames = samples.size // frame_length
    if num_frames < 2:
        return rms_dbfs(samples)
    frames = samples[: num_frames * frame_length].reshape(num_frames, frame_length)
    frames = frames.astype(np.float64, copy=False)
    powers = np.einsum("ij,ij->i", frames, frames) / frame_length
    threshold = powers.max() * 10.0 ** (-_ACTIVE_MARGIN_DB / 10.0)
    return power_to_dbfs(float(powers[powers >= threshold].mean(dtype=np.float64)))


def p56_level_dbfs(samples: np.ndarray, sample_rate_hz: int = 16000) -> float:
    """Returns the active speech level by ITU-T P.56, method B, in dBFS.

    The level of the samples whose two-stage envelope, held for 0.2 s, is above a
    threshold that lies 15.9 dB below that very level.

    Args:
        samples: Speech, float, shape `(N,)`, in [-1, 1].
        sample_rate_hz: Sample rate in Hz.

    Returns:
        Active level in dBFS; `SILENCE_DBFS` where nothing counts as speech.

    References:
        ITU-T Recommendation P.56 (12/2011), clause 6.
    """
    decay = np.exp(-1.0 / (sample_rate_hz * _P56_TIME_CONSTANT_S))
    envelope = np.abs(samples).astype(np.float64)
    for _ in range(2):
        envelope = lfilter([1.0 - decay], [1.0, -decay], envelope)
    # A sample is active if the envelope was above the threshold at most 0.2 s ago.
    hangover = int(np.ceil(_P56_HANGOVER_S * sample_rate_hz))
    padded = np.concatenate([np.zeros(hangover), envelope])
    held = maximum_filter1d(padded, hangover + 1, mode="constant", origin=hangover // 2)[hangover:]
    counts = np.array([np.count_nonzero(held >= threshold) for threshold in _P56_THRESHOLDS])
    used = counts > 0
    energy = mean_power(samples) * samples.size
    if energy <= 0.0 or not used.any():
        return SILENCE_DBFS
    levels_db = 10.0 * np.log10(energy / counts[used])
    margins_db = levels_db - 20.0 * np.log10(_P56_THRESHOLDS[used])
    return _level_at_margin(levels_db, margins_db)


def _level_at_margin(levels_db: np.ndarray, margins_db: np.ndarray) -> float:
    """Returns the level whose threshold is the margin below it, between the two nearest."""
    below = np.flatnonzero(margins_db <= _P56_MARGIN_DB)
    if below.size == 0:
        return float(levels_db[-1])
    upper = int(below[0])
    if upper == 0:  # below -74 dBFS, where the thresholds end
        return float(levels_db[0])
    lower = upper - 1
    share = (margins_db[lower] - _P56_MARGIN_DB) / (margins_db[lower] - margins_db[upper])
    return float(levels_db[lower] + share * (levels_db[upper] - levels_db[lower]))


def speech_level_dbfs(samples: np.ndarray, sample_rate_hz: int, method: str) -> float:
    """Returns the active speech level by `"frames"` or `"p56"`, in dBFS.

    Raises:
        ValueError: If the method is neither.
    """
    if method not in SPEECH_LEVELS:
        raise ValueError(
            f"`method` must be one of {', '.join(SPEECH_LEVELS)}. "
            f"Received {method!r}. Use 'frames'."
        )
    measure = p56_level_dbfs if method == "p56" else active_level_dbfs
    return measure(samples, sample_rate_hz)


def gain_to_dbfs(samples: np.ndarray, level_dbfs: float) -> float:
    """Returns the factor that brings samples `(N,)` to an RMS level; 1 for silence."""
    current_dbfs = rms_dbfs(samples)
    return 1.0 if current_dbfs <= SILENCE_DBFS else db_to_gain(level_dbfs - current_dbfs)
