# SPDX-License-Identifier: Apache-2.0
"""Draws speech crops and noise; pure numpy, every draw from the generator passed in.

Speech and noise come from pools, which are stores with what drawing needs: weights,
levels, and which clips share a speaker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from lmkd_tf.data.effects import CODECS, change_speed
from lmkd_tf.data.store import AudioStore
from lmkd_tf.dsp.level import SPEECH_LEVELS, db_to_gain, gain_to_dbfs, rms_dbfs
from lmkd_tf.dsp.pcm import int16_to_float

# Joint of a looped clip, and pause between two utterances of one speaker.
FADE_SECONDS = 0.02
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.05, 0.3
# Part of a crop that holds speech where a crop is to be partly silent.
MIN_SPEECH_SHARE, MAX_SPEECH_SHARE = 0.3, 0.85
MAX_CLIPS_PER_CROP = 8
# A noise segment this much quieter than its recording is a pause, and drawn again.
MAX_QUIETER_THAN_CLIP_DB = 15.0
MAX_DRAWS = 5
MIN_BABBLE_VOICES, MAX_BABBLE_VOICES = 3, 6
BABBLE_SPREAD_DB = 4.0
TWO_NOISES_SPREAD_DB = 6.0
SAMPLINGS = ("random", "epochs")
_PROBABILITIES = (
    *("partial_silence", "two_noises", "babble", "tilt"),
    *("room", "clip", "band_limit"),
    *("speed", "speech_tilt", "room_tone", "codec"),
)
TILT_PIVOT_HZ = 1000.0
# Level of speech over the quiet noise that stays in it.
MIN_ROOM_TONE_SNR_DB, MAX_ROOM_TONE_SNR_DB = 25.0, 45.0
SCALE_DBFS = -26.0
BAND_LIMIT_ORDER = 8


@dataclass(frozen=True)
class MixSettings:
    """Says how noisy crops are drawn.

    Args:
        crop_seconds: Length of a crop in s.
        snr_min_db: Lowest SNR in dB: active speech level over noise RMS.
        snr_max_db: Highest SNR in dB.
        level_min_dbfs: Lowest RMS level of the noisy signal in dBFS.
        level_max_dbfs: Highest RMS level; less where a peak would pass `peak_limit`.
        peak_limit: Largest sample magnitude of views and speech, in (0, 1].
        partial_silence_probability: Share of crops that are partly without speech.
        two_noises_probability: Share of noises that are a sum of recordings.
        babble_probability: Share of noises made of 3 to 6 other speakers.
        tilt_probability: Share of noises whose spectrum is tilted.
        tilt_max_db: Largest gain of the tilt in dB, treble over bass, up or down.
        max_noises: Most recordings in such a sum, at least 2.
        noise_speeds: Speeds, pitch and all, at which every noise recording is there to be drawn.
        room_probability: Share of pairs whose speech is heard in a room.
        early_ms: Reverberation up to this many ms after the direct sound stays in the
            clean target.
        clip_probability: Share of views that are clipped.
        clip_max_db: Deepest clipping: the limit lies up to this many dB below the peak.
        band_limit_probability: Share of pairs that are low-pass filtered, target and all.
        band_limits_hz: Cut-off frequencies to draw from, in Hz.
        speed_probability: Share of pairs whose speech is played faster or slower.
        speeds: Speeds to draw from.
        speech_tilt_probability: Share of pairs whose speech, target and all, has its
            spectrum tilted, by up to `tilt_max_db`.
        room_tone_probability: Share of pairs in which a noise 25 to 45 dB below the speech
            stays in the target, as in the pauses of most recordings.
        codec_probability: Share of views that pass a codec; the target does not.
        codecs: Names in `CODECS` to draw from.
        speech_level: How the level of speech is measured for the SNR: `"frames"` (see
            `active_level_dbfs`) or `"p56"` (ITU-T P.56).
        sampling: `"random"`: every second of speech is equally likely in every crop; or
            `"epochs"`: all speech once, in shuffled order, before any of it comes again.

    Raises:
        ValueError: If a range is empty or a probability is not in [0, 1].
    """

    crop_seconds: float = 2.0
    snr_min_db: float = -5.0
    snr_max_db: float = 20.0
    level_min_dbfs: float = -40.0
    level_max_dbfs: float = -12.0
    peak_limit: float = 0.99
    partial_silence_probability: float = 0.1
    two_noises_probability: float = 0.2
    babble_probability: float = 0.1
    tilt_probability: float = 0.3
    tilt_max_db: float = 6.0
    max_noises: int = 2
    noise_speeds: tuple[float, ...] = (1.0,)
    room_probability: float = 0.0
    early_ms: float = 50.0
    clip_probability: float = 0.0
    clip_max_db: float = 12.0
    band_limit_probability: float = 0.0
    band_limits_hz: tuple[float, ...] = (3400.0, 4000.0, 5500.0, 7000.0)
    speed_probability: float = 0.0
    speeds: tuple[float, ...] = (0.9, 1.1)
    speech_tilt_probability: float = 0.0
    room_tone_probability: float = 0.0
    codec_probability: float = 0.0
    codecs: tuple[str, ...] = ("ulaw", "vorbis")
    speech_level: str = "frames"
    sampling: str = "random"

    def __post_init__(self) -> None:
        _require(self.crop_seconds >= 0.1, "`crop_seconds` must be at least 0.1 s", self)
        _require(self.snr_min_db <= self.snr_max_db, "The SNR range must not be empty", self)
        _require(
            self.level_min_dbfs <= self.level_max_dbfs <= 0.0,
            "The level range must not be empty and must end at 0 dBFS or below",
            self,
        )
        _require(0.0 < self.peak_limit <= 1.0, "`peak_limit` must be in (0, 1]", self)
        _require(self.tilt_max_db >= 0.0, "`tilt_max_db` must not be negative", self)
        _require(self.max_noises >= 2, "`max_noises` must be at least 2", self)
        _require(self.early_ms >= 0.0, "`early_ms` must not be negative", self)
        _require(self.clip_max_db > 0.0, "`clip_max_db` must be above 0 dB", self)
        limits_hz = self.band_limits_hz
        is_audible = len(limits_hz) > 0 and min(limits_hz) >= 100.0
        _require(is_audible, "`band_limits_hz` must hold frequencies of at least 100 Hz", self)
        for name in ("speeds", "noise_speeds"):
            speeds = getattr(self, name)
            are_speeds = len(speeds) > 0 and 0.5 <= min(speeds) <= max(speeds) <= 2.0
            _require(are_speeds, f"`{name}` must hold factors from 0.5 to 2", self)
        are_codecs = len(self.codecs) > 0 and {*self.codecs} <= {*CODECS}
        _require(are_codecs, f"`codecs` must hold names out of {', '.join(CODECS)}", self)
        for name, known in (("speech_level", SPEECH_LEVELS), ("sampling", SAMPLINGS)):
            rule = f"`{name}` must be one of {', '.join(known)}"
            _require(getattr(self, name) in known, rule, self)
        for name in _PROBABILITIES:
            probability = getattr(self, f"{name}_probability")
            rule = f"`{name}_probability` must be in [0, 1]"
            _require(0.0 <= probability <= 1.0, rule, self)


def _require(is_met: bool, rule: str, received: MixSettings) -> None:
    if not is_met:
        raise ValueError(f"{rule}. Received {received}. Correct that value.")


@dataclass(frozen=True, eq=False)
class SpeechPool:
    """Speech to draw from.

    Args:
        signals: Clips, int16, shapes `(N,)`.
        groups: Speaker of each clip.
        cumulative: Running sum of the draw weights, ends at 1, shape `(clips,)`.
        members: Clip indices of each speaker.
        sample_rate_hz: Sample rate in Hz.
    """

    signals: Sequence[Any]
    groups: list[str]
    cumulative: np.ndarray
    members: dict[str, np.ndarray]
    sample_rate_hz: int


@dataclass(frozen=True, eq=False)
class NoisePool:
    """Noise to draw from.

    Args:
        signals: Clips, int16, shapes `(N,)`.
        cumulative: Running sum of the draw weights, ends at 1, shape `(clips,)`.
        levels_dbfs: RMS level of each whole clip in dBFS, shape `(clips,)`.
        sample_rate_hz: Sample rate in Hz.
    """

    signals: Sequence[Any]
    cumulative: np.ndarray
    levels_dbfs: Sequence[float]
    sample_rate_hz: int


@dataclass(frozen=True)
class Place:
    """Names one part of one clip, to draw a crop from.

    Args:
        clip: Index of the clip in its pool.
        part: Which part of it, from 0.
        num_parts: Number of parts of that clip.
    """

    clip: int
    part: int
    num_parts: int


def speech_pool(store: AudioStore, *, is_for_babble: bool = False) -> SpeechPool:
    """Makes a pool in which every second of speech is equally likely.

    Args:
        store: Speech of one split.
        is_for_babble: Whether it becomes noise. Speech with a dull codec's treble is
            then never drawn: it serves as clean source only.

    Returns:
        The pool.
    """
    groups = [clip.group for clip in store.clips]
    weights = np.array([signal.size for signal in store.signals], dtype=np.float64)
    if is_for_babble:
        as_recorded = np.array([clip.treble_lift_db == 0.0 for clip in store.clips])
        weights *= as_recorded if as_recorded.any() else 1.0
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return SpeechPool(
        signals=store.signals,
        groups=groups,
        cumulative=np.cumsum(weights / weights.sum()),
        members={group: np.array(indices) for group, indices in members.items()},
        sample_rate_hz=store.sample_rate_hz,
    )


def noise_pool(store: AudioStore) -> NoisePool:
    """Makes a pool that favors rare kinds of noise.

    A category is drawn in proportion to the square root of its length, a clip within
    it in proportion to its length.
    """
    sizes = np.array([signal.size for signal in store.signals], dtype=np.float64)
    names = [clip.category for clip in store.clips]
    totals = dict.fromkeys(names, 0.0)
    for name, size in zip(names, sizes, strict=True):
        totals[name] += size
    weights = sizes / np.sqrt([totals[name] for name in names])
    levels = store.levels_dbfs
    if levels is None:
        levels = [rms_dbfs(int16_to_float(signal)) for signal in store.signals]
    return NoisePool(
        signals=store.signals,
        cumulative=np.cumsum(weights / weights.sum()),
        levels_dbfs=levels,
        sample_rate_hz=store.sample_rate_hz,
    )


def draw_index(rng: np.random.Generator, cumulative: np.ndarray) -> int:
    """Draws an index by its weight; `cumulative` is the running sum, shape `(clips,)`."""
    index = int(np.searchsorted(cumulative, rng.random(), side="right"))
    return min(index, cumulative.size - 1)


def loop_clip(
    signal: np.ndarray, offset: int, num_samples: int, fade_samples: int = 320
) -> np.ndarray:
    """Cuts a segment out of a clip, starting the clip again where it ends.

    At each restart the end of the clip fades out while its start fades in, with equal
    power since the two are unrelated.

    Args:
        signal: Clip, int16, shape `(N,)`, not empty.
        offset: First sample, in `[0, N)`.
        num_samples: Length of the segment in samples.
        fade_samples: Length of the cross-fade; at most a quarter of the clip is used.

    Returns:
        Segment, float32, shape `(num_samples,)`, in [-1, 1] but for overlapping peaks.
    """
    if offset + num_samples <= signal.size:
        return int16_to_float(signal[offset : offset + num_samples])
    clip = int16_to_float(signal[:])
    fade = min(fade_samples, signal.size // 4)
    joint = signal.size - fade
    rise = np.sin(0.5 * np.pi * (np.arange(fade) + 0.5) / max(fade, 1)).astype(np.float32)
    crossed = clip[joint:] * rise[::-1] + clip[:fade] * rise
    period = np.concatenate([crossed, clip[fade:joint]])
    repeats = np.tile(period, 2 + num_samples // period.size)
    if offset > joint:
        return repeats[offset - joint :][:num_samples]
    return np.concatenate([clip[offset:joint], repeats])[:num_samples]


def draw_noise_clip(rng: np.random.Generator, pool: NoisePool, num_samples: int) -> np.ndarray:
    """Draws a segment of one noise recording, at -26 dBFS.

    A segment that is mostly a pause of its recording is drawn again, so that the silence
    between two barks is not amplified into a roar.

    Args:
        rng: Generator of all draws.
        pool: Noise to draw from.
        num_samples: Length in samples.

    Returns:
        Noise, float32, shape `(num_samples,)`.
    """
    noise = np.zeros(num_samples, dtype=np.float32)
    for _ in range(MAX_DRAWS):
        index = draw_index(rng, pool.cumulative)
        signal = pool.signals[index]
        last_start = signal.size - num_samples
        offset = int(rng.integers(last_start + 1 if last_start > 0 else signal.size))
        noise = loop_clip(signal, offset, num_samples, round(FADE_SECONDS * pool.sample_rate_hz))
        if rms_dbfs(noise) > pool.levels_dbfs[index] - MAX_QUIETER_THAN_CLIP_DB:
            break
    return noise * np.float32(gain_to_dbfs(noise, SCALE_DBFS))


def draw_babble(
    rng: np.random.Generator, pool: SpeechPool, num_samples: int, talker: str
) -> np.ndarray:
    """Sums 3 to 6 voices other than the talker, at levels within ±4 dB.

    Args:
        rng: Generator of all draws.
        pool: Speech of the same split.
        num_samples: Length in samples.
        talker: Speaker who must not be in the babble.

    Returns:
        Babble, float32, shape `(num_samples,)`, at about -26 dBFS; silence if the pool
        has no other speaker.
    """
    babble = np.zeros(num_samples, dtype=np.float32)
    for _ in range(int(rng.integers(MIN_BABBLE_VOICES, MAX_BABBLE_VOICES + 1))):
        index = draw_index(rng, pool.cumulative)
        signal = pool.signals[index]
        offset = int(rng.integers(signal.size))
        level_dbfs = SCALE_DBFS + rng.uniform(-BABBLE_SPREAD_DB, BABBLE_SPREAD_DB)
        if pool.groups[index] != talker:
            voice = loop_clip(signal, offset, num_samples)
            babble += voice * np.float32(gain_to_dbfs(voice, level_dbfs))
    return babble * np.float32(gain_to_dbfs(babble, SCALE_DBFS))


def tilt_spectrum(samples: np.ndarray, tilt_db: float, sample_rate_hz: int) -> np.ndarray:
    """Tilts a spectrum about 1 kHz by a first-order shelf.

    Args:
        samples: Signal, float32, shape `(N,)`.
        tilt_db: Gain of treble over bass in dB: half of it up, half of it down.
        sample_rate_hz: Sample rate in Hz.

    Returns:
        Filtered signal, float32, shape `(N,)`.
    """
    # H(s) = (s g + w) / (s + w g), bilinear: gain 1/g at 0 Hz, 1 at the pivot, g on top.
    gain = db_to_gain(tilt_db / 2.0)
    warped = np.tan(np.pi * TILT_PIVOT_HZ / sample_rate_hz)
    numerator = np.array([gain + warped, warped - gain])
    denominator = np.array([1.0 + warped * gain, warped * gain - 1.0])
    scale = denominator[0]
    coefficients = (numerator / scale).astype(np.float32), (denominator / scale).astype(np.float32)
    return np.asarray(lfilter(*coefficients, samples), dtype=np.float32)


def draw_noise(
    rng: np.random.Generator,
    noises: NoisePool,
    voices: SpeechPool,
    talker: str,
    settings: MixSettings,
) -> np.ndarray:
    """Draws one noise of the length of a crop: a recording, two of them, or babble.

    Args:
        rng: Generator of all draws.
        noises: Noise recordings.
        voices: Speech for babble, of the same split.
        talker: Speaker of the crop, kept out of the babble.
        settings: Shares of the kinds.

    Returns:
        Noise, float32, shape `(N,)`, at any level: the SNR is set later.
    """
    num_samples = round(settings.crop_seconds * noises.sample_rate_hz)
    kind, tilted = rng.random(2)
    noise = np.zeros(num_samples, dtype=np.float32)
    if kind < settings.babble_probability:
        noise = draw_babble(rng, voices, num_samples, talker)
    if not noise.any():  # Also where the talker is the only voice.
        noise = draw_noise_clip(rng, noises, num_samples)
    if 0.0 <= kind - settings.babble_probability < settings.two_noises_probability:
        # No draw where there is no choice, so that older seeds give what they gave.
        is_pair = settings.max_noises == 2
        num_noises = 2 if is_pair else int(rng.integers(2, settings.max_noises + 1))
        for _ in range(num_noises - 1):
            spread_db = rng.uniform(-TWO_NOISES_SPREAD_DB, TWO_NOISES_SPREAD_DB)
            other = draw_noise_clip(rng, noises, num_samples)
            noise = noise + other * np.float32(db_to_gain(spread_db))
    if tilted < settings.tilt_probability:
        tilt_db = rng.uniform(-settings.tilt_max_db, settings.tilt_max_db)
        noise = tilt_spectrum(noise, tilt_db, noises.sample_rate_hz)
    return noise


def draw_speech(
    rng: np.random.Generator,
    pool: SpeechPool,
    settings: MixSettings,
    place: Place | None = None,
    speed: float = 1.0,
) -> tuple[np.ndarray, str]:
    """Draws one crop of clean speech and its speaker.

    A clip shorter than the crop is followed by more clips of the same speaker; where
    there are none, and in the share of crops that is to be partly silent, the rest of
    the crop is zeros on either side.

    Args:
        rng: Generator of all draws.
        pool: Speech to draw from.
        settings: Crop length and share of partly silent crops.
        place: Which clip, and which part of it; drawn at random if None.
        speed: How much faster it is played than it was spoken.

    Returns:
        Speech, float32, shape `(N,)`, at its recorded level, and the speaker.
    """
    num_samples = round(settings.crop_seconds * pool.sample_rate_hz)
    if speed != 1.0:
        slower = replace(settings, crop_seconds=settings.crop_seconds * speed)
        speech, talker = draw_speech(rng, pool, slower, place)
        return change_speed(speech, speed, num_samples), talker
    num_wanted = num_samples
    if rng.random() < settings.partial_silence_probability:
        num_wanted = int(num_samples * rng.uniform(MIN_SPEECH_SHARE, MAX_SPEECH_SHARE))
    index = draw_index(rng, pool.cumulative) if place is None else place.clip
    signal = pool.signals[index]
    if signal.size >= num_wanted:
        part_of, num_parts = (0, 1) if place is None else (place.part, place.num_parts)
        room = signal.size - num_wanted + 1
        first, last = part_of * room // num_parts, (part_of + 1) * room // num_parts
        offset = first + int(rng.integers(max(last - first, 1)))
        part = int16_to_float(signal[offset : offset + num_wanted])
    else:
        part = _join_clips(rng, pool, index, num_wanted)
    return _place(rng, part, num_samples, pool.sample_rate_hz), pool.groups[index]


def _join_clips(
    rng: np.random.Generator, pool: SpeechPool, first: int, num_wanted: int
) -> np.ndarray:
    """Returns up to `num_wanted` samples of one speaker's clips, float32, in random order."""
    members = pool.members[pool.groups[first]]
    others = rng.permutation(members[members != first])[: MAX_CLIPS_PER_CROP - 1]
    parts = [pool.signals[first][:]]
    length = parts[0].size
    for index in others:
        if length >= num_wanted:
            break
        pause = int(rng.uniform(MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS) * pool.sample_rate_hz)
        parts += [np.zeros(pause, dtype=np.int16), pool.signals[index][:]]
        length += pause + pool.signals[index].size
    return int16_to_float(np.concatenate(parts)[:num_wanted])


