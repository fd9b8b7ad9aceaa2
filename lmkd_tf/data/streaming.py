# SPDX-License-Identifier: Apache-2.0
"""Reads clips from their files crop by crop, for corpora that do not fit into memory."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from absl import logging

from lmkd_tf.data.index import Clip
from lmkd_tf.data.store import AudioStore, check_failures, find_length_fault, try_decode
from lmkd_tf.dsp.level import rms_dbfs
from lmkd_tf.dsp.pcm import int16_to_float

# Formats in which a seek lands on the very sample; of others the whole file is decoded.
_SEEKABLE = ("WAV", "WAVEX", "FLAC", "W64", "AIFF", "AU", "RF64")
# Samples that are int16 without rounding. Read as int16, floats come unscaled (0 or +-1)
# and finer integers are truncated, where decoding into memory rounds.
_INT16_SUBTYPES = ("PCM_16", "PCM_S8", "PCM_U8")
_CACHE_BYTES = 256 * 2**20
_BLOCK_SAMPLES = 16000


class _Cache:
    """Keeps the signals decoded last, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._signals: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path) -> np.ndarray | None:
        with self._lock:
            if path in self._signals:
                self._signals.move_to_end(path)
            return self._signals.get(path)

    def put(self, path: Path, signal: np.ndarray) -> None:
        with self._lock:
            if path not in self._signals:
                self._signals[path] = signal
                self._num_bytes += signal.nbytes
            while self._num_bytes > self._max_bytes and len(self._signals) > 1:
                self._num_bytes -= self._signals.popitem(last=False)[1].nbytes


class FileSignal:
    """Stands for the int16 signal of a file; a slice reads that part of it.

    Args:
        clip: The clip.
        sample_rate_hz: Sample rate of the slices in Hz.
        cache: Keeps files that have to be decoded whole.
    """

    dtype = np.dtype(np.int16)
    ndim = 1

    def __init__(self, clip: Clip, sample_rate_hz: int, cache: _Cache) -> None:
        self._clip = clip
        self._rate_hz = sample_rate_hz
        self._cache = cache
        self._state = _state_of(clip.path)
        info = soundfile.info(clip.path)
        is_plain = clip.minus is None and not clip.treble_lift_db
        is_int16 = info.format in _SEEKABLE and info.subtype in _INT16_SUBTYPES
        self.is_direct = is_plain and is_int16 and info.samplerate == sample_rate_hz
        self._length_fault = find_length_fault(info.frames, info.samplerate, clip.seconds)
        # The length that soxr gives a whole file.
        self.size = round(info.frames * sample_rate_hz / info.samplerate)

    def __len__(self) -> int:
        return self.size

    def find_fault(self) -> str:
        """Says why the file is of no use, as far as a look at its beginning tells."""
        if self._length_fault or not self.is_direct:
            return self._length_fault
        # A file with sound in it is read no further than to the first of it.
        starts = range(0, self.size, _BLOCK_SAMPLES)
        is_heard = any(self[start : start + _BLOCK_SAMPLES].any() for start in starts)
        return "" if is_heard else "is all zero"

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self.size)
        if self.is_direct:
            return self._read(start, max(stop - start, 0))
        return self._whole()[start:stop]

    def any(self) -> bool:
        """Tells whether a sample is not zero."""
        return bool(self[:].any())

    def _read(self, start: int, count: int) -> np.ndarray:
        self._check_unchanged()
        try:
            samples, _ = soundfile.read(
                self._clip.path, frames=count, start=start, dtype="int16", always_2d=True
            )
        except RuntimeError as error:
            raise self._unreadable(str(error)) from error
        if samples.shape[0] != count:
            raise self._unreadable(f"ends after {start + samples.shape[0]} samples")
        if samples.shape[1] == 1:
            return samples[:, 0]
        return np.rint(samples.mean(axis=1)).astype(np.int16)

    def _whole(self) -> np.ndarray:
        cached = self._cache.get(self._clip.path)
        if cached is not None:
            return cached
        self._check_unchanged()
        signal = try_decode(self._clip, self._rate_hz)
        if isinstance(signal, str):
            raise OSError(
                "A recording that is read when it is drawn must be usable. "
                f"Received {self._clip.path}, which {signal}. "
                "Take it out of the corpus; lmkd-data inspect lists all such files."
            )
        fitted = np.zeros(self.size, dtype=np.int16)
        fitted[: signal.size] = signal[: self.size]
        self._cache.put(self._clip.path, fitted)
        return fitted

    def _check_unchanged(self) -> None:
        if _state_of(self._clip.path) != self._state:
            raise self._unreadable("is not the file that was there when training began")

    def _unreadable(self, reason: str) -> OSError:
        return OSError(
            "A recording must stay as it is while it is used. "
            f"Received {self._clip.path}, which {reason}. "
            "Restore it, or start again with the corpus as it is now."
        )


