# SPDX-License-Identifier: Apache-2.0
"""Decodes and resamples files in a `tf.data` graph, for input pipelines of one's own.

The stages of this package decode each file once instead (`lmkd_tf.data.store`) and do not need
this; `./x test-io` runs it with tensorflow-io.

Where tensorflow-io runs, its operations do the work; elsewhere soundfile and soxr do. Its
import proves nothing (its library does not load with TensorFlow above 2.17), so one
operation is called to find out. TensorFlow is imported on the first call.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from lmkd_tf.data.store import read_mono, resample

if TYPE_CHECKING:
    import tensorflow as tf

# (container, encoding) -> (operation, type of its samples, factor to [-1, 1]).
_DECODERS: dict[tuple[str, str], tuple[str, str, float]] = {
    ("WAV", "PCM_16"): ("decode_wav", "int16", 2.0**-15),
    ("WAV", "PCM_24"): ("decode_wav", "int32", 2.0**-31),
    ("WAV", "FLOAT"): ("decode_wav", "float32", 1.0),
    ("FLAC", "PCM_16"): ("decode_flac", "int16", 2.0**-15),
    ("FLAC", "PCM_24"): ("decode_flac", "int32", 2.0**-31),
    ("OGG", "VORBIS"): ("decode_vorbis", "float32", 1.0),
    ("MP3", "MPEG_LAYER_III"): ("decode_mp3", "float32", 1.0),
}
_KINDS = tuple(_DECODERS)
# tensorflow-io resamples by Speex at quality 4: 64 taps, more where the rate is lowered.
_SPEEX_TAPS = 64
_SPEEX_MULTIPLE = 8


@functools.cache
def tensorflow_io_works() -> bool:
    """Tells whether an operation of tensorflow-io really runs in this process."""
    try:
        silence = np.zeros((160, 1), dtype=np.float32)
        return _operations().resample(silence, 16000, 8000).shape == (80, 1)
    except Exception:  # whatever a library of another version raises, it does not run
        return False


def _operations() -> Any:
    return importlib.import_module("tensorflow_io").audio


def decoded_files(
    paths: Sequence[str | Path],
    sample_rate_hz: int = 16000,
    *,
    uses_tensorflow_io: bool | None = None,
) -> tf.data.Dataset:
    """Makes a data set of the decoded signals of files.

    Both ways decode WAV, FLAC, Ogg Vorbis and MP3 to the same samples. They resample to the
    same signal within the pass band: Speex, in tensorflow-io, ends it at about 85 % of half
    the rate and soxr at 91 %, and both have zero delay here. What tensorflow-io cannot
    decode, such as Opus, soundfile decodes in either case.

    Args:
        paths: Audio files, any rate and number of channels.
        sample_rate_hz: Sample rate in Hz.
        uses_tensorflow_io: Which way to go; by `tensorflow_io_works` if None.

    Returns:
        One element per file: float32, shape `(N,)`, channels averaged.

    Raises:
        ValueError: If a file cannot be opened.
    """
    import tensorflow as tf

    if uses_tensorflow_io is None:
        uses_tensorflow_io = tensorflow_io_works()
    names = [str(path) for path in paths]
    facts = [_facts_of(name, uses_tensorflow_io) for name in names]
    kinds, rates_hz = (np.array(column, dtype=np.int32) for column in zip(*facts, strict=True))
    listed = tf.data.Dataset.from_tensor_slices((names, kinds, rates_hz))

    def decode(name, kind, rate_hz):
        branches = [functools.partial(_decode_in_graph, name, item) for item in _KINDS]
        branches = branches if uses_tensorflow_io else []
        samples = tf.switch_case(kind, [*branches, lambda: _decode_outside(name)])
        samples.set_shape([None])
        if not uses_tensorflow_io:
            return _resample_outside(samples, rate_hz, sample_rate_hz)
        return _resample_in_graph(samples, rate_hz, sample_rate_hz, sorted({*rates_hz.tolist()}))

    return listed.map(decode, num_parallel_calls=2, deterministic=True)


def _facts_of(name: str, uses_tensorflow_io: bool) -> tuple[int, int]:
    """Returns which branch decodes a file, and its sample rate in Hz."""
    try:
        info = soundfile.info(name)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            "Every file must be one that libsndfile can open. "
            f"Received {name}: {error}. Restore it or take it off the list."
        ) from error
    container = {"WAVEX": "WAV", "MPEG": "MP3", "MP3": "MP3"}.get(info.format, info.format)
    kind = (container, info.subtype)
    if not uses_tensorflow_io:
        return 0, info.samplerate
    return (_KINDS.index(kind) if kind in _DECODERS else len(_KINDS)), info.samplerate


def _decode_in_graph(name: tf.Tensor, kind: tuple[str, str]) -> tf.Tensor:
    import tensorflow as tf

    operation, dtype, scale = _DECODERS[kind]
    decode = getattr(_operations(), operation)
    types = {} if dtype == "float32" and operation != "decode_wav" else {"dtype": dtype}
    samples = decode(tf.io.read_file(name), **{k: tf.as_dtype(v) for k, v in types.items()})
    return tf.reduce_mean(tf.cast(samples, tf.float32) * scale, axis=1)


def _decode_outside(name: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    def read(path: bytes) -> np.ndarray:
        return read_mono(Path(path.decode("utf-8", "surrogateescape")))[0]

    return tf.numpy_function(read, [name], tf.float32)


def _resample_outside(samples: tf.Tensor, rate_hz: Any, sample_rate_hz: int) -> tf.Tensor:
    import tensorflow as tf

    def convert(signal: np.ndarray, from_hz: int) -> np.ndarray:
        return np.asarray(resample(signal, int(from_hz), sample_rate_hz), dtype=np.float32)

    resampled = tf.numpy_function(convert, [samples, rate_hz], tf.float32)
    return tf.ensure_shape(resampled, [None])


def _resample_in_graph(
    samples: tf.Tensor, rate_hz: Any, sample_rate_hz: int, rates_hz: list[int]
) -> tf.Tensor:
    """Resamples from one of the known rates; the operation wants it as a constant."""
    import tensorflow as tf

    branches = [functools.partial(_resample_from, samples, r, sample_rate_hz) for r in rates_hz]
    index = tf.argmax(tf.cast(tf.equal(rates_hz, rate_hz), tf.int32), output_type=tf.int32)
    return tf.ensure_shape(tf.switch_case(index, branches), [None])


def _resample_from(samples: tf.Tensor, from_hz: int, to_hz: int) -> tf.Tensor:
    """Resamples without the delay of Speex: zeros in front make it a whole number."""
    import tensorflow as tf

    if from_hz == to_hz:
        return samples
    padding, delay = _padding_of(from_hz, to_hz)
    total = tf.shape(samples)[0]
    wanted = tf.cast(tf.round(tf.cast(total, tf.float64) * to_hz / from_hz), tf.int32)
    # As much behind as in front, and some more, so that the end comes out too.
    padded = tf.pad(samples, [[padding, 2 * padding + 4 * _SPEEX_TAPS]])
    resampled = _operations().resample(padded[:, tf.newaxis], from_hz, to_hz)[:, 0]
    return resampled[delay : delay + wanted]


def _padding_of(from_hz: int, to_hz: int) -> tuple[int, int]:
    """Returns zeros to put in front and samples to drop from the front of the result."""
    taps = _SPEEX_TAPS * max(from_hz, to_hz) // to_hz if from_hz > to_hz else _SPEEX_TAPS
    taps = (taps - 1) // _SPEEX_MULTIPLE * _SPEEX_MULTIPLE + _SPEEX_MULTIPLE
    latency = taps // 2
    step = from_hz // gcd(from_hz, to_hz)
    padding = -latency % step
    return padding, int(Fraction(latency + padding) * to_hz / from_hz)
