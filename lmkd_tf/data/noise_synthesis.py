# SPDX-License-Identifier: Apache-2.0
"""Synthesizes noises for the embedded corpus: seeded, varied, no recording needed.

Each synthesizer takes `(rng, num_samples, sample_rate_hz)` and returns float32 `(N,)` at
-26 dBFS RMS, or lower where its peaks would pass 0.9. Frequencies, times and shares are
chosen by ear and by looking at spectrograms of the real thing; none is measured.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import fftconvolve

from lmkd_tf.dsp.level import db_to_gain, gain_to_dbfs

Synthesizer = Callable[[np.random.Generator, int, int], np.ndarray]

LEVEL_DBFS = -26.0
_PEAK = 0.9


def _normalize(samples: np.ndarray) -> np.ndarray:
    centered = samples - samples.mean()
    gain = gain_to_dbfs(centered, LEVEL_DBFS)
    peak = float(np.abs(centered).max(initial=0.0))
    if peak > 0.0:
        gain = min(gain, _PEAK / peak)
    return (centered * gain).astype(np.float32)


def _shape_noise(
    rng: np.random.Generator,
    num_samples: int,
    sample_rate_hz: int,
    points: Sequence[tuple[float, float]],
) -> np.ndarray:
    """Returns noise of unit RMS with a spectrum given by (frequency in Hz, level in dB)."""
    bins = np.fft.rfftfreq(num_samples, 1.0 / sample_rate_hz)
    frequencies_hz, levels_db = np.array(points, dtype=np.float64).T
    axis = np.log(np.maximum(bins, 1.0))
    gains = 10.0 ** (np.interp(axis, np.log(frequencies_hz), levels_db) / 20.0)
    gains[0] = 0.0
    phases = rng.standard_normal((2, bins.size))
    noise = np.fft.irfft(gains * (phases[0] + 1j * phases[1]), num_samples)
    return noise / max(np.sqrt(np.mean(noise**2)), 1e-12)


def _drift(
    rng: np.random.Generator, num_samples: int, sample_rate_hz: int, change_hz: float
) -> np.ndarray:
    """Returns a smooth random curve of about ±1 that turns `change_hz` times a second."""
    num_points = max(int(num_samples / sample_rate_hz * change_hz) + 4, 4)
    points = rng.uniform(-1.0, 1.0, num_points)
    position = np.arange(num_samples) * (change_hz / sample_rate_hz) + rng.uniform(0.0, 1.0)
    index = np.minimum(position.astype(np.int64), num_points - 2)
    part = position - index
    weight = part * part * (3.0 - 2.0 * part)
    return points[index] * (1.0 - weight) + points[index + 1] * weight


def _gain_of(level_db: np.ndarray) -> np.ndarray:
    return np.exp(level_db * (np.log(10.0) / 20.0))


def _phase(frequency_hz: np.ndarray | float, num_samples: int, sample_rate_hz: int) -> np.ndarray:
    steps = np.broadcast_to(np.asarray(frequency_hz, dtype=np.float64), (num_samples,))
    return np.cumsum(steps) * (2.0 * np.pi / sample_rate_hz)


def _harmonics(
    rng: np.random.Generator, phase: np.ndarray, slope_db: float, count: int
) -> np.ndarray:
    """Returns a sum of `count` harmonics that fall by `slope_db` per octave, ±4 dB."""
    total = np.zeros_like(phase)
    for order in range(1, count + 1):
        level_db = slope_db * np.log2(order) + rng.uniform(-4.0, 4.0)
        total += db_to_gain(level_db) * np.sin(order * phase + rng.uniform(0.0, 2.0 * np.pi))
    return total


def _ping(
    rng: np.random.Generator, sample_rate_hz: int, modes_hz: np.ndarray, decay_seconds: float
) -> np.ndarray:
    """Returns a struck sound: decaying modes at given frequencies, float64 `(M,)`."""
    length = max(int(6.0 * decay_seconds * sample_rate_hz), 8)
    time = np.arange(length) / sample_rate_hz
    decays = decay_seconds * rng.uniform(0.4, 1.0, modes_hz.size)
    strengths = rng.uniform(0.3, 1.0, modes_hz.size)
    waves = np.sin(2.0 * np.pi * modes_hz[:, np.newaxis] * time)
    return (strengths[:, np.newaxis] * waves * np.exp(-time / decays[:, np.newaxis])).sum(axis=0)


def _add_at(target: np.ndarray, start: int, sound: np.ndarray) -> None:
    """Adds `sound` to `target` from sample `start`, cut off at the end."""
    length = min(sound.size, target.size - start)
    if start >= 0 and length > 0:
        target[start : start + length] += sound[:length]


def _scatter(
    rng: np.random.Generator, num_samples: int, count: int, sound: np.ndarray
) -> np.ndarray:
    """Returns `count` copies of a sound at random times with log-normal strengths."""
    impulses = np.zeros(num_samples)
    np.add.at(impulses, rng.integers(num_samples, size=count), rng.lognormal(0.0, 0.8, count))
    return fftconvolve(impulses, sound)[:num_samples]


def synthesize_fan_hum(
    rng: np.random.Generator, num_samples: int, sample_rate_hz: int
) -> np.ndarray:
    """Makes a fan with its blade tone, over mains hum of 50 or 60 Hz."""
    mains_hz = rng.choice([50.0, 60.0])
    turns_hz = rng.uniform(9.0, 30.0) * (1.0 + 0.02 * _drift(rng, num_samples, sample_rate_hz, 0.4))
    turn_phase = _phase(turns_hz, num_samples, sample_rate_hz)
    num_blades = int(rng.integers(3, 9))
    hump_hz = rng.uniform(180.0, 700.0)
    air = _shape_noise(
        rng,
        num_samples,
        sample_rate_hz,
        [(40, -14), (hump_hz, 0), (2.5 * hump_hz, -7), (3000, -20), (8000, -34)],
    )
    air *= 1.0 + rng.uniform(0.05, 0.25) * np.sin(num_blades * turn_phase)
    air *= _gain_of(2.0 * _drift(rng, num_samples, sample_rate_hz, 0.7))
    blades = _harmonics(rng, num_blades * turn_phase, -8.0, 6)
    hum = _harmonics(rng, _phase(mains_hz, num_samples, sample_rate_hz), -5.0, 12)
    hum *= _gain_of(1.5 * _drift(rng, num_samples, sample_rate_hz, 0.3))
    blade_gain, hum_gain = 10.0 ** (rng.uniform([-22.0, -24.0], [-8.0, -6.0]) / 20.0)
    return _normalize(air + blade_gain * blades + hum_gain * hum)


def synthesize_traffic(
    rng: np.random.Generator, num_samples: int, sample_rate_hz: int
) -> np.ndarray:
    """Makes a road: distant rumble and vehicles that pass with tires and engine."""
    rumble = _shape_noise(
        rng, num_samples, sample_rate_hz, [(25, -6), (70, 0), (250, -9), (1000, -22), (8000, -48)]
    )
    street = rumble * _gain_of(4.0 * _drift(rng, num_samples, sample_rate_hz, 0.3))
    seconds = np.arange(num_samples) / sample_rate_hz
    length = num_samples / sample_rate_hz
    for _ in range(1 + int(rng.poisson(length / 5.0))):
        offset = (seconds - rng.uniform(0.0, length)) / rng.uniform(0.5, 1.8)
        envelope = 1.0 / (1.0 + offset**2) ** 1.5
        tires = _shape_noise(
            rng, num_samples, sample_rate_hz, [(60, -12), (700, 0), (1500, -3), (8000, -24)]
        )
        pitch_hz = rng.uniform(35.0, 110.0) * (1.0 - 0.06 * np.tanh(offset))
        engine = _harmonics(rng, _phase(pitch_hz, num_samples, sample_rate_hz), -6.0, 14)
        strength = db_to_gain(rng.uniform(-8.0, 6.0))
        street += strength * envelope * (tires + rng.uniform(0.1, 0.5) * engine)
    return _normalize(street)


def synthesize_rain(rng: np.random.Generator, num_samples: int, sample_rate_hz: int) -> np.ndarray:
    """Makes rain: a hiss of far drops, many near ones, and drips on a surface."""
    hiss = _shape_noise(
        rng,
        num_samples,
        sample_rate_hz,
        [(60, -24), (500, -13), (rng.uniform(1500, 5000), 0), (8000, rng.uniform(-8, -2))],
    )
    rain = hiss * _gain_of(2.5 * _drift(rng, num_samples, sample_rate_hz, 0.5))
    seconds = num_samples / sample_rate_hz
    density_hz = rng.uniform(20.0, 250.0)
    for _ in range(5):
        modes_hz = rng.uniform(900.0, 7000.0, 3)
        drop = _ping(rng, sample_rate_hz, modes_hz, rng.uniform(0.0006, 0.003))
        rain += rng.uniform(0.3, 1.2) * _scatter(
            rng, num_samples, int(density_hz * seconds / 5.0) + 1, drop
        )
    drip = _ping(rng, sample_rate_hz, rng.uniform(350.0, 1600.0, 3), rng.uniform(0.01, 0.03))
    drips = _scatter(rng, num_samples, int(rng.uniform(0.3, 5.0) * seconds) + 1, drip)
    return _normalize(rain + rng.uniform(0.2, 1.5) * drips)


def synthesize_wind(rng: np.random.Generator, num_samples: int, sample_rate_hz: int) -> np.ndarray:
    """Makes wind whose gusts grow louder and brighter together, with a faint whistle."""
    gust = 0.65 * _drift(rng, num_samples, sample_rate_hz, rng.uniform(0.25, 0.7))
    gust += 0.35 * _drift(rng, num_samples, sample_rate_hz, rng.uniform(1.5, 4.0))
    depth_db = rng.uniform(8.0, 16.0)
    wind = np.zeros(num_samples)
    for order, center_hz in enumerate((45.0, 130.0, 380.0, 1000.0, 2800.0)):
        band = _shape_noise(
            rng,
            num_samples,
            sample_rate_hz,
            [
                (center_hz / 4, -24),
                (center_hz, 0),
                (center_hz * 4, -24),
                (center_hz * 16, -70),
            ],
        )
        wind += db_to_gain(-7.5 * order) * band * _gain_of(depth_db * (0.7 + 0.25 * order) * gust)
    pitch_hz = rng.uniform(350.0, 900.0) * 2.0 ** (0.7 * gust)
    roughness = _drift(rng, num_samples, sample_rate_hz, 25.0)
    whistle = np.sin(_phase(pitch_hz * (1.0 + 0.03 * roughness), num_samples, sample_rate_hz))
    whistle *= np.maximum(gust, 0.0) ** 2 * (1.0 + 0.5 * roughness)
    return _normalize(wind + rng.uniform(0.0, 0.5) * whistle)


def _key_sound(rng: np.random.Generator, sample_rate_hz: int) -> np.ndarray:
    """Returns one key: the click of the press, its thump, and the fainter release."""
    sound = np.zeros(int(0.2 * sample_rate_hz))
    release = int(rng.uniform(0.06, 0.13) * sample_rate_hz)
    for start, strength in ((0, 1.0), (release, rng.uniform(0.2, 0.5))):
        click = _ping(
            rng, sample_rate_hz, rng.uniform(1200.0, 6500.0, 6), rng.uniform(0.002, 0.006)
        )
        burst = rng.standard_normal(int(0.004 * sample_rate_hz))
        burst *= np.exp(-np.arange(burst.size) / (0.001 * sample_rate_hz))
        thump = _ping(rng, sample_rate_hz, rng.uniform(120.0, 420.0, 2), 0.012)
        for part, weight in ((click, 0.35), (burst, 0.5), (thump, 0.6)):
            _add_at(sound, start, strength * weight * part)
    return sound


def synthesize_keyboard(
    rng: np.random.Generator, num_samples: int, sample_rate_hz: int
) -> np.ndarray:
    """Makes typing in bursts with pauses for thought, in a quiet room."""
    typing = 0.004 * _shape_noise(
        rng, num_samples, sample_rate_hz, [(50, 0), (400, -6), (8000, -20)]
    )
    keys = [_key_sound(rng, sample_rate_hz) for _ in range(12)]
    pace_hz = rng.uniform(4.0, 10.0)
    position = rng.uniform(0.0, 0.3) * sample_rate_hz
    while position < num_samples:
        key = keys[int(rng.integers(len(keys)))]
        _add_at(typing, int(position), db_to_gain(rng.uniform(-9.0, 0.0)) * key)
        gap_seconds = rng.gamma(4.0, 0.25 / pace_hz)
        if rng.random() < 0.06:
            gap_seconds += rng.uniform(0.3, 1.2)
        position += max(gap_seconds, 0.03) * sample_rate_hz
    return _normalize(typing)


def _siren_pitch_hz(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    low_hz, high_hz = rng.uniform(380.0, 650.0), rng.uniform(900.0, 1600.0)
    kind = rng.integers(3)
    if kind == 0:  # two tones, as in much of Europe
        is_high = (seconds * rng.uniform(0.8, 1.6) + rng.random()) % 1.0 < 0.5
        return np.where(is_high, low_hz * rng.uniform(1.25, 1.4), low_hz)
    rate_hz = rng.uniform(0.15, 0.4) if kind == 1 else rng.uniform(2.0, 4.0)  # wail, yelp
    sweep = 0.5 - 0.5 * np.cos(2.0 * np.pi * (rate_hz * seconds + rng.random()))
    return low_hz * (high_hz / low_hz) ** sweep


def synthesize_siren(rng: np.random.Generator, num_samples: int, sample_rate_hz: int) -> np.ndarray:
    """Makes a siren that comes and goes, with echoes from houses and some street noise."""
    seconds = np.arange(num_samples) / sample_rate_hz
    doppler = 1.0 + 0.03 * _drift(rng, num_samples, sample_rate_hz, 0.15)
    pitch_hz = _siren_pitch_hz(rng, seconds) * doppler
    siren = _harmonics(rng, _phase(pitch_hz, num_samples, sample_rate_hz), -9.0, 4)
    siren *= _gain_of(7.0 * _drift(rng, num_samples, sample_rate_hz, 0.25))
    room = np.zeros(int(0.5 * sample_rate_hz))
    room[0] = 1.0
    delays = rng.integers(int(0.03 * sample_rate_hz), room.size, 12)
    np.add.at(room, delays, rng.uniform(-0.4, 0.4, 12) * np.exp(-3.0 * delays / room.size))
    street = _shape_noise(rng, num_samples, sample_rate_hz, [(40, 0), (300, -6), (8000, -36)])
    echoed = fftconvolve(siren, room)[:num_samples]
    return _normalize(echoed + rng.uniform(0.1, 0.4) * street)


def synthesize_colored_noise(
    rng: np.random.Generator, num_samples: int, sample_rate_hz: int
) -> np.ndarray:
    """Makes noise of a random slope with a broad hump, whose level drifts."""
    slope_db = rng.uniform(-7.5, 2.0)
    edges_hz = np.geomspace(30.0, 8000.0, 9)
    hump = rng.uniform(-3.0, 8.0) * np.exp(-0.5 * (np.arange(9) - rng.uniform(1.0, 8.0)) ** 2)
    levels_db = slope_db * np.log2(edges_hz / 1000.0) + hump
    noise = _shape_noise(
        rng, num_samples, sample_rate_hz, list(zip(edges_hz, levels_db, strict=True))
    )
    return _normalize(noise * _gain_of(4.0 * _drift(rng, num_samples, sample_rate_hz, 0.8)))


def synthesize_engine(
    rng: np.random.Generator, num_samples: int, sample_rate_hz: int
) -> np.ndarray:
    """Makes an engine or machine: firing pulses through a resonant body, rattle, hiss."""
    firing_hz = rng.uniform(18.0, 90.0) * (
        1.0
        + rng.uniform(0.02, 0.3) * _drift(rng, num_samples, sample_rate_hz, 0.3)
        + 0.01 * _drift(rng, num_samples, sample_rate_hz, 12.0)
    )
    phase = _phase(firing_hz, num_samples, sample_rate_hz)
    stroke = 1.0 + 0.3 * np.sin(0.5 * phase + rng.uniform(0.0, 2.0 * np.pi))
    pulses = stroke * np.exp(rng.uniform(10.0, 60.0) * (np.cos(phase) - 1.0))
    modes_hz = np.geomspace(90.0, 2600.0, 7) * rng.uniform(0.8, 1.25, 7)
    body = _ping(rng, sample_rate_hz, modes_hz, 0.006)
    voice = fftconvolve(pulses - pulses.mean(), body)[:num_samples]
    voice /= max(float(voice.std()), 1e-12)
    hiss = _shape_noise(
        rng, num_samples, sample_rate_hz, [(60, -18), (900, 0), (3000, -4), (8000, -16)]
    )
    hiss *= pulses / max(float(pulses.mean()), 1e-12)
    hiss_gain = db_to_gain(rng.uniform(-24.0, -6.0))
    rattle = _shape_noise(rng, num_samples, sample_rate_hz, [(500, -30), (2500, 0), (8000, -8)])
    rattle *= np.maximum(_drift(rng, num_samples, sample_rate_hz, 6.0) - 0.3, 0.0)
    return _normalize(voice + hiss_gain * hiss + rng.uniform(0.0, 0.5) * rattle)


def synthesize_dishes(
    rng: np.random.Generator, num_samples: int, sample_rate_hz: int
) -> np.ndarray:
    """Makes a kitchen: plates, glasses and cutlery that ring, over running water."""
    water = _shape_noise(
        rng, num_samples, sample_rate_hz, [(100, -22), (600, -8), (2500, 0), (8000, -10)]
    )
    water *= _gain_of(6.0 * _drift(rng, num_samples, sample_rate_hz, 0.6))
    kitchen = rng.uniform(0.01, 0.08) * water
    for _ in range(6):
        modes_hz = rng.uniform(350.0, 1800.0) * np.cumprod(rng.uniform(1.15, 1.6, 7))
        modes_hz = modes_hz[modes_hz < 7600.0]
        dish = _ping(rng, sample_rate_hz, modes_hz, rng.uniform(0.01, 0.12))
        count = int(rng.uniform(0.2, 1.4) * num_samples / sample_rate_hz) + 1
        kitchen += 0.3 * _scatter(rng, num_samples, count, dish)
    return _normalize(kitchen)


def synthesize_babble(
    rng: np.random.Generator,
    num_samples: int,
    sample_rate_hz: int,
    voices: Sequence[np.ndarray],
) -> np.ndarray:
    """Sums voices at unequal levels in a reverberant room.

    Args:
        rng: Generator of all draws.
        num_samples: Length in samples.
        sample_rate_hz: Sample rate in Hz.
        voices: Speech of several speakers, float, shapes `(M,)`; each is repeated.

    Returns:
        Babble, float32, shape `(num_samples,)`.
    """
    crowd = np.zeros(num_samples)
    for voice in voices:
        repeated = np.resize(np.roll(voice, int(rng.integers(voice.size))), num_samples)
        level_dbfs = LEVEL_DBFS + rng.uniform(-5.0, 5.0)
        crowd += repeated * gain_to_dbfs(repeated, level_dbfs)
    tail_length = int(rng.uniform(0.15, 0.4) * sample_rate_hz)
    tail = rng.standard_normal(tail_length) * np.exp(-6.9 * np.arange(tail_length) / tail_length)
    tail *= rng.uniform(0.3, 0.8) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    return _normalize(fftconvolve(crowd, tail)[:num_samples])


# Babble is not in this table: it needs voices.
SYNTHESIZERS: dict[str, Synthesizer] = {
    "fan_hum": synthesize_fan_hum,
    "traffic": synthesize_traffic,
    "rain": synthesize_rain,
    "wind": synthesize_wind,
    "keyboard": synthesize_keyboard,
    "siren": synthesize_siren,
    "colored_noise": synthesize_colored_noise,
    "engine": synthesize_engine,
    "dishes": synthesize_dishes,
}
