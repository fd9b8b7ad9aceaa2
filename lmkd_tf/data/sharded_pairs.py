# SPDX-License-Identifier: Apache-2.0
"""Shards of mixed pairs: training without mixing, and the only kind that can be served.

A `tf.data` service sends the graph of a data set to other processes, and a Python
function cannot be sent. Pairs that were mixed beforehand are read by TensorFlow alone.
Pair i depends on seed and i only, so shards may be written in any order by any number of
workers. TensorFlow is imported when a `tf.data` set is made, not before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmkd_tf.config.files import read_json, sha256_of, write_json
from lmkd_tf.data import tfrecord
from lmkd_tf.data.packed import check_index
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.shards import claim_folder, file_state, read_shard, write_shard
from lmkd_tf.dsp.pcm import float_to_int16

if TYPE_CHECKING:
    import tensorflow as tf

INDEX_NAME = "pairs.json"
_FORMAT = "lmkd-tf pair shards"
_VERSION = 1
_SIGNALS = ("first_view", "second_view", "speech")
_SHUFFLE_PAIRS = 512
_INTERLEAVED_SHARDS = 4
_PREFETCH_BATCHES = 4
_MAX_EPOCHS = 2**31


def write_pair_shards(
    source: PairSource,
    folder: str | Path,
    *,
    num_pairs: int,
    pairs_per_shard: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes pairs 0 to `num_pairs` - 1 of a source.

    A run that was interrupted goes on: shards that are whole are kept. The index is written
    last.

    Args:
        source: Draws the pairs; its `batch_size` must be 1, so that batch i is pair i.
        folder: Folder for the shards; it holds nothing else.
        num_pairs: Number of pairs.
        pairs_per_shard: Pairs in a shard, but for the last.
        on_progress: Called with (pairs done, pairs in all).

    Raises:
        ValueError: If a number is out of range, or the folder holds something else, such as
            pairs of other recordings or settings.
    """
    if source.batch_size != 1 or num_pairs < 1 or pairs_per_shard < 1:
        raise ValueError(
            "The source must have `batch_size` 1, and both counts must be at least 1. "
            f"Received batch_size={source.batch_size}, num_pairs={num_pairs}, "
            f"pairs_per_shard={pairs_per_shard}. Correct that value."
        )
    target = Path(folder)
    facts = {
        "sample_rate_hz": source.voices.sample_rate_hz,
        "crop_samples": source.num_samples,
        "seed": source.seed,
        "settings": repr(source.settings),
        "num_pairs": num_pairs,
    }
    claim_folder(target, _fingerprint(source, num_pairs, pairs_per_shard))
    starts = range(0, num_pairs, pairs_per_shard)
    listed = []
    for number, start in enumerate(starts):
        stop = min(start + pairs_per_shard, num_pairs)
        path = target / f"pairs-{number:05d}-of-{len(starts):05d}.tfrecord"
        pairs = range(start, stop)
        listed.append(_written_before(path, pairs) or _write_one(path, source, pairs))
        if on_progress is not None:
            on_progress(stop, num_pairs)
    write_json(
        target / INDEX_NAME, {"format": _FORMAT, "version": _VERSION, **facts, "shards": listed}
    )


def _fingerprint(source: PairSource, num_pairs: int, pairs_per_shard: int) -> str:
    """Identifies everything that the shards depend on, without reading audio files."""
    digest = hashlib.sha256()
    for fact in _facts_of(source, num_pairs, pairs_per_shard):
        digest.update(repr(fact).encode("utf-8", "surrogateescape"))
    for response in source.rooms.responses if source.rooms else ():
        digest.update(response.tobytes())
    return digest.hexdigest()