def _place(
    rng: np.random.Generator, part: np.ndarray, num_samples: int, sample_rate_hz: int
) -> np.ndarray:
    """Puts speech at a random place of a silent crop, its cut ends faded over 20 ms."""
    if part.size == num_samples:
        return part
    start = int(rng.integers(num_samples - part.size + 1))
    fade = min(round(FADE_SECONDS * sample_rate_hz), part.size // 2)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    crop = np.zeros(num_samples, dtype=np.float32)
    crop[start : start + part.size] = part
    crop[start : start + fade] *= ramp
    crop[start + part.size - fade : start + part.size] *= ramp[::-1]
    return crop


def clip_peaks(samples: np.ndarray, depth_db: float) -> np.ndarray:
    """Clips a signal hard at a limit below its own peak, as an overdriven input does.

    Args:
        samples: Signal, float32, shape `(N,)`.
        depth_db: How far the limit lies below the peak, in dB.

    Returns:
        Clipped signal, float32, shape `(N,)`.
    """
    limit = np.float32(np.abs(samples).max(initial=0.0) * db_to_gain(-depth_db))
    return np.clip(samples, -limit, limit)


def limit_band(samples: np.ndarray, cutoff_hz: float, sample_rate_hz: int) -> np.ndarray:
    """Takes away what lies above a frequency, as a narrow channel does.

    Args:
        samples: Signals, float32, shape `(..., N)`.
        cutoff_hz: Frequency with half the power left, in Hz; at or above half the sample
            rate nothing is taken away.
        sample_rate_hz: Sample rate in Hz.

    Returns:
        Filtered signals, float32, same shape (8th-order Butterworth, causal).
    """
    if cutoff_hz >= 0.5 * sample_rate_hz:
        return samples
    sections = butter(BAND_LIMIT_ORDER, cutoff_hz, fs=sample_rate_hz, output="sos")
    return np.asarray(sosfilt(sections, samples.astype(np.float64)), dtype=np.float32)
