# SPDX-License-Identifier: Apache-2.0
"""Shards: TFRecord files of decoded clips or of mixed pairs, each with a header of its own.

The first record of a shard says format, version, sample rate, size of the file and, per
clip, where its samples lie. A shard is therefore refused by name if it is foreign, of
another version or truncated, before anything is read from it; each record has the CRC-32C
of TFRecord. What is in a shard and in which order depends on the names of the clips alone,
not on who wrote it: any number of workers writes the same bytes.

Training maps the shards into memory and draws from them at random (`open_shards`). To
TensorFlow, or to anything else, they are TFRecords of `tf.train.Example` with `id`,
`samples` and `pcm` behind one record to skip. This module imports no TensorFlow.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.config.files import atomic_path, read_json, sha256_of, write_json, write_text
from lmkd_tf.data import tfrecord
from lmkd_tf.data.index import Clip, Corpus
from lmkd_tf.data.packed import (
    Entry,
    Source,
    check_index,
    check_rate,
    corpus_facts,
    corpus_of_entries,
    entry_of,
    list_sources,
    warn_left_out,
)
from lmkd_tf.data.store import AudioStore, check_failures, try_decode

OnProgress = Callable[[int, int], None]

INDEX_NAME = "shards.json"
DEAD_LETTER_NAME = "dead_letter.csv"
HEADER_FEATURE = "lmkd_header"
FORMAT = "lmkd-tf shard"
VERSION = 1
_SET_FORMAT = "lmkd-tf shards"
_PLAN_NAME = "plan.json"
_NUM_THREADS = 2
_SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ShardPlan:
    """Says which clips go where; the same for every worker.

    Args:
        folder: Folder that holds the shards; every worker writes into it.
        sample_rate_hz: Sample rate in Hz.
        counts: Number of shards of each `(kind, split)`.
    """

    folder: Path
    sample_rate_hz: int
    counts: dict[tuple[str, str], int]

    def file_of(self, source: Source) -> str:
        """Returns the name of the shard that a clip belongs into."""
        part = (source.kind, source.clip.split)
        digest = hashlib.sha256(source.id.encode("utf-8", "surrogateescape")).digest()
        number = int.from_bytes(digest[:8], "big") % self.counts[part]
        return f"{part[0]}-{part[1]}-{number:05d}-of-{self.counts[part]:05d}.tfrecord"


def plan_shards(
    corpus: Corpus, folder: str | Path, *, sample_rate_hz: int = 16000, num_shards: int = 0
) -> ShardPlan:
    """Plans the shards of a corpus.

    Args:
        corpus: Corpus to shard.
        folder: Folder for the shards.
        sample_rate_hz: Sample rate in Hz.
        num_shards: Shards of each kind and split; 0 for as many as make 64 MiB each.
    """
    seconds: dict[tuple[str, str], float] = {}
    for source in list_sources(corpus):
        part = (source.kind, source.clip.split)
        seconds[part] = seconds.get(part, 0.0) + max(source.clip.seconds, 1.0)
    counts = {
        part: num_shards or max(1, round(2 * sample_rate_hz * total / _SHARD_BYTES))
        for part, total in seconds.items()
    }
    return ShardPlan(Path(folder).resolve(), sample_rate_hz, counts)


def order_key(identity: str) -> str:
    """Returns what the clips of a shard are sorted by: no order that a corpus has."""
    return hashlib.sha256(b"order " + identity.encode("utf-8", "surrogateescape")).hexdigest()


def write_clip_shard(
    path: Path, clips: Iterable[tuple[Entry, bytes]], sample_rate_hz: int
) -> dict[str, Any]:
    """Writes one shard of clips, whole or not at all.

    Args:
        path: File to write.
        clips: Description and int16 little-endian samples of each clip, in any order.
        sample_rate_hz: Sample rate in Hz.

    Returns:
        What the index of the set says about the shard.
    """
    ordered = sorted(clips, key=lambda item: (order_key(item[0].id), item[0].id))
    records, listed = [], []
    for entry, content in ordered:
        facts = {"id": entry.id.encode("utf-8", "surrogateescape"), "samples": entry.samples}
        records.append((tfrecord.encode_example({**facts, "pcm": content}), len(content)))
        listed.append(asdict(entry))
    return write_shard(path, "clips", records, listed, sample_rate_hz)


def write_shard(
    path: Path,
    content: str,
    records: Sequence[tuple[bytes, int]],
    listed: Sequence[dict[str, Any]],
    sample_rate_hz: int,
) -> dict[str, Any]:
    """Writes records behind a header that describes them, whole or not at all.

    Args:
        path: File to write.
        content: `"clips"` or `"pairs"`.
        records: Each record and how many bytes of samples end it.
        listed: What the header says about each record.
        sample_rate_hz: Sample rate in Hz.

    Returns:
        File name, bytes, records and SHA-256.
    """
    place, places = 0, []
    for record, num_bytes in records:
        places.append([place, len(record), num_bytes])
        place += len(record) + tfrecord.FRAME_BYTES
    header = {
        "format": FORMAT,
        "version": VERSION,
        "content": content,
        "sample_rate_hz": sample_rate_hz,
        "record_bytes": place,
        "places": places,
        "records": list(listed),
    }
    text = json.dumps(header, sort_keys=True).encode()
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for record in (tfrecord.encode_example({HEADER_FEATURE: text}), *(r for r, _ in records)):
            framed = tfrecord.frame(record)
            digest.update(framed)
            file.write(framed)
        file.flush()
        os.fsync(file.fileno())
    num_bytes = path.stat().st_size
    facts = {"file": path.name, "bytes": num_bytes, "records": len(records)}
    return {**facts, "sha256": digest.hexdigest()}


@dataclass(frozen=True)
class Shard:
    """The header of a shard.

    Args:
        path: The file.
        content: `"clips"` or `"pairs"`.
        sample_rate_hz: Sample rate in Hz.
        start: Offset of the first record behind the header.
        places: Offset from `start`, bytes, and bytes of samples of each record.
        records: What the header says about each record.
    """

    path: Path
    content: str
    sample_rate_hz: int
    start: int
    places: list[list[int]]
    records: list[dict[str, Any]]


def read_shard(path: str | Path) -> Shard:
    """Reads the header of a shard and checks that the file is whole.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is foreign, truncated or of another version, naming it.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"Every shard of the index must exist. Received no file {file}. "
            "Run lmkd-data shard again; shards that are there are kept."
        )
    first = tfrecord.read_record(file)
    text = tfrecord.decode_bytes_feature(first, HEADER_FEATURE)
    if text is None:
        raise tfrecord.damaged(file, "begins with no header of this package")
    header = json.loads(text)
    check_index(header, file, FORMAT, VERSION)
    start = len(first) + tfrecord.FRAME_BYTES
    expected = start + header["record_bytes"]
    if file.stat().st_size != expected:
        reason = f"has {file.stat().st_size} bytes instead of {expected}"
        raise tfrecord.damaged(file, reason)
    facts = (header["content"], header["sample_rate_hz"])
    return Shard(file, *facts, start, header["places"], header["records"])


