# SPDX-License-Identifier: Apache-2.0
"""Rooms: impulse responses from files or simulated, and speech heard in them.

The clean target of reverberant speech is its early part: direct sound and what follows
within some tens of ms, which helps to understand speech and which no causal network of
this size could take away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import oaconvolve

from lmkd_tf.data.index import Clip
from lmkd_tf.data.store import AudioStore, load_store
from lmkd_tf.dsp.pcm import int16_to_float

# Samples below this share of the peak before the direct sound are the response's own noise.
_ONSET_SHARE = 0.25
_ROOM_SIDES_M = ((3.0, 10.0), (3.0, 8.0), (2.4, 4.0))
_WALL_DISTANCE_M = 0.5


@dataclass(frozen=True, eq=False)
class RoomPool:
    """Room impulse responses to draw from.

    Args:
        responses: Responses, float32, shapes `(L,)`, the direct sound at sample 0 with a
            magnitude of 1.
        sample_rate_hz: Sample rate in Hz.
    """

    responses: Sequence[np.ndarray]
    sample_rate_hz: int


def align_response(response: np.ndarray) -> np.ndarray:
    """Cuts a response before its direct sound and scales that to a magnitude of 1.

    Args:
        response: Impulse response, float, shape `(L,)`.

    Returns:
        Response, float32, begins with the direct sound.

    Raises:
        ValueError: If the response is silent.
    """
    magnitude = np.abs(response)
    if not magnitude.any():
        raise ValueError(
            "A room impulse response must not be silent. "
            f"Received {response.size} samples, all zero. Take that file away."
        )
    first = int(np.flatnonzero(magnitude >= _ONSET_SHARE * magnitude.max())[0])
    # The direct sound is the largest sample within 1 ms or so of its onset.
    direct = first + int(np.argmax(magnitude[first : first + 16]))
    return (response[direct:] / response[direct]).astype(np.float32)


def room_pool(store: AudioStore) -> RoomPool:
    """Makes a pool of the responses in a store."""
    responses = [align_response(int16_to_float(signal[:])) for signal in store.signals]
    return RoomPool(responses, store.sample_rate_hz)


def load_rooms(clips: Sequence[Clip], sample_rate_hz: int = 16000) -> RoomPool:
    """Decodes room impulse responses; of several channels the first is taken.

    Args:
        clips: Responses, at least one.
        sample_rate_hz: Sample rate in Hz; other rates are resampled.
    """
    return room_pool(load_store(clips, sample_rate_hz, read=_read_first_channel))


def _read_first_channel(path: Path) -> tuple[np.ndarray, int]:
    """Reads one channel: averaging those of an array would smear the direct sound."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples[:, 0]), int(rate_hz)


def draw_room(rng: np.random.Generator, rooms: RoomPool) -> np.ndarray:
    """Draws one response, float32, shape `(L,)`."""
    return rooms.responses[int(rng.integers(len(rooms.responses)))]


def reverberate(
    speech: np.ndarray, response: np.ndarray, early_ms: float, sample_rate_hz: int
) -> tuple[np.ndarray, np.ndarray]:
    """Puts speech into a room.

    Args:
        speech: Speech, float32, shape `(N,)`.
        response: Response, float32, shape `(L,)`, begins with the direct sound.
        early_ms: Length of the part of the response that stays in the target, in ms.
        sample_rate_hz: Sample rate in Hz.

    Returns:
        Reverberant speech and its early part, float32, shape `(N,)` each, in step with
        `speech`.
    """
    num_early = 1 + round(1e-3 * early_ms * sample_rate_hz)
    early, late = response[:num_early], response[num_early:]
    target = _convolve(speech, early)
    heard = target.copy()
    if late.size and speech.size > num_early:
        heard[num_early:] += _convolve(speech[:-num_early], late)
    return heard, target


def _convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolves in double precision and keeps the length of `samples`."""
    convolved = oaconvolve(samples.astype(np.float64), response.astype(np.float64))
    return convolved[: samples.size].astype(np.float32)


def simulate_rooms(
    count: int,
    *,
    seed: int,
    rt60_min_s: float = 0.15,
    rt60_max_s: float = 0.8,
    sample_rate_hz: int = 16000,
    on_progress: Callable[[int, int], None] | None = None,
) -> RoomPool:
    """Simulates shoebox rooms by the image-source method of pyroomacoustics.

    Args:
        count: Number of responses.
        seed: Seed of sizes, positions and reverberation times.
        rt60_min_s: Shortest reverberation time in s.
        rt60_max_s: Longest reverberation time in s.
        sample_rate_hz: Sample rate in Hz.
        on_progress: Called with (rooms done, rooms in all).

    Returns:
        The responses.

    Raises:
        ImportError: If pyroomacoustics is missing.
        ValueError: If a number is out of range.
    """
    if count < 1 or not 0.05 <= rt60_min_s <= rt60_max_s:
        raise ValueError(
            "`count` must be at least 1 and reverberation times at least 0.05 s and in order. "
            f"Received count={count}, {rt60_min_s} s to {rt60_max_s} s. Correct that value."
        )
    responses = []
    for index in range(count):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
        responses.append(_simulate(rng, rng.uniform(rt60_min_s, rt60_max_s), sample_rate_hz))
        if on_progress is not None:
            on_progress(index + 1, count)
    return RoomPool(responses, sample_rate_hz)


def _simulate(rng: np.random.Generator, rt60_s: float, sample_rate_hz: int) -> np.ndarray:
    try:
        import pyroomacoustics
    except ImportError as error:
        raise ImportError(
            "Simulated rooms need pyroomacoustics. Received an installation without it. "
            "Run pip install 'lmkd-tf[rooms]', or give files with room impulse responses."
        ) from error
    while True:  # a small dead room or a large live one may ask for impossible walls
        sides_m = np.array([rng.uniform(*limits) for limits in _ROOM_SIDES_M])
        try:
            absorption, max_order = pyroomacoustics.inverse_sabine(rt60_s, sides_m)
            break
        except ValueError:
            continue
    room = pyroomacoustics.ShoeBox(
        sides_m,
        fs=sample_rate_hz,
        materials=pyroomacoustics.Material(absorption),
        max_order=min(max_order, 40),
    )
    places = [rng.uniform(_WALL_DISTANCE_M, sides_m - _WALL_DISTANCE_M) for _ in range(2)]
    room.add_source(places[0])
    room.add_microphone(places[1])
    room.compute_rir()
    if room.rir is None:
        raise RuntimeError(f"No response was computed for a room of {sides_m} m.")
    return align_response(np.asarray(room.rir[0][0]))
