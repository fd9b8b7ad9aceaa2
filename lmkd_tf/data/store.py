# SPDX-License-Identifier: Apache-2.0
"""Decodes clips once into memory as int16 mono, and keeps a list of those it could not.

Five and a half hours of speech are 650 MB as int16; decoding them takes well under a
minute, so that training never waits for a file. What does not fit into memory is packed
(`packed`), sharded (`shards`) or read from its files crop by crop (`streaming`); all of
these give an `AudioStore` too, and the same batches.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from scipy.signal import sosfilt

from lmkd_tf.data.index import Clip
from lmkd_tf.dsp.pcm import float_to_int16, int16_to_float

Reader = Callable[[Path], tuple[np.ndarray, int]]

MIN_SECONDS = 0.05
TREBLE_SHELF_HZ = 4000.0

# A decoded file may miss this share of its listed length before it counts as truncated.
_TRUNCATION_TOLERANCE = 0.05
_NUM_THREADS = 2


@dataclass(frozen=True, eq=False)
class AudioStore:
    """Holds clips, decoded in memory or read where they lie.

    Args:
        signals: One int16 array `(N,)` per clip, mono, or what has its `size` and slices.
        clips: The clips, in the same order.
        skipped: Path and reason of every clip that could not be used.
        sample_rate_hz: Sample rate of all signals in Hz.
        levels_dbfs: RMS level of each clip in dBFS where it is known; None where it has
            to be measured.
    """

    signals: Sequence[Any]
    clips: list[Clip]
    skipped: list[tuple[Path, str]]
    sample_rate_hz: int
    levels_dbfs: Sequence[float] | None = None

    @property
    def seconds(self) -> float:
        """Length of all signals together in s."""
        return sum(signal.size for signal in self.signals) / self.sample_rate_hz

    def describe_skipped(self) -> str:
        """Returns the skipped files, one per line with the reason; empty if none."""
        return "\n".join(f"{path}: {reason}" for path, reason in self.skipped)


def load_store(
    clips: Iterable[Clip],
    sample_rate_hz: int = 16000,
    max_failed_fraction: float = 0.05,
    on_progress: Callable[[int, int], None] | None = None,
    read: Reader | None = None,
) -> AudioStore:
    """Decodes clips to int16 mono at one sample rate.

    Args:
        clips: Clips to decode, at least one.
        sample_rate_hz: Sample rate in Hz; other rates are resampled.
        max_failed_fraction: Share of unusable clips, in [0, 1], that is put up with.
        on_progress: Called with (clips done, clips in all).
        read: Reads samples `(N,)` and their rate in Hz from a file; `read_mono` if None.

    Returns:
        The store, in the order of `clips` without the skipped ones.

    Raises:
        ValueError: If there is no clip, no clip is usable, or more than
            `max_failed_fraction` of them fail.
    """
    listed = list(clips)
    if not listed:
        raise ValueError(
            "`clips` must hold at least one clip. Received none. "
            "Select them with Corpus.speech_in or Corpus.noise_in."
        )
    signals: list[np.ndarray] = []
    kept: list[Clip] = []
    skipped: list[tuple[Path, str]] = []
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        decoded = pool.map(lambda clip: try_decode(clip, sample_rate_hz, read), listed)
        for index, (clip, signal) in enumerate(zip(listed, decoded, strict=True)):
            if isinstance(signal, str):
                skipped.append((clip.path, signal))
            else:
                signals.append(signal)
                kept.append(clip)
            if on_progress is not None:
                on_progress(index + 1, len(listed))
    check_failures(skipped, len(listed), max_failed_fraction)
    return AudioStore(signals, kept, skipped, sample_rate_hz)


def at_speeds(store: AudioStore, speeds: Sequence[float]) -> AudioStore:
    """Makes a store of every clip at each of some speeds, pitch and all.

    Each speed takes the memory of the clips once more, divided by the speed.

    Args:
        store: Clips in memory or packed.
        speeds: How much faster; 1 leaves the clips as they are.

    Returns:
        The store, all clips at the first speed before those at the next.

    Raises:
        ValueError: If clips that are read where they lie are to have another speed than 1.
    """
    if tuple(speeds) == (1.0,):
        return store
    if not all(isinstance(signal, np.ndarray) for signal in store.signals):
        raise ValueError(
            "Recordings must be in memory or packed to be played at other speeds. "
            f"Received speeds {tuple(speeds)} for clips that are read as they are needed. "
            "Pack the corpus with lmkd-data pack, or leave out `noise_speeds`."
        )
    signals = [_at_speed(signal, speed) for speed in speeds for signal in store.signals]
    return replace(store, signals=signals, clips=store.clips * len(speeds), levels_dbfs=None)


def _at_speed(signal: np.ndarray, speed: float) -> np.ndarray:
    if speed == 1.0:
        return signal
    return float_to_int16(soxr.resample(int16_to_float(signal), speed, 1.0, quality="HQ"))


def check_failures(
    skipped: list[tuple[Path, str]], num_clips: int, max_failed_fraction: float
) -> None:
    """Refuses to go on where too many of the clips cannot be used.

    Args:
        skipped: Path and reason of each unusable clip.
        num_clips: Number of clips in all.
        max_failed_fraction: Share that is put up with, in [0, 1].

    Raises:
        ValueError: If there are more, or nothing is usable.
    """
    if len(skipped) <= max_failed_fraction * num_clips and len(skipped) < num_clips:
        return
    first = "; ".join(f"{path} ({reason})" for path, reason in skipped[:5])
    raise ValueError(
        f"At most {max_failed_fraction:.0%} of the listed files may be unusable. "
        f"Received {len(skipped)} unusable of {num_clips}, the first: {first}. "
        "Restore these files or take them off the manifest."
    )


def try_decode(clip: Clip, sample_rate_hz: int, read: Reader | None = None) -> np.ndarray | str:
    """Decodes one clip to int16 mono.

    Args:
        clip: The clip.
        sample_rate_hz: Sample rate in Hz.
        read: Reads samples `(N,)` and their rate in Hz from a file; `read_mono` if None.

    Returns:
        The signal, int16, shape `(N,)`, or the reason why the clip cannot be used.
    """
    try:
        samples, file_rate_hz = _read_difference(clip, read or read_mono)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).replace(str(clip.path), "the file").split())
        return reason if isinstance(error, _UnusableError) else f"could not be decoded: {reason}"
    reason = find_fault(samples, file_rate_hz, clip.seconds)
    if reason:
        return reason
    signal = _to_store_format(samples, file_rate_hz, sample_rate_hz, clip.treble_lift_db)
    return signal if signal.any() else "is silent once stored as int16"


class _UnusableError(ValueError):
    """Says why a file cannot be used where its decoder would not."""


def _read_difference(clip: Clip, read: Reader) -> tuple[np.ndarray, int]:
    """Reads a clip, less the clean file that it names, if any."""
    samples, rate_hz = _read_checked(clip.path, read)
    if clip.minus is None:
        return samples, rate_hz
    clean, clean_rate_hz = _read_checked(clip.minus, read)
    if rate_hz != clean_rate_hz or samples.shape != clean.shape:
        raise _UnusableError(
            f"differs from its clean file in length or rate: {samples.size} samples at {rate_hz} "
            f"Hz, {clean.size} at {clean_rate_hz} Hz"
        )
    return samples - clean, rate_hz


def _read_checked(path: Path, read: Reader) -> tuple[np.ndarray, int]:
    if not path.is_file():
        raise _UnusableError("does not exist")
    if path.stat().st_size == 0:
        raise _UnusableError("is empty (0 bytes)")
    return read(path)


def read_mono(path: Path) -> tuple[np.ndarray, int]:
    """Reads an audio file and averages its channels.

    Args:
        path: Any file that libsndfile decodes.

    Returns:
        Samples, float32, shape `(N,)`, in [-1, 1], and the sample rate in Hz.
    """
    samples, sample_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return mono, int(sample_rate_hz)


def find_fault(samples: np.ndarray, sample_rate_hz: int, listed_seconds: float) -> str:
    """Says why samples `(N,)` are of no use; empty where they are.

    Args:
        samples: Decoded samples.
        sample_rate_hz: Their sample rate in Hz.
        listed_seconds: Length in s that the corpus states; 0 where it does not.
    """
    fault = find_length_fault(samples.size, sample_rate_hz, listed_seconds)
    if fault:
        return fault
    if not np.isfinite(samples).all():
        return "holds NaN or infinite samples"
    return "" if samples.any() else "is all zero"


def find_length_fault(num_samples: int, sample_rate_hz: int, listed_seconds: float) -> str:
    """Says why so many samples are too few; empty where they are enough. See `find_fault`."""
    seconds = num_samples / sample_rate_hz
    if num_samples == 0:
        return "holds no samples"
    if seconds < MIN_SECONDS:
        return f"is shorter than {MIN_SECONDS} s"
    if seconds < listed_seconds * (1.0 - _TRUNCATION_TOLERANCE) - MIN_SECONDS:
        return f"is truncated: {seconds:.2f} s of the {listed_seconds:.2f} s listed"
    return ""


def _to_store_format(
    samples: np.ndarray, file_rate_hz: int, sample_rate_hz: int, treble_lift_db: float
) -> np.ndarray:
    samples = resample(samples, file_rate_hz, sample_rate_hz)
    if treble_lift_db:
        samples = lift_treble(samples, sample_rate_hz, treble_lift_db)
    peak = float(np.abs(samples).max(initial=0.0))
    # Resampling and the shelf may overshoot; scale the whole clip rather than clip it.
    return float_to_int16(samples * np.float32(0.999 / peak) if peak > 1.0 else samples)


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resamples a signal by soxr, quality HQ.

    Args:
        samples: Samples, float32, shape `(N,)`.
        from_hz: Their sample rate in Hz.
        to_hz: Sample rate wanted in Hz.
    """
    if from_hz == to_hz:
        return samples
    divisor = gcd(from_hz, to_hz)
    return soxr.resample(samples, from_hz // divisor, to_hz // divisor, quality="HQ")


def lift_treble(samples: np.ndarray, sample_rate_hz: int, gain_db: float) -> np.ndarray:
    """Raises the treble by a smooth high shelf with half its gain at 4 kHz.

    Args:
        samples: Samples, float32, shape `(N,)`.
        sample_rate_hz: Sample rate in Hz, above 8000.
        gain_db: Gain far above 4 kHz in dB.

    Returns:
        Filtered samples, float32, shape `(N,)`.

    References:
        R. Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter
        coefficients", high shelf with slope S = 1.
    """
    amplitude = 10.0 ** (gain_db / 40.0)
    omega = 2.0 * np.pi * TREBLE_SHELF_HZ / sample_rate_hz
    cosine, root = np.cos(omega), np.sqrt(2.0 * amplitude) * np.sin(omega)
    plus, minus = amplitude + 1.0, amplitude - 1.0
    numerator = (
        amplitude * (plus + minus * cosine + root),
        -2.0 * amplitude * (minus + plus * cosine),
        amplitude * (plus + minus * cosine - root),
    )
    denominator = (
        plus - minus * cosine + root,
        2.0 * (minus - plus * cosine),
        plus - minus * cosine - root,
    )
    section = np.array([*numerator, *denominator]) / denominator[0]
    return np.asarray(sosfilt(section[np.newaxis, :], samples), dtype=np.float32)