def verify_shard(path: str | Path) -> None:
    """Reads a shard once and checks every record.

    Raises:
        ValueError: If one of them is damaged, naming the file.
    """
    shard = read_shard(path)
    for place, length, _ in shard.places:
        if len(tfrecord.read_record(shard.path, shard.start + place)) != length:
            raise tfrecord.damaged(shard.path, "does not hold what its header lists")


class ShardSignal:
    """Stands for the int16 samples of one record; slices come straight from the mapped file.

    The checksum of a record is compared when it is used first.

    Args:
        content: The mapped file.
        shard: Header of the shard.
        record: Number of the record.
    """

    dtype = np.dtype(np.int16)
    ndim = 1

    def __init__(self, content: mmap.mmap, shard: Shard, record: int) -> None:
        place, length, num_bytes = shard.places[record]
        begin = shard.start + place + tfrecord.FRAME_BYTES - 4
        self._content = content
        self._shard = shard
        self._span = (begin, begin + length)
        self._is_checked = False
        self._samples = np.frombuffer(
            content, dtype="<i2", count=num_bytes // 2, offset=begin + length - num_bytes
        )
        self.size = self._samples.size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> np.ndarray:
        if not self._is_checked:
            self._check()
        return self._samples[part]

    def any(self) -> bool:
        """Tells whether a sample is not zero."""
        return bool(self[:].any())

    def _check(self) -> None:
        begin, end = self._span
        stored = int.from_bytes(self._content[end : end + 4], "little")
        if tfrecord.masked_crc(self._content[begin:end]) != stored:
            raise tfrecord.damaged(self._shard.path, "holds a damaged record")
        self._is_checked = True


def write_index(
    folder: Path, corpus: Corpus, sample_rate_hz: int, files: Iterable[str]
) -> list[dict[str, Any]]:
    """Writes the index of a set of shards from the files themselves; it is written last.

    Args:
        folder: Folder of the shards.
        corpus: Corpus that they hold.
        sample_rate_hz: Sample rate in Hz.
        files: Names of the shards.

    Returns:
        What the index says about each shard.
    """
    listed = []
    for name in sorted(files):
        shard = read_shard(folder / name)
        facts = {"file": name, "records": len(shard.records)}
        facts["bytes"] = shard.path.stat().st_size
        listed.append({**facts, "sha256": sha256_of(shard.path)})
    index = {
        "format": _SET_FORMAT,
        "version": VERSION,
        "sample_rate_hz": sample_rate_hz,
        "corpus": corpus_facts(corpus),
        "shards": listed,
    }
    write_json(folder / INDEX_NAME, index)
    return listed


