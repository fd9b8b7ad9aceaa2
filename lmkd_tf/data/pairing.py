# SPDX-License-Identifier: Apache-2.0
"""Makes two noisy views of one clean crop, with one gain for all three signals.

Latent mixup rests on "same clean, different noise". A gain per view would give the two
views different targets, and the premise would silently fail, so a pair has one gain.
"""

import numpy as np

from lmkd_tf.data.mixing import MixSettings, NoisePool, SpeechPool, draw_noise, draw_speech
from lmkd_tf.dsp.level import (
    SILENCE_DBFS,
    active_level_dbfs,
    db_to_gain,
    gain_to_dbfs,
    mean_power,
    power_to_dbfs,
)

# Level that stands for the speech where a crop has none, so that the noise still gets one.
_NO_SPEECH_DBFS = -26.0


def mix_pair(
    speech: np.ndarray,
    noises: np.ndarray,
    snrs_db: np.ndarray,
    level_dbfs: float,
    *,
    peak_limit: float = 0.99,
    sample_rate_hz: int = 16000,
) -> tuple[np.ndarray, np.ndarray]:
    """Mixes one clean crop with V noises and applies one common gain.

    ``view_v = gain * (speech + noise_gain_v * noise_v)`` and ``clean = gain * speech``
    with the same ``gain``: the mean power of the views comes to `level_dbfs`, or to less
    where a sample of any of the signals would pass `peak_limit`. Nothing is clipped.

    Args:
        speech: Clean crop, float32, shape `(N,)`, any level.
        noises: Noises, float32, shape `(V, N)`, any level.
        snrs_db: Active speech level over noise RMS for each view, in dB, shape `(V,)`.
        level_dbfs: RMS level of the views together in dBFS.
        peak_limit: Largest sample magnitude, in (0, 1].
        sample_rate_hz: Sample rate in Hz.

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
    speech_dbfs = active_level_dbfs(speech, sample_rate_hz)
    if speech_dbfs <= SILENCE_DBFS:
        speech_dbfs = _NO_SPEECH_DBFS
    gains = [
        gain_to_dbfs(noise, speech_dbfs - snr_db)
        for noise, snr_db in zip(noises, snrs_db, strict=True)
    ]
    views = speech + noises * np.array(gains, dtype=np.float32)[:, np.newaxis]
    peak = float(max(np.abs(views).max(), np.abs(speech).max()))
    gain = db_to_gain(level_dbfs - power_to_dbfs(mean_power(views)))
    # The factor keeps rounding to float32 from passing the limit.
    gain = np.float32(min(gain, 0.9999 * peak_limit / peak) if peak > 0.0 else 1.0)
    return views * gain, speech * gain


def draw_pair(
    rng: np.random.Generator,
    voices: SpeechPool,
    noises: NoisePool,
    settings: MixSettings,
    babblers: SpeechPool | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws one clean crop and two noisy views of it.

    Each view has a noise and an SNR of its own; the level is drawn once for the pair.

    Args:
        rng: Generator of all draws.
        voices: Speech.
        noises: Noise of the same split.
        settings: Ranges and shares.
        babblers: Speech for babble; `voices` if None.

    Returns:
        First view, second view and speech, float32, shape `(N,)` each.
    """
    speech, talker = draw_speech(rng, voices, settings)
    babblers = babblers or voices
    noise_pair = np.stack([draw_noise(rng, noises, babblers, talker, settings) for _ in range(2)])
    views, clean = mix_pair(
        speech,
        noise_pair,
        rng.uniform(settings.snr_min_db, settings.snr_max_db, size=2),
        rng.uniform(settings.level_min_dbfs, settings.level_max_dbfs),
        peak_limit=settings.peak_limit,
        sample_rate_hz=voices.sample_rate_hz,
    )
    return views[0], views[1], clean
