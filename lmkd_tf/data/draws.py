# SPDX-License-Identifier: Apache-2.0
"""What the pairs of a batch are made of, as numbers: which samples, levels and filters.

The draws are those of `pairing.draw_pair`, one by one from the same generators, so that the
same seed gives the same pairs; but here no sample is touched, save where a noise is drawn
again because it is a pause. `accelerator.mix_batch` makes the signals of them.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmkd_tf.data.mixing import (
    BABBLE_SPREAD_DB,
    FADE_SECONDS,
    MAX_BABBLE_VOICES,
    MAX_CLIPS_PER_CROP,
    MAX_DRAWS,
    MAX_PAUSE_SECONDS,
    MAX_QUIETER_THAN_CLIP_DB,
    MAX_SPEECH_SHARE,
    MIN_BABBLE_VOICES,
    MIN_PAUSE_SECONDS,
    MIN_SPEECH_SHARE,
    SCALE_DBFS,
    TWO_NOISES_SPREAD_DB,
    Place,
    draw_index,
    loop_clip,
)
from lmkd_tf.data.pairing import Effects
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.dsp.level import rms_dbfs

# The sum of squares is kept for blocks of this many samples.
_BLOCK = 256
# Arrays of a batch have one of few lengths, since each new one is compiled anew.
_MIN_PARTS = 2


@dataclass
class _Pair:
    """Numbers of one pair; the fields are the arrays of `BatchDraws.batch`, see there."""

    parts: list[tuple[int, int, int]] = field(default_factory=list)
    noises: list[tuple[int, int, int, int, float]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


class BatchDraws:
    """Draws batches of a `PairSource` without making their signals.

    Args:
        source: Source with signals in memory; its `settings` must be such that
            `accelerator.check_settings` accepts them.
    """

    def __init__(self, source: PairSource):
        self._source = source
        self._rate_hz = source.voices.sample_rate_hz
        sizes = [signal.size for signal in (*source.voices.signals, *source.noises.signals)]
        starts = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
        count = len(source.voices.signals)
        self._voice_starts, self._noise_starts = starts[:count], starts[count:]
        self._pauses = _Pauses(source.noises.signals, source.noises.levels_dbfs)

    def batch(self, batch_index: int) -> dict[str, np.ndarray]:
        """Draws one batch.

        Args:
            batch_index: Index k of the batch, from 0.

        Returns:
            Arrays by name, B pairs, P parts of speech, C noises in all; samples count from
            the start of all audio, speech before noise:

            - `part_start`, `part_place`, `part_size` `(B, P)`: samples that are copied, and
              to where in the crop;
            - `crop_start`, `crop_size`, `crop_fade` `(B,)`: what of the crop is speech, and
              how long its ends fade;
            - `speed`, `speech_tilt_db`, `level_dbfs`, `room`, `band` `(B,)`;
            - `tone_start`, `tone_size`, `tone_offset`, `tone_snr_db`, `tone_weight` `(B,)`:
              the room tone; of no weight where there is none;
            - `noise_start`, `noise_size`, `noise_offset`, `noise_view`, `noise_level_dbfs`,
              `noise_weight` `(C,)`: looped recordings that are summed in view `noise_view`
              of 2 B;
            - `noise_tilt_db`, `snr_db`, `clip_db`, `is_coded` `(B, 2)`.
        """
        pairs = [self._pair(batch_index, i) for i in range(self._source.batch_size)]
        names = pairs[0].values
        arrays = {name: np.array([pair.values[name] for pair in pairs]) for name in names}
        arrays = {
            name: array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
            for name, array in arrays.items()
        }
        return {**arrays, **_part_arrays(pairs), **_noise_arrays(pairs)}

    def _pair(self, batch_index: int, example: int) -> _Pair:
        """Mirrors `pairing.draw_pair`."""
        source, pair = self._source, _Pair()
        settings = source.settings
        rng, place = source.start(batch_index, example)
        effects = Effects(rng, settings)
        talker = self._draw_speech(rng, pair, place, effects.speed)
        tilts_db = [self._draw_noise(rng, pair, view, talker) for view in range(2)]
        snrs_db = rng.uniform(settings.snr_min_db, settings.snr_max_db, size=2)
        level_dbfs = rng.uniform(settings.level_min_dbfs, settings.level_max_dbfs)
        rooms, room = source.rooms, -1
        if rooms is not None and rng.random() < settings.room_probability:
            room = int(rng.integers(len(rooms.responses)))
        band = -1
        if rng.random() < settings.band_limit_probability:
            band = int(rng.integers(len(settings.band_limits_hz)))
        clips_db = [self._draw_clipping(rng) for _ in range(2)]
        speech_tilt_db = float(effects.tilt_db() or 0.0)
        pair.values |= self._draw_room_tone(effects)
        pair.values |= {
            "speed": float(effects.speed),
            "speech_tilt_db": speech_tilt_db,
            "level_dbfs": float(level_dbfs),
            "room": room,
            "band": band,
            "noise_tilt_db": tilts_db,
            "snr_db": snrs_db,
            "clip_db": clips_db,
            "is_coded": [int(effects.codec() is not None) for _ in range(2)],
        }
        return pair

    def _draw_room_tone(self, effects: Effects) -> dict[str, Any]:
        tone = effects.room_tone(lambda own: self._draw_clip(own, 0.0))
        start, size, offset, _ = tone.noise if tone else (0, 1, 0, 0.0)
        place = {"tone_start": start, "tone_size": size, "tone_offset": offset}
        snr_db, weight = (tone.snr_db, 1.0) if tone else (0.0, 0.0)
        return {**place, "tone_snr_db": float(snr_db), "tone_weight": weight}

    def _draw_clipping(self, rng: np.random.Generator) -> float:
        """Mirrors what `draw_pair` does to a view; 0 for no clipping."""
        settings = self._source.settings
        if rng.random() >= settings.clip_probability:
            return 0.0
        return rng.uniform(0.0, settings.clip_max_db)

    def _draw_speech(
        self, rng: np.random.Generator, pair: _Pair, place: Place | None, speed: float
    ) -> str:
        """Mirrors `mixing.draw_speech`; returns the talker."""
        pool, settings = self._source.voices, self._source.settings
        num_samples = round(settings.crop_seconds * speed * self._rate_hz)
        num_wanted = num_samples
        if rng.random() < settings.partial_silence_probability:
            num_wanted = int(num_samples * rng.uniform(MIN_SPEECH_SHARE, MAX_SPEECH_SHARE))
        index = draw_index(rng, pool.cumulative) if place is None else place.clip
        size = pool.signals[index].size
        if size >= num_wanted:
            part_of, num_parts = (0, 1) if place is None else (place.part, place.num_parts)
            room = size - num_wanted + 1
            first, last = part_of * room // num_parts, (part_of + 1) * room // num_parts
            offset = first + int(rng.integers(max(last - first, 1)))
            pair.parts = [(int(self._voice_starts[index]) + offset, 0, num_wanted)]
            length = num_wanted
        else:
            length = self._join_clips(rng, pair, index, num_wanted)
        start = fade = 0
        if length != num_samples:
            start = int(rng.integers(num_samples - length + 1))
            fade = min(round(FADE_SECONDS * self._rate_hz), length // 2)
        pair.values |= {"crop_start": start, "crop_size": length, "crop_fade": fade}
        return pool.groups[index]

    def _join_clips(self, rng: np.random.Generator, pair: _Pair, first: int, wanted: int) -> int:
        """Mirrors `mixing._join_clips`; returns the length in samples."""
        pool = self._source.voices
        members = pool.members[pool.groups[first]]
        others = rng.permutation(members[members != first])[: MAX_CLIPS_PER_CROP - 1]
        length = pool.signals[first].size
        pair.parts = [(int(self._voice_starts[first]), 0, length)]
        for index in others:
            if length >= wanted:
                break
            length += int(rng.uniform(MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS) * self._rate_hz)
            size = pool.signals[index].size
            pair.parts.append((int(self._voice_starts[index]), length, size))
            length += size
        return min(length, wanted)

    def _draw_noise(self, rng: np.random.Generator, pair: _Pair, view: int, talker: str) -> float:
        """Mirrors `mixing.draw_noise`; returns the tilt in dB."""
        settings = self._source.settings
        kind, tilted = rng.random(2)
        found: list[tuple[int, int, int, float]] = []
        if kind < settings.babble_probability:
            found = self._draw_babble(rng, talker)
        if not found:
            found = [self._draw_clip(rng, 0.0)]
        if 0.0 <= kind - settings.babble_probability < settings.two_noises_probability:
            is_pair = settings.max_noises == 2
            num_noises = 2 if is_pair else int(rng.integers(2, settings.max_noises + 1))
            for _ in range(num_noises - 1):
                spread_db = rng.uniform(-TWO_NOISES_SPREAD_DB, TWO_NOISES_SPREAD_DB)
                found.append(self._draw_clip(rng, spread_db))
        pair.noises += [(view, *noise) for noise in found]
        if tilted < settings.tilt_probability:
            return rng.uniform(-settings.tilt_max_db, settings.tilt_max_db)
        return 0.0

    def _draw_babble(
        self, rng: np.random.Generator, talker: str
    ) -> list[tuple[int, int, int, float]]:
        """Mirrors `mixing.draw_babble`."""
        pool, voices = self._source.babblers, []
        for _ in range(int(rng.integers(MIN_BABBLE_VOICES, MAX_BABBLE_VOICES + 1))):
            index = draw_index(rng, pool.cumulative)
            size = pool.signals[index].size
            offset = int(rng.integers(size))
            level_dbfs = SCALE_DBFS + rng.uniform(-BABBLE_SPREAD_DB, BABBLE_SPREAD_DB)
            if pool.groups[index] != talker:
                voices.append((int(self._voice_starts[index]), size, offset, level_dbfs))
        return voices

    def _draw_clip(self, rng: np.random.Generator, spread_db: float) -> tuple[int, int, int, float]:
        """Mirrors `mixing.draw_noise_clip`."""
        pool, num_samples = self._source.noises, self._source.num_samples
        index = offset = size = 0
        for _ in range(MAX_DRAWS):
            index = draw_index(rng, pool.cumulative)
            size = pool.signals[index].size
            last_start = size - num_samples
            offset = int(rng.integers(last_start + 1 if last_start > 0 else size))
            if not self._pauses.is_pause(index, offset, num_samples):
                break
        return int(self._noise_starts[index]), size, offset, SCALE_DBFS + spread_db


class _Pauses:
    """Tells whether a segment of a noise is much quieter than its recording."""

    def __init__(self, signals: Any, levels_dbfs: Any):
        self._signals, self._levels_dbfs = signals, levels_dbfs
        self._sums: dict[int, np.ndarray] = {}

    def is_pause(self, index: int, offset: int, num_samples: int) -> bool:
        signal = self._signals[index]
        limit_dbfs = self._levels_dbfs[index] - MAX_QUIETER_THAN_CLIP_DB
        if offset + num_samples > signal.size:
            return rms_dbfs(loop_clip(signal, offset, num_samples)) <= limit_dbfs
        first, last = -(-offset // _BLOCK), (offset + num_samples) // _BLOCK
        sums = self._sums_of(index)
        energy = sums[last] - sums[first]
        energy += _energy(signal[offset : first * _BLOCK])
        energy += _energy(signal[last * _BLOCK : offset + num_samples])
        power = energy / (num_samples * 32768.0**2)
        return 10.0 * np.log10(max(power, 1e-16)) <= limit_dbfs

    def _sums_of(self, index: int) -> np.ndarray:
        if index not in self._sums:
            signal = self._signals[index]
            squares = np.square(signal[: signal.size // _BLOCK * _BLOCK].astype(np.float64))
            blocks = squares.reshape(-1, _BLOCK).sum(axis=1)
            self._sums[index] = np.concatenate([[0.0], np.cumsum(blocks)])
        return self._sums[index]


def _energy(samples: np.ndarray) -> float:
    return float(np.square(samples.astype(np.float64)).sum())


def _part_arrays(pairs: list[_Pair]) -> dict[str, np.ndarray]:
    longest = max(len(pair.parts) for pair in pairs)
    width = _MIN_PARTS
    while width < longest:
        width *= 2
    arrays = np.zeros((3, len(pairs), width), np.int32)
    for row, pair in enumerate(pairs):
        arrays[:, row, : len(pair.parts)] = np.array(pair.parts).T
    return dict(zip(("part_start", "part_place", "part_size"), arrays, strict=True))


def _noise_arrays(pairs: list[_Pair]) -> dict[str, np.ndarray]:
    rows = [(2 * i + view, *rest) for i, pair in enumerate(pairs) for view, *rest in pair.noises]
    count = -(-len(rows) // len(pairs)) * len(pairs)
    filler = (0, 0, 1, 0, SCALE_DBFS)  # of no weight
    columns = zip(*rows, *[filler] * (count - len(rows)), strict=True)
    names = ("noise_view", "noise_start", "noise_size", "noise_offset", "noise_level_dbfs")
    arrays = {name: np.array(column) for name, column in zip(names, columns, strict=True)}
    arrays = {
        name: array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
        for name, array in arrays.items()
    }
    return {**arrays, "noise_weight": (np.arange(count) < len(rows)).astype(np.float32)}
