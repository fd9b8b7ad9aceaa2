# SPDX-License-Identifier: Apache-2.0
"""Makes pairs on the accelerator: all audio lies there as int16, a batch is gathered from it.

The same law as in `pairing`, and with the same seed the same pairs but for rounding. What
comes from the host are the draws of a batch (`draws.BatchDraws`), some kilobytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from scipy.fft import next_fast_len
from scipy.signal import butter, freqz_sos

from lmkd_tf.data.draws import BatchDraws
from lmkd_tf.data.mixing import BAND_LIMIT_ORDER, FADE_SECONDS, TILT_PIVOT_HZ, MixSettings
from lmkd_tf.data.pairing import NO_SPEECH_DBFS
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.dsp.level import SILENCE_DBFS

_FULL_SCALE = 32768.0
_MAX_SAMPLES = 2**31 - 2**24  # indices have 32 bits
# A pole of the tilt to the power of 2 ** _NUM_DOUBLINGS is nothing.
_NUM_DOUBLINGS = 8
_SINC_TAPS = 32
_BAND_TAIL = 4096
_FRAME_SECONDS, _ACTIVE_SHARE = 0.02, 1e-3  # as in dsp.level: 20 ms, 30 dB
_MU, _NUM_STEPS = 255.0, 127.0


@dataclass(frozen=True)
class Resident:
    """What lies on the accelerator.

    Args:
        audio: Speech, then noise, int16, shape `(S,)`.
        rooms: Pairs of real and imaginary spectra of the early part and of the whole of
            each response, the last one no room, each `(R + 1, F)`; None without rooms.
        bands: Real and imaginary frequency responses of the low-pass filters, the last one
            none, each `(K + 1, F)`; None without.
    """

    audio: Any
    rooms: Any
    bands: Any


def check_settings(settings: MixSettings) -> None:
    """Refuses settings that there is no mixing on the accelerator for.

    Raises:
        ValueError: If speech is measured by P.56 or a codec is not a memoryless one.
    """
    if settings.speech_level != "frames":
        raise ValueError(
            "On the accelerator `speech_level` must be 'frames'. "
            f"Received {settings.speech_level!r}. Set it, or train with TensorFlow."
        )
    if settings.codec_probability and set(settings.codecs) != {"ulaw"}:
        raise ValueError(
            "On the accelerator `codecs` must be 'ulaw' alone. "
            f"Received {settings.codecs}. Set it, or train with TensorFlow."
        )


class AcceleratorSource:
    """Makes batches of pairs where the network is trained.

    Args:
        source: Source of the same pairs on the host.
        jit: Compiles a function, such as `jax.jit`; None runs it as it is.

    Raises:
        ValueError: If the settings or the amount of audio are beyond it.
    """

    def __init__(self, source: PairSource, jit: Callable | None = None):
        check_settings(source.settings)
        self._draws = BatchDraws(source)
        self._resident = put_audio(source)
        settings, num_samples = source.settings, source.num_samples
        rate_hz = source.voices.sample_rate_hz

        def mix(audio, rooms, bands, draws):
            return mix_batch(Resident(audio, rooms, bands), draws, settings, num_samples, rate_hz)

        self._mix = jit(mix) if jit else mix

    def batch(self, batch_index: int) -> tuple[Any, Any, Any]:
        """Makes one batch.

        Args:
            batch_index: Index k of the batch, from 0.

        Returns:
            First views, second views and speech, float32, shape `(B, N)` each.
        """
        held = self._resident
        return self._mix(held.audio, held.rooms, held.bands, self._draws.batch(batch_index))


def put_audio(source: PairSource) -> Resident:
    """Puts audio and filters of a source on the accelerator.

    Raises:
        ValueError: If there is more audio than 32-bit indices reach.
    """
    signals = [*source.voices.signals, *source.noises.signals]
    total = sum(signal.size for signal in signals)
    if total > _MAX_SAMPLES:
        raise ValueError(
            f"At most {_MAX_SAMPLES} samples fit on the accelerator, 37 h at 16 kHz. "
            f"Received {total}. Train with TensorFlow, or on a part of the corpus."
        )
    audio = ops.convert_to_tensor(np.concatenate([signal[:] for signal in signals]))
    settings, num_samples = source.settings, source.num_samples
    rate_hz = source.voices.sample_rate_hz
    rooms = bands = None
    if source.rooms is not None and settings.room_probability:
        rooms = _room_spectra(source.rooms.responses, settings.early_ms, num_samples, rate_hz)
    if settings.band_limit_probability:
        bands = _band_responses(settings.band_limits_hz, num_samples, rate_hz)
    return Resident(audio, rooms, bands)


def _room_spectra(responses: Any, early_ms: float, num_samples: int, rate_hz: int) -> Any:
    longest = max(response.size for response in responses)
    fft_length = _fft_length(num_samples + longest)
    whole = np.zeros((len(responses) + 1, longest))
    for row, response in zip(whole, responses, strict=False):
        row[: response.size] = response
    whole[-1, 0] = 1.0
    early = whole.copy()
    early[:, 1 + round(1e-3 * early_ms * rate_hz) :] = 0.0
    return [_parts(np.fft.rfft(taps, fft_length)) for taps in (early, whole)]


def _band_responses(limits_hz: Any, num_samples: int, rate_hz: int) -> Any:
    fft_length = _fft_length(num_samples + _BAND_TAIL)
    responses = np.ones((len(limits_hz) + 1, fft_length // 2 + 1), np.complex128)
    angles = np.arange(fft_length // 2 + 1) * 2.0 * np.pi / fft_length
    for row, limit_hz in zip(responses, limits_hz, strict=False):
        if limit_hz < 0.5 * rate_hz:
            sections = butter(BAND_LIMIT_ORDER, limit_hz, fs=rate_hz, output="sos")
            row[:] = freqz_sos(sections, worN=angles)[1]
    return _parts(responses)


def _fft_length(num_samples: int) -> int:
    """Returns an even length of a fast transform."""
    return 2 * next_fast_len(-(-num_samples // 2), real=True)


def _parts(spectra: np.ndarray) -> tuple[Any, Any]:
    real, imag = np.real(spectra).astype(np.float32), np.imag(spectra).astype(np.float32)
    return ops.convert_to_tensor(real), ops.convert_to_tensor(imag)


def mix_batch(
    held: Resident,
    draws: dict[str, Any],
    settings: MixSettings,
    num_samples: int,
    sample_rate_hz: int,
) -> tuple[Any, Any, Any]:
    """Makes the signals of a batch; see `pairing.draw_pair`.

    Args:
        held: Audio and filters.
        draws: Arrays of `BatchDraws.batch`.
        settings: Settings that were drawn with.
        num_samples: Length N of a crop in samples.
        sample_rate_hz: Sample rate in Hz.

    Returns:
        First views, second views and clean targets, float32, shape `(B, N)` each.
    """
    speech = _speech(held.audio, draws, settings, num_samples)
    if settings.speech_tilt_probability:
        speech = _tilt(speech, draws["speech_tilt_db"], sample_rate_hz)
    noises = _noises(held.audio, draws, num_samples, sample_rate_hz)  # (B, 2, N)
    if settings.tilt_probability:
        noises = _tilt(noises, draws["noise_tilt_db"], sample_rate_hz)
    target = speech
    if held.rooms is not None:
        early, whole = held.rooms
        target = _filter(speech, early, draws["room"])
        speech = _filter(speech, whole, draws["room"])
    if settings.room_tone_probability:
        tone = _room_tone(held.audio, draws, speech, sample_rate_hz)
        speech, target = speech + tone, target + tone
    if held.bands is not None:
        speech, target = (_filter(x, held.bands, draws["band"]) for x in (speech, target))
        bands = ops.stack([draws["band"], draws["band"]], axis=1)
        noises = _filter(noises, held.bands, bands)
    views, clean = _mix(speech, target, noises, draws, settings, sample_rate_hz)
    if settings.clip_probability:
        views = _clip(views, draws["clip_db"])
    if settings.codec_probability:
        views = ops.where(draws["is_coded"][:, :, None] > 0, _compand(views), views)
    return views[:, 0], views[:, 1], clean


def _speech(audio, draws, settings: MixSettings, num_samples: int):
    """Gathers crops `(B, N)` part by part."""
    speeds = (1.0, *(settings.speeds if settings.speed_probability else ()))
    longest = round(num_samples * max(speeds)) + 1
    time = ops.arange(longest, dtype="int32")[None]  # (1, M)
    inside = time - draws["crop_start"][:, None]  # (B, M)
    crop = ops.zeros(ops.shape(inside), "float32")
    for part in range(draws["part_start"].shape[1]):
        start, place, size = (
            draws[name][:, part, None] for name in ("part_start", "part_place", "part_size")
        )
        index = inside - place
        is_part = (index >= 0) & (index < size)
        index = ops.clip(index, 0, ops.maximum(size - 1, 0))
        crop = crop + ops.where(is_part, _take(audio, start + index), 0.0)
    size, fade = draws["crop_size"][:, None], draws["crop_fade"][:, None]
    from_end = ops.minimum(inside, size - 1 - inside)  # samples to the nearer end
    ramp = ops.cast(from_end, "float32") / ops.cast(ops.maximum(fade - 1, 1), "float32")
    crop = ops.where(from_end < fade, crop * ops.clip(ramp, 0.0, 1.0), crop)
    crop = ops.where(from_end >= 0, crop, 0.0)
    if len(speeds) == 1:
        return crop[:, :num_samples]
    changed = _resample(crop, draws["speed"], num_samples)
    return ops.where(draws["speed"][:, None] == 1.0, crop[:, :num_samples], changed)


def _take(audio, index):
    return ops.cast(ops.take(audio, index), "float32") / _FULL_SCALE


def _resample(crop, speed, num_samples: int):
    """Reads crops `(B, M)` at another speed by a windowed sinc, `(B, N)`."""
    speed = speed[:, None]
    where = ops.arange(num_samples, dtype="float32")[None] * speed
    first = ops.floor(where)
    share = where - first
    cutoff = ops.minimum(1.0, 1.0 / speed)
    half = _SINC_TAPS // 2
    length = crop.shape[1]
    result = ops.zeros(ops.shape(share), "float32")
    for tap in range(1 - half, half + 1):
        index = ops.cast(first, "int32") + tap
        sample = ops.take_along_axis(crop, ops.clip(index, 0, length - 1), axis=1)
        distance = tap - share
        window = 0.5 + 0.5 * ops.cos(np.pi * ops.clip(distance / half, -1.0, 1.0))
        angle = np.pi * cutoff * distance
        sinc = ops.where(ops.abs(angle) < 1e-6, 1.0, ops.sin(angle) / (angle + 1e-12))
        is_inside = (index >= 0) & (index < length)
        result = result + ops.where(is_inside, sample * cutoff * sinc * window, 0.0)
    return result


def _noises(audio, draws, num_samples: int, sample_rate_hz: int):
    """Sums the recordings of each view, `(B, 2, N)`."""
    signal = _looped(audio, draws, "noise", num_samples, sample_rate_hz)  # (C, N)
    gain = _gain_to_dbfs(signal, draws["noise_level_dbfs"])
    weighted = signal * (gain * draws["noise_weight"])[:, None]
    batch_size = draws["snr_db"].shape[0]
    summed = ops.segment_sum(weighted, draws["noise_view"], 2 * batch_size)
    return ops.reshape(summed, (batch_size, 2, num_samples))


def _room_tone(audio, draws, speech, sample_rate_hz: int):
    """Makes the noise that stays in speech `(B, N)`; same shape."""
    signal = _looped(audio, draws, "tone", speech.shape[1], sample_rate_hz)
    level_dbfs = _active_level_dbfs(speech, sample_rate_hz) - draws["tone_snr_db"]
    return signal * (_gain_to_dbfs(signal, level_dbfs) * draws["tone_weight"])[:, None]


def _looped(audio, draws, kind: str, num_samples: int, sample_rate_hz: int):
    """Cuts segments out of recordings, `(C, N)`; see `mixing.loop_clip`."""
    start, size, offset = (draws[f"{kind}_{name}"][:, None] for name in ("start", "size", "offset"))
    fade = ops.minimum(round(FADE_SECONDS * sample_rate_hz), size // 4)
    joint = size - fade
    time = ops.arange(num_samples, dtype="int32")[None] + offset  # (C, N)
    is_first = (offset + num_samples <= size) | (time < joint)
    round_trip = ops.mod(time - joint, joint)  # place in the repeated period
    place = ops.where(is_first, time, round_trip)
    is_crossed = ~is_first & (round_trip < fade)
    main = _take(audio, start + ops.clip(place, 0, size - 1))
    tail = _take(audio, start + ops.clip(joint + round_trip, 0, size - 1))
    steps = 0.5 * np.pi / ops.cast(ops.maximum(fade, 1), "float32")
    rise = ops.sin(steps * (ops.cast(round_trip, "float32") + 0.5))
    fall = ops.sin(steps * (ops.cast(fade - 1 - round_trip, "float32") + 0.5))
    return ops.where(is_crossed, tail * fall + main * rise, main)


def _tilt(samples, tilt_db, sample_rate_hz: int):
    """Tilts spectra by `(...,)` dB; see `mixing.tilt_spectrum`."""
    gain = 10.0 ** (tilt_db / 40.0)[..., None]
    warped = float(np.tan(np.pi * TILT_PIVOT_HZ / sample_rate_hz))
    scale = 1.0 + warped * gain
    pole = (1.0 - warped * gain) / scale
    filtered = ((gain + warped) * samples + (warped - gain) * _delay(samples, 1)) / scale
    # y(n) = x(n) + p y(n - 1), by 1 + p z + p^2 z^2 + ... = (1 + p z)(1 + p^2 z^2) ...
    for doubling in range(_NUM_DOUBLINGS):
        filtered = filtered + pole * _delay(filtered, 2**doubling)
        pole = pole * pole
    return filtered


def _delay(samples, num_samples: int):
    padding = [(0, 0)] * (len(samples.shape) - 1) + [(num_samples, 0)]
    return ops.pad(samples, padding)[..., : samples.shape[-1]]


def _filter(samples, spectra, chosen):
    """Filters signals by the chosen ones of some frequency responses; -1 is the last."""
    real, imag = spectra
    chosen = ops.where(chosen < 0, real.shape[0] - 1, chosen)
    real, imag = ops.take(real, chosen, axis=0), ops.take(imag, chosen, axis=0)
    fft_length = 2 * (spectra[0].shape[1] - 1)
    a, b = ops.rfft(samples, fft_length=fft_length)
    product = (a * real - b * imag, a * imag + b * real)
    return ops.irfft(product, fft_length=fft_length)[..., : samples.shape[-1]]


def _power_to_dbfs(power):
    return 10.0 * ops.log10(ops.maximum(power, 10.0 ** (SILENCE_DBFS / 10.0)))


def _gain_to_dbfs(samples, level_dbfs):
    current_dbfs = _power_to_dbfs(ops.mean(ops.square(samples), axis=-1))
    gain = 10.0 ** ((level_dbfs - current_dbfs) / 20.0)
    return ops.where(current_dbfs <= SILENCE_DBFS + 1e-3, 1.0, gain)


def _active_level_dbfs(speech, sample_rate_hz: int):
    """Level of crops `(B, N)` without pauses; see `dsp.level.active_level_dbfs`."""
    length = round(_FRAME_SECONDS * sample_rate_hz)
    count = speech.shape[1] // length
    frames = ops.reshape(speech[:, : count * length], (-1, count, length))
    powers = ops.mean(ops.square(frames), axis=-1)
    is_active = powers >= _ACTIVE_SHARE * ops.max(powers, axis=1, keepdims=True)
    total = ops.sum(ops.where(is_active, powers, 0.0), axis=1)
    return _power_to_dbfs(total / ops.sum(ops.cast(is_active, "float32"), axis=1))


def _mix(speech, target, noises, draws, settings: MixSettings, sample_rate_hz: int):
    """Mixes at the SNRs and the level; see `pairing.mix_pair`."""
    speech_dbfs = _active_level_dbfs(speech, sample_rate_hz)
    is_silent = speech_dbfs <= SILENCE_DBFS + 1e-3
    speech_dbfs = ops.where(is_silent, NO_SPEECH_DBFS, speech_dbfs)
    gains = _gain_to_dbfs(noises, speech_dbfs[:, None] - draws["snr_db"])
    views = speech[:, None] + noises * gains[..., None]
    everything = ops.concatenate([views, speech[:, None], target[:, None]], axis=1)
    peak = ops.max(ops.abs(everything), axis=(1, 2))
    level_dbfs = _power_to_dbfs(ops.mean(ops.square(views), axis=(1, 2)))
    gain = 10.0 ** ((draws["level_dbfs"] - level_dbfs) / 20.0)
    limit = 0.9999 * settings.peak_limit / ops.maximum(peak, 1e-20)
    gain = ops.where(peak > 0.0, ops.minimum(gain, limit), 1.0)
    return views * gain[:, None, None], target * gain[:, None]


def _clip(views, clip_db):
    """Clips views `(B, 2, N)` some dB below their peaks; 0 dB leaves them."""
    peaks = ops.max(ops.abs(views), axis=-1)
    limits = (peaks * 10.0 ** (-clip_db / 20.0))[..., None]
    return ops.clip(views, -limits, limits)


def _compand(views):
    """Rounds samples as telephony does; see `effects.compand`."""
    code = ops.log1p(_MU * ops.minimum(ops.abs(views), 1.0)) / np.log1p(_MU)
    code = ops.round(code * _NUM_STEPS) / _NUM_STEPS
    return ops.sign(views) * ops.expm1(code * np.log1p(_MU)) / _MU