def write_dead_letters(folder: Path, letters: Iterable[tuple[str, str]]) -> None:
    """Writes the files that could not be used, with the reason, as CSV."""
    rows = [f'"{name.replace(chr(34), chr(34) * 2)}","{reason}"' for name, reason in letters]
    lines = ["path,reason", *sorted(row.replace("\n", " ") for row in rows)]
    write_text(folder / DEAD_LETTER_NAME, "\n".join(lines) + "\n")


def write_shards(
    corpus: Corpus,
    folder: str | Path,
    *,
    sample_rate_hz: int = 16000,
    num_shards: int = 0,
    max_failed_fraction: float = 0.05,
    on_progress: OnProgress | None = None,
) -> list[tuple[str, str]]:
    """Shards a corpus in this process; see `lmkd_tf.data.beam` for many machines.

    A run that was interrupted goes on: shards that are whole are kept.

    Args:
        corpus: Corpus to shard.
        folder: Folder for the shards; it holds nothing else.
        sample_rate_hz: Sample rate in Hz.
        num_shards: Shards of each kind and split; 0 for as many as make 64 MiB each.
        max_failed_fraction: Share of unusable clips, in [0, 1], that is put up with.
        on_progress: Called with (shards done, shards in all).

    Returns:
        Name and reason of every clip that was left out.

    Raises:
        ValueError: If the folder holds something else, or too many clips are unusable.
    """
    plan = plan_shards(corpus, folder, sample_rate_hz=sample_rate_hz, num_shards=num_shards)
    by_file = prepare_folder(plan, list_sources(corpus))
    letters: list[tuple[str, str]] = []
    for done, (name, members) in enumerate(sorted(by_file.items()), 1):
        if not _is_written(plan.folder / name, members):
            letters += _write_one(plan, name, members)
        if on_progress is not None:
            on_progress(done, len(by_file))
    finish_set(plan, corpus, letters, max_failed_fraction)
    return letters


def _write_one(plan: ShardPlan, name: str, members: list[Source]) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        signals = list(pool.map(lambda s: try_decode(s.clip, plan.sample_rate_hz), members))
    clips, letters = [], []
    for source, signal in zip(members, signals, strict=True):
        if isinstance(signal, str):
            letters.append((source.id, signal))
        else:
            clips.append((entry_of(source, signal), signal.astype("<i2", copy=False).tobytes()))
    if clips:
        write_clip_shard(plan.folder / name, clips, plan.sample_rate_hz)
    return letters


def _is_written(path: Path, members: Sequence[Source]) -> bool:
    """Tells whether an interrupted run has left this shard whole."""
    try:
        written = {record["id"] for record in read_shard(path).records}
    except (FileNotFoundError, ValueError):
        return False
    return written == {source.id for source in members}


def prepare_folder(plan: ShardPlan, sources: Sequence[Source]) -> dict[str, list[Source]]:
    """Makes the folder of a set; what an interrupted run of the same plan left there stays.

    Args:
        plan: The plan to carry out.
        sources: All clips of the corpus.

    Returns:
        Name of each shard and the clips that belong into it.

    Raises:
        ValueError: If there is nothing to shard, or the folder holds something else.
    """
    if not sources:
        raise ValueError(
            "A corpus must hold speech or noise to be sharded. "
            f"Received one without any for {plan.folder}. Look at it with lmkd-data inspect."
        )
    by_file: dict[str, list[Source]] = {}
    for source in sources:
        by_file.setdefault(plan.file_of(source), []).append(source)
    claim_folder(plan.folder, _fingerprint(plan, sources))
    return by_file


