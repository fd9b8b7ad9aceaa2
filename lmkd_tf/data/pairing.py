# SPDX-License-Identifier: Apache-2.0
"""Makes two noisy views of one clean crop, with one gain for all three signals.

Latent mixup rests on "same clean, different noise". A gain per view would give the two
views different targets, and the premise would silently fail, so a pair has one gain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lmkd_tf.data.effects import encode_and_decode
from lmkd_tf.data.mixing import (
    MAX_ROOM_TONE_SNR_DB,
    MIN_ROOM_TONE_SNR_DB,
    MixSettings,
    NoisePool,
    Place,
    SpeechPool,
    clip_peaks,
    draw_noise,
    draw_noise_clip,
    draw_speech,
    limit_band,
    tilt_spectrum,
)
from lmkd_tf.data.rooms import RoomPool, draw_room, reverberate
from lmkd_tf.dsp.level import (
    SILENCE_DBFS,
    active_level_dbfs,
    db_to_gain,
    gain_to_dbfs,
    mean_power,
    power_to_dbfs,
    speech_level_dbfs,
)

# Level that stands for the speech where a crop has none, so that the noise still gets one.
NO_SPEECH_DBFS = -26.0


def mix_pair(
    speech: np.ndarray,
    noises: np.ndarray,
    snrs_db: np.ndarray,
    level_dbfs: float,
    *,
    target: np.ndarray | None = None,
    peak_limit: float = 0.99,
    speech_dbfs: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mixes one clean crop with V noises and applies one common gain.

    ``view_v = gain * (speech + noise_gain_v * noise_v)`` and ``clean = gain * target``
    with the same ``gain``: the mean power of the views comes to `level_dbfs`, or to less
    where a sample of any of the signals would pass `peak_limit`. Nothing is clipped.

    Args:
        speech: Clean crop, float32, shape `(N,)`, any level.
        noises: Noises, float32, shape `(V, N)`, any level.
        snrs_db: Active speech level over noise RMS for each view, in dB, shape `(V,)`.
        level_dbfs: RMS level of the views together in dBFS.
        target: What the views are to be cleaned to, float32, shape `(N,)`; `speech` if
            None. With reverberant speech it is the early part.
        peak_limit: Largest sample magnitude, in (0, 1].
        speech_dbfs: Active level of `speech` in dBFS; if None it is measured by frames
            at 16 kHz.

    Returns:
        Views, float32, shape `(V, N)`, and the clean crop, float32, shape `(N,)`.

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    if noises.ndim != 2 or noises.shape[1:] != speech.shape or len(snrs_db) != len(noises):
        raise ValueError(
            "`speech`, `noises` and `snrs_db` must have shapes (N,), (V, N) and (V,). "
            f"Received {speech.shape}, {noises.shape} and {np.shape(snrs_db)}. "
            "Cut the noises to the crop and give one SNR for each."
        )
    target = speech if target is None else target
    if speech_dbfs is None:
        speech_dbfs = active_level_dbfs(speech)
    if speech_dbfs <= SILENCE_DBFS:
        speech_dbfs = NO_SPEECH_DBFS
    gains = [
        gain_to_dbfs(noise, speech_dbfs - snr_db)
        for noise, snr_db in zip(noises, snrs_db, strict=True)
    ]
    views = speech + noises * np.array(gains, dtype=np.float32)[:, np.newaxis]
    peak = float(max(np.abs(views).max(), np.abs(speech).max(), np.abs(target).max()))
    gain = db_to_gain(level_dbfs - power_to_dbfs(mean_power(views)))
    # The factor keeps rounding to float32 from passing the limit.
    gain = np.float32(min(gain, 0.9999 * peak_limit / peak) if peak > 0.0 else 1.0)
    return views * gain, target * gain


def draw_pair(
    rng: np.random.Generator,
    voices: SpeechPool,
    noises: NoisePool,
    settings: MixSettings,
    *,
    babblers: SpeechPool | None = None,
    rooms: RoomPool | None = None,
    place: Place | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws one clean crop and two noisy views of it.

    Each view has a noise, an SNR, clipping and a codec of its own; speed, tilt, level, room,
    room tone and band are drawn once for the pair. A setting that is switched off draws nothing, so
    switching one on leaves speech, noises, SNRs and level of every pair as they were; but
    speech of another speed is a crop of another length.

    Args:
        rng: Generator of all draws.
        voices: Speech.
        noises: Noise of the same split.
        settings: Ranges and shares.
        babblers: Speech for babble; `voices` if None.
        rooms: Room impulse responses of the same split, if any.
        place: Which part of which clip; drawn at random if None.

    Returns:
        First view, second view and clean target, float32, shape `(N,)` each.
    """
    effects = Effects(rng, settings)
    speech, talker = draw_speech(rng, voices, settings, place, effects.speed)
    babblers = babblers or voices
    noise_pair = np.stack([draw_noise(rng, noises, babblers, talker, settings) for _ in range(2)])
    snrs_db = rng.uniform(settings.snr_min_db, settings.snr_max_db, size=2)
    level_dbfs = rng.uniform(settings.level_min_dbfs, settings.level_max_dbfs)
    rate_hz = voices.sample_rate_hz
    tilt_db = effects.tilt_db()
    if tilt_db is not None:
        speech = tilt_spectrum(speech, tilt_db, rate_hz)
    target = speech
    if rooms is not None and rng.random() < settings.room_probability:
        speech, target = reverberate(speech, draw_room(rng, rooms), settings.early_ms, rate_hz)
    tone = effects.room_tone(lambda own: draw_noise_clip(own, noises, speech.size))
    if tone is not None:
        tone_dbfs = speech_level_dbfs(speech, rate_hz, settings.speech_level) - tone.snr_db
        quiet = tone.noise * np.float32(gain_to_dbfs(tone.noise, tone_dbfs))
        speech, target = speech + quiet, target + quiet
    if rng.random() < settings.band_limit_probability:
        cutoff_hz = settings.band_limits_hz[rng.integers(len(settings.band_limits_hz))]
        signals = limit_band(np.stack([speech, target, *noise_pair]), cutoff_hz, rate_hz)
        speech, target, noise_pair = signals[0], signals[1], signals[2:]
    views, clean = mix_pair(
        speech,
        noise_pair,
        snrs_db,
        level_dbfs,
        target=target,
        peak_limit=settings.peak_limit,
        speech_dbfs=speech_level_dbfs(speech, rate_hz, settings.speech_level),
    )
    views = [_maybe_clip(rng, view, settings) for view in views]
    codecs = [effects.codec() for _ in views]
    first, second = (
        encode_and_decode(view, codec, rate_hz) if codec else view
        for view, codec in zip(views, codecs, strict=True)
    )
    return first, second, clean