def _facts_of(source: PairSource, num_pairs: int, pairs_per_shard: int) -> Iterator[Any]:
    yield _VERSION, num_pairs, pairs_per_shard
    yield source.voices.sample_rate_hz, source.num_samples, source.seed, source.settings
    for clip in source.clips:
        facts = (clip.split, clip.group, clip.category, clip.treble_lift_db, clip.record)
        yield os.path.abspath(clip.path), file_state(clip.path), facts
        if clip.minus is not None:
            yield os.path.abspath(clip.minus), file_state(clip.minus)
    yield [signal.size for pool in (source.voices, source.noises) for signal in pool.signals]


def _written_before(path: Path, pairs: range) -> dict[str, Any] | None:
    """Returns what the index says about a shard that an interrupted run has left whole."""
    try:
        shard = read_shard(path)
    except (FileNotFoundError, ValueError):
        return None
    if shard.content != "pairs" or [record["pair"] for record in shard.records] != list(pairs):
        return None
    facts = {"file": path.name, "bytes": path.stat().st_size, "records": len(pairs)}
    return {**facts, "sha256": sha256_of(path)}


def _write_one(path: Path, source: PairSource, pairs: range) -> dict[str, Any]:
    records, entries = [], []
    for pair in pairs:
        pcm = float_to_int16(np.concatenate([signal[0] for signal in source.batch(pair)]))
        content = pcm.astype("<i2", copy=False).tobytes()
        records.append((tfrecord.encode_example({"pair": pair, "pcm": content}), len(content)))
        entries.append({"pair": pair})
    return write_shard(path, "pairs", records, entries, source.voices.sample_rate_hz)


def read_pair_index(folder: str | Path) -> dict[str, Any]:
    """Reads the index of pair shards and the header of each shard.

    Raises:
        FileNotFoundError: If there is no index, or a shard is missing.
        ValueError: If a shard is foreign, truncated or of another version, naming it.
    """
    path = Path(folder) / INDEX_NAME
    index = read_json(path)
    check_index(index, path, _FORMAT, _VERSION)
    for item in index["shards"]:
        shard = read_shard(path.with_name(item["file"]))
        if shard.content != "pairs" or shard.path.stat().st_size != item["bytes"]:
            raise tfrecord.damaged(shard.path, "is not the one of the index")
    return index


def sharded_pairs(
    folder: str | Path, *, batch_size: int, seed: int, first_batch: int = 0
) -> tf.data.Dataset:
    """Makes the endless set of batches of pairs that were mixed beforehand.

    Every epoch visits every pair once, in an order of its own that depends on seed and
    epoch; a batch may span two epochs. Batch k depends on `seed` and k alone: a run that
    goes on with `first_batch=k` sees what the uninterrupted one would have seen. (What
    lies before it in its epoch is read again and dropped.)

    Args:
        folder: Folder of pair shards.
        batch_size: Pairs in a batch.
        seed: Seed of the order.
        first_batch: Index of the first batch.

    Returns:
        Batches in the structure of `lmkd_tf.data.pipeline.training_pairs`.

    Raises:
        FileNotFoundError: If there is no index, or a shard is missing.
        ValueError: If a shard cannot be used, naming it.
    """
    import tensorflow as tf

    index = read_pair_index(folder)
    epoch, done = divmod(first_batch * batch_size, index["num_pairs"])
    pairs = pair_epoch(folder, seed=seed, epoch=epoch).skip(done)
    later = tf.data.Dataset.range(epoch + 1, _MAX_EPOCHS)
    pairs = pairs.concatenate(later.flat_map(lambda e: _epoch_of(folder, index, seed, e)))
    batches = pairs.batch(batch_size, drop_remainder=True)
    return batches.map(_without_number).prefetch(_PREFETCH_BATCHES)


def pair_epoch(folder: str | Path, *, seed: int, epoch: int) -> tf.data.Dataset:
    """Makes one epoch of single pairs; its graph can be sent to a `tf.data` service.

    Args:
        folder: Folder of pair shards.
        seed: Seed of the order.
        epoch: Number of the epoch.

    Returns:
        Elements `(views, speech, pair)`: views and speech `(N,)`, float32, and the number
        of the pair, int64.
    """
    return _epoch_of(folder, read_pair_index(folder), seed, epoch)