def claim_folder(folder: Path, fingerprint: str) -> None:
    """Makes a folder for shards of one plan, or takes up the one that an interrupt left.

    The plan is written before the first shard: without it, what an interrupted run leaves
    could not be told from a folder of something else, nor from shards of other settings.

    Args:
        folder: Folder for the shards.
        fingerprint: Identifies the plan: what the shards are made of, and how.

    Raises:
        ValueError: If the folder holds anything but shards of this plan.
    """
    plan_file = folder / _PLAN_NAME
    is_same = plan_file.is_file() and read_json(plan_file) == fingerprint
    if folder.exists() and any(folder.iterdir()) and not is_same:
        raise ValueError(
            "Shards need a folder of their own. "
            f"Received {folder}, which holds shards of another corpus, of other settings or "
            "of files that have changed, or something else. Give a new folder, or delete this one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(plan_file, fingerprint)
    for leftover in folder.glob(".*.tfrecord"):  # of a process that was killed
        leftover.unlink()


def _fingerprint(plan: ShardPlan, sources: Sequence[Source]) -> str:
    """Identifies plan and files without reading the files."""
    digest = hashlib.sha256(
        repr((VERSION, plan.sample_rate_hz, sorted(plan.counts.items()))).encode()
    )
    for source in sources:
        clip = source.clip
        state = file_state(clip.path)
        described = (source.id, source.kind, clip.split, clip.group, clip.category, state)
        digest.update(repr(described).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def file_state(path: Path) -> tuple[int, int] | None:
    """Returns size and time of a file, to tell whether it has changed; None if it is missing."""
    facts = path.stat() if path.is_file() else None
    return (facts.st_size, facts.st_mtime_ns) if facts else None


def finish_set(
    plan: ShardPlan,
    corpus: Corpus,
    letters: Sequence[tuple[str, str]],
    max_failed_fraction: float,
) -> None:
    """Writes the list of unusable clips and, if these are few enough, the index.

    Warns of what shards have no place for.

    Args:
        plan: The plan that was carried out.
        corpus: Corpus that was sharded.
        letters: Name and reason of every clip that was left out.
        max_failed_fraction: Share of them, in [0, 1], that is put up with.

    Raises:
        ValueError: If more are unusable, or examples were lost.
    """
    write_dead_letters(plan.folder, letters)
    num_clips = len(corpus.speech) + len(corpus.noise)
    check_failures([(Path(n), r) for n, r in letters], num_clips, max_failed_fraction)
    files = [path.name for path in plan.folder.glob("*.tfrecord")]
    listed = write_index(plan.folder, corpus, plan.sample_rate_hz, files)
    num_written = sum(item["records"] for item in listed)
    if num_written + len(letters) != num_clips:
        (plan.folder / INDEX_NAME).unlink()
        raise ValueError(
            "Every clip must be in one shard or on the dead-letter list. "
            f"Received {num_written} written and {len(letters)} refused of {num_clips}. "
            "Run lmkd-data shard again."
        )
    warn_left_out(corpus)


def read_shards(folder: str | Path) -> Corpus:
    """Reads the index of a set of shards and the header of each.

    Raises:
        FileNotFoundError: If there is no index, or a shard is missing.
        ValueError: If a shard is foreign, truncated or of another version, naming it.
    """
    path = Path(folder) / INDEX_NAME
    index = read_json(path)
    check_index(index, path, _SET_FORMAT, VERSION)
    entries = []
    for item in index["shards"]:
        shard = read_shard(path.with_name(item["file"]))
        if shard.content != "clips" or len(shard.records) != item["records"]:
            raise tfrecord.damaged(shard.path, "is not the one of the index")
        entries += [(Entry(**e), shard.path, i) for i, e in enumerate(shard.records)]
    return corpus_of_entries(entries, index["sample_rate_hz"], index["corpus"], "shards")


def open_shards(clips: list[Clip], sample_rate_hz: int) -> AudioStore:
    """Opens clips of a set of shards without reading their audio.

    Args:
        clips: Clips as `read_shards` lists them, at least one.
        sample_rate_hz: Sample rate in Hz; must be that of the shards.

    Raises:
        ValueError: If a shard is damaged or has another sample rate.
    """
    shards: dict[Path, tuple[mmap.mmap, Shard]] = {}
    signals, levels_dbfs = [], []
    for clip in clips:
        if clip.path not in shards:
            shard = read_shard(clip.path)
            check_rate(clip.path, shard.sample_rate_hz, sample_rate_hz)
            with clip.path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            shards[clip.path] = (content, shard)
        content, shard = shards[clip.path]
        record = clip.record or 0
        signals.append(ShardSignal(content, shard, record))
        levels_dbfs.append(shard.records[record]["level_dbfs"])
    return AudioStore(signals, clips, [], sample_rate_hz, levels_dbfs)


def verify_shards(folder: str | Path) -> int:
    """Reads every shard of a set once; returns the number of records.

    Raises:
        ValueError: If a shard is not what the index says, naming it.
    """
    read_shards(folder)
    index = read_json(Path(folder) / INDEX_NAME)
    for item in index["shards"]:
        path = Path(folder) / item["file"]
        verify_shard(path)
        if sha256_of(path) != item["sha256"]:
            raise tfrecord.damaged(path, "is not the one of the index")
    return sum(item["records"] for item in index["shards"])