def _maybe_clip(rng: np.random.Generator, view: np.ndarray, settings: MixSettings) -> np.ndarray:
    if rng.random() >= settings.clip_probability:
        return view
    return clip_peaks(view, rng.uniform(0.0, settings.clip_max_db))


class RoomTone(NamedTuple):
    """A noise that stays in the speech, at any level, and how far it is to be below it."""

    noise: Any
    snr_db: float


class Effects:
    """Draws speed, tilt, room tone and codecs.

    They come from a generator of their own, so that seeds give what they gave.
    """

    def __init__(self, rng: np.random.Generator, settings: MixSettings):
        self._settings = settings
        shares = (
            settings.speed_probability,
            settings.speech_tilt_probability,
            settings.room_tone_probability,
            settings.codec_probability,
        )
        self._rng: Any = rng.spawn(1)[0] if any(shares) else None
        self.speed = 1.0
        if self._happens(settings.speed_probability):
            self.speed = settings.speeds[self._drawn(len(settings.speeds))]

    def tilt_db(self) -> float | None:
        """Draws the tilt of the speech in dB; None for none."""
        if not self._happens(self._settings.speech_tilt_probability):
            return None
        limit_db = self._settings.tilt_max_db
        return self._rng.uniform(-limit_db, limit_db)

    def room_tone(self, draw_noise: Callable[[np.random.Generator], Any]) -> "RoomTone | None":
        """Draws the quiet noise that stays in the speech; None for none.

        Args:
            draw_noise: Draws a recording from a generator.
        """
        if not self._happens(self._settings.room_tone_probability):
            return None
        snr_db = self._rng.uniform(MIN_ROOM_TONE_SNR_DB, MAX_ROOM_TONE_SNR_DB)
        return RoomTone(draw_noise(self._rng), snr_db)

    def codec(self) -> str | None:
        """Draws the codec of a view; None for none."""
        if not self._happens(self._settings.codec_probability):
            return None
        return self._settings.codecs[self._drawn(len(self._settings.codecs))]

    def _happens(self, probability: float) -> bool:
        return self._rng is not None and self._rng.random() < probability

    def _drawn(self, count: int) -> int:
        return int(self._rng.integers(count))