def _epoch_of(folder: str | Path, index: dict[str, Any], seed: int, epoch: Any) -> tf.data.Dataset:
    import tensorflow as tf

    key = tf.cast(seed, tf.int64) * 1000003 + tf.cast(epoch, tf.int64)
    records = _records(folder, index, seed, epoch)
    shuffled = records.shuffle(_SHUFFLE_PAIRS, seed=key, reshuffle_each_iteration=False)
    return _parsed(shuffled, index)


def _records(folder: str | Path, index: dict[str, Any], seed: int, epoch: Any) -> tf.data.Dataset:
    """Reads the records of a few shards in turn, the shards in an order of the epoch."""
    import tensorflow as tf

    files = [str(Path(folder).resolve() / item["file"]) for item in index["shards"]]
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    order = tf.gather(files, tf.argsort(tf.random.stateless_uniform([len(files)], seed=key)))
    return tf.data.Dataset.from_tensor_slices(order).interleave(
        lambda file: tf.data.TFRecordDataset(file, buffer_size=2**20).skip(1),
        cycle_length=_INTERLEAVED_SHARDS,
        num_parallel_calls=2,
        deterministic=True,
    )


def _parsed(records: tf.data.Dataset, index: dict[str, Any]) -> tf.data.Dataset:
    num_samples = index["crop_samples"]
    return records.map(lambda record: _parse(record, num_samples), num_parallel_calls=2)


def _parse(record: tf.Tensor, num_samples: int) -> tuple[dict[str, tf.Tensor], tf.Tensor, Any]:
    import tensorflow as tf

    features = {
        "pcm": tf.io.FixedLenFeature([], tf.string),
        "pair": tf.io.FixedLenFeature([], tf.int64),
    }
    example = tf.io.parse_single_example(record, features)
    samples = tf.io.decode_raw(example["pcm"], tf.int16)
    samples = tf.reshape(tf.cast(samples, tf.float32) / 32768.0, (len(_SIGNALS), num_samples))
    views = {"first_view": samples[0], "second_view": samples[1]}
    return views, samples[2], example["pair"]


def _without_number(views: Any, speech: Any, pair: Any) -> tuple[Any, Any]:
    del pair
    return views, speech


def served_pairs(
    folder: str | Path, *, address: str, batch_size: int, seed: int, epoch: int = 0, job: str = ""
) -> tf.data.Dataset:
    """Makes one epoch of batches that the workers of a `tf.data` service read.

    Trainers that give the same `job` share the epoch: each pair goes to one of them,
    once. Without a job name every trainer gets the whole epoch. Which pairs come first
    depends on which worker is faster. If a worker dies, no pair comes twice, and the pairs
    of the shards that it was reading do not come in that epoch; the trainers wait until a
    worker is there again at its address, then go on.

    Args:
        folder: Folder of pair shards, at the same path for every worker.
        address: Dispatcher, as `host:port`.
        batch_size: Pairs in a batch; the last one of an epoch may be smaller.
        seed: Seed of the order.
        epoch: Number of the epoch.
        job: Name that trainers share; empty for none.

    Returns:
        Batches of `(views, speech, pair)`, see `pair_epoch`.
    """
    import tensorflow as tf

    index, service = read_pair_index(folder), tf.data.experimental.service
    distribute = service.distribute(
        processing_mode=service.ShardingPolicy.DYNAMIC,
        service=f"grpc://{address}",
        job_name=f"{job}-{epoch}" if job else None,
    )
    records = _records(folder, index, seed, epoch).batch(batch_size).apply(distribute)
    # Shuffled and parsed here: what a worker held in a buffer would be lost with it.
    shuffled = records.unbatch().shuffle(_SHUFFLE_PAIRS, seed=seed)
    return _parsed(shuffled, index).batch(batch_size).prefetch(_PREFETCH_BATCHES)