def _state_of(path: Path) -> tuple[int, int]:
    try:
        facts = os.stat(path)
    except OSError:
        return (-1, -1)
    return facts.st_size, facts.st_mtime_ns


class _LazyLevels(Sequence[float]):
    """Measures the level of a clip when it is asked for first."""

    def __init__(self, signals: list[FileSignal]) -> None:
        self._signals = signals
        self._levels_dbfs: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._signals)

    def __getitem__(self, index: Any) -> Any:
        if index not in self._levels_dbfs:
            self._levels_dbfs[index] = rms_dbfs(int16_to_float(self._signals[index][:]))
        return self._levels_dbfs[index]


def stream_store(
    clips: Iterable[Clip],
    sample_rate_hz: int = 16000,
    max_failed_fraction: float = 0.05,
    max_cache_bytes: int = _CACHE_BYTES,
) -> AudioStore:
    """Opens clips without decoding them; a crop is read when it is drawn.

    WAV and FLAC of at most 16 bits at the right rate are read in part. Other files are
    decoded whole, and the last ones of them kept.

    Files that are missing, too short, truncated by their header or, among those read in
    part, all zero are skipped as in memory. What else is wrong with a file (NaN, silence
    of one that has to be decoded whole, samples that end before the header says so) would
    be known after decoding all of the corpus only: it is an error when that file is drawn.

    Args:
        clips: Clips to open, at least one.
        sample_rate_hz: Sample rate in Hz; other rates are resampled.
        max_failed_fraction: Share of unusable clips, in [0, 1], that is put up with.
        max_cache_bytes: Room for files that are decoded whole.

    Returns:
        The store; a file that changes while it is in use is an error at that time.

    Raises:
        ValueError: If no clip is usable, or more than `max_failed_fraction` are not.
    """
    cache = _Cache(max_cache_bytes)
    signals: list[FileSignal] = []
    kept: list[Clip] = []
    skipped: list[tuple[Path, str]] = []
    for clip in clips:
        try:
            signal = FileSignal(clip, sample_rate_hz, cache)
            fault = signal.find_fault()
        except (OSError, RuntimeError, TypeError) as error:
            skipped.append((clip.path, f"could not be opened: {' '.join(str(error).split())}"))
            continue
        if fault:
            skipped.append((clip.path, fault))
            continue
        signals.append(signal)
        kept.append(clip)
    _warn_of_unseen(signals)
    check_failures(skipped, len(signals) + len(skipped), max_failed_fraction)
    return AudioStore(signals, kept, skipped, sample_rate_hz, _LazyLevels(signals))


def _warn_of_unseen(signals: list[FileSignal]) -> None:
    num_unseen = sum(not signal.is_direct for signal in signals)
    if num_unseen:
        logging.warning(
            "The corpus is too large for the memory: %d of %d files are decoded when they are "
            "drawn, and one that is unusable (silent, NaN) is an error then, not skipped. "
            "lmkd-data inspect finds these before; lmkd-data pack leaves them out, and is faster.",
            *(num_unseen, len(signals)),
        )
