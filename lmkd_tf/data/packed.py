# SPDX-License-Identifier: Apache-2.0
"""Packs a corpus into one file of int16 samples that is mapped into memory, not read.

`audio.pcm` holds the clips one after another, mono, little-endian; `packed.json` says
which is where. Whoever has numpy can train from it: this module imports no TensorFlow.
"""

import functools
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from lmkd_tf.config.files import read_json, sha256_of, write_json
from lmkd_tf.data.index import Clip, Corpus
from lmkd_tf.data.store import AudioStore, check_failures, try_decode
from lmkd_tf.dsp.level import rms_dbfs
from lmkd_tf.dsp.pcm import int16_to_float

OnProgress = Callable[[int, int], None]

INDEX_NAME = "packed.json"
_AUDIO_NAME = "audio.pcm"
_FORMAT = "lmkd-tf packed audio"
_VERSION = 1
_NUM_THREADS = 2
# Clips decoded ahead of the one being written; bounds the memory.
_WINDOW = 64


@dataclass(frozen=True)
class Entry:
    """Describes one clip in a container.

    Args:
        id: Name of the clip, unique in its corpus.
        position: Place of the clip in its corpus, from 0.
        kind: `"speech"` or `"noise"`.
        split: Split of the clip.
        group: Speaker or recording.
        category: Kind of noise.
        samples: Length in samples.
        level_dbfs: RMS level in dBFS.
        treble_lift_db: Shelf that has been applied, in dB.
    """

    id: str
    position: int
    kind: str
    split: str
    group: str
    category: str
    samples: int
    level_dbfs: float
    treble_lift_db: float


@dataclass(frozen=True)
class Source:
    """One clip to put into a container.

    Args:
        id: Name of the clip: its path below the folder that holds the whole corpus.
        position: Place of the clip in its corpus, from 0.
        kind: `"speech"` or `"noise"`.
        clip: The clip.
    """

    id: str
    position: int
    kind: str
    clip: Clip


def entry_of(source: Source, signal: np.ndarray) -> Entry:
    """Returns the description of a decoded clip, int16, shape `(N,)`."""
    clip, level_dbfs = source.clip, rms_dbfs(int16_to_float(signal))
    place = (source.id, source.position, source.kind)
    facts = (clip.split, clip.group, clip.category, signal.size)
    return Entry(*place, *facts, level_dbfs, clip.treble_lift_db)


def list_sources(corpus: Corpus) -> list[Source]:
    """Returns all speech and noise of a corpus, with names that no machine changes."""
    clips = [("speech", c) for c in corpus.speech] + [("noise", c) for c in corpus.noise]
    root = os.path.commonpath([str(clip.path.parent) for _, clip in clips]) if clips else ""
    names = [Path(os.path.relpath(clip.path, root)).as_posix() for _, clip in clips]
    return [Source(names[i], i, kind, clip) for i, (kind, clip) in enumerate(clips)]


def decode_ahead(
    sources: list[Source], sample_rate_hz: int
) -> Iterator[tuple[Source, np.ndarray | str]]:
    """Decodes clips in order with a few threads, a bounded number of them ahead."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for start in range(0, len(sources), _WINDOW):
            window = sources[start : start + _WINDOW]
            signals = pool.map(lambda item: try_decode(item.clip, sample_rate_hz), window)
            yield from zip(window, signals, strict=True)


def write_packed(
    corpus: Corpus,
    folder: str | Path,
    *,
    sample_rate_hz: int = 16000,
    max_failed_fraction: float = 0.05,
    on_progress: OnProgress | None = None,
) -> list[tuple[Path, str]]:
    """Packs all speech and noise of a corpus; see `warn_left_out` for the rest.

    The folder appears when it is complete; a folder that holds anything else than a
    packed corpus is left alone.

    Args:
        corpus: Corpus to pack.
        folder: Folder to make.
        sample_rate_hz: Sample rate in Hz.
        max_failed_fraction: Share of unusable clips, in [0, 1], that is put up with.
        on_progress: Called with (clips done, clips in all).

    Returns:
        Path and reason of every clip that was left out.

    Raises:
        ValueError: If the folder holds something else, or too many clips are unusable.
        OSError: If the disk is full; nothing is left behind.
    """
    target = Path(folder).resolve()
    _refuse_other_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial-{uuid.uuid4().hex[:8]}"
    try:
        partial.mkdir()
        skipped = _write(corpus, partial, sample_rate_hz, on_progress)
        num_clips = len(corpus.speech) + len(corpus.noise)
        check_failures(skipped, num_clips, max_failed_fraction)
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    warn_left_out(corpus)
    return skipped


def _refuse_other_folder(folder: Path) -> None:
    """Raises unless a folder is absent, empty or a packed corpus and nothing besides.

    All that is in the folder goes when the corpus is packed again: a file of somebody else
    that lies there, such as an inspection, must not.

    Raises:
        ValueError: If the folder holds anything else.
    """
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in found if name not in (INDEX_NAME, _AUDIO_NAME)]
    is_packed_or_empty = folder.is_dir() and not foreign and (not found or INDEX_NAME in found)
    if folder.exists() and not is_packed_or_empty:
        what = ", ".join((foreign or found)[:5]) or "it is a file"
        raise ValueError(
            "The result needs a folder of its own. "
            f"Received {folder}, which holds something else: {what}. "
            "Give the path of a new folder, or move these files away."
        )


def replace_folder(partial: Path, target: Path) -> None:
    """Moves a complete folder to its name; an older one goes only after that."""
    old = partial.with_name(f"{partial.name}-old")
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _write(
    corpus: Corpus, folder: Path, sample_rate_hz: int, on_progress: OnProgress | None
) -> list[tuple[Path, str]]:
    sources = list_sources(corpus)
    digest, entries, skipped = hashlib.sha256(), [], []
    with (folder / _AUDIO_NAME).open("wb") as file:
        for done, (source, signal) in enumerate(decode_ahead(sources, sample_rate_hz), 1):
            if isinstance(signal, str):
                skipped.append((source.clip.path, signal))
            else:
                content = signal.astype("<i2", copy=False).tobytes()
                file.write(content)
                digest.update(content)
                entries.append(asdict(entry_of(source, signal)))
            if on_progress is not None:
                on_progress(done, len(sources))
        file.flush()
        os.fsync(file.fileno())
    index = {
        "format": _FORMAT,
        "version": _VERSION,
        "sample_rate_hz": sample_rate_hz,
        "samples": sum(entry["samples"] for entry in entries),
        "sha256": digest.hexdigest(),
        "corpus": corpus_facts(corpus),
        "skipped": [[str(path), reason] for path, reason in skipped],
        "clips": entries,
    }
    write_json(folder / INDEX_NAME, index)
    return skipped


def corpus_facts(corpus: Corpus) -> dict[str, Any]:
    """Returns what a container keeps of a corpus beside its clips."""
    names = ("name", "is_synthetic", "description")
    return {name: getattr(corpus, name) for name in names}


def warn_left_out(corpus: Corpus) -> None:
    """Warns of what a container has no place for: room impulse responses and pairs."""
    parts = {
        "room impulse responses (training simulates rooms)": corpus.responses,
        "pairs of noisy and clean files (score them from the corpus itself)": corpus.pairs,
    }
    listed = [f"{len(items)} {name}" for name, items in parts.items() if items]
    if listed:
        logging.warning(
            "Packed corpora and shards hold speech and noise only. Left out of %s: %s.",
            corpus.name,
            " and ".join(listed),
        )


def check_index(index: Any, file: Path, wanted: str, version: int) -> None:
    """Refuses an index of another format or version.

    Args:
        index: What the file holds.
        file: Where it was read from.
        wanted: Name of the format.
        version: The one version that is understood.

    Raises:
        ValueError: If the format or the version differs.
    """
    received = (index.get("format"), index.get("version")) if isinstance(index, dict) else index
    if received != (wanted, version):
        raise ValueError(
            f"This file must be '{wanted}' of version {version}. "
            f"Received {file} with format and version {received}. "
            "Make it again with this version of lmkd-data."
        )


@functools.lru_cache(maxsize=8)
def _read_index(path: Path, mtime_ns: int) -> dict[str, Any]:
    del mtime_ns  # part of the key: an index that was replaced is read again
    index = read_json(path)
    check_index(index, path, _FORMAT, _VERSION)
    return index


def read_packed(folder: str | Path) -> Corpus:
    """Reads the index of a packed corpus.

    Raises:
        FileNotFoundError: If there is no packed corpus in the folder.
        ValueError: If it is truncated, or of another format or version.
    """
    path = Path(folder) / INDEX_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"A packed corpus holds {INDEX_NAME}. Received {folder}, without it. "
            "Make one with lmkd-data pack CORPUS FOLDER."
        )
    index = _read_index(path, path.stat().st_mtime_ns)
    audio = path.with_name(_AUDIO_NAME)
    num_bytes = audio.stat().st_size if audio.is_file() else 0
    if num_bytes != 2 * index["samples"]:
        raise ValueError(
            f"A packed corpus must be whole: {2 * index['samples']} bytes of audio. "
            f"Received {audio} with {num_bytes} bytes. Pack the corpus again."
        )
    entries = [Entry(**entry) for entry in index["clips"]]
    return corpus_of_entries(
        [(entry, audio, record) for record, entry in enumerate(entries)],
        index["sample_rate_hz"],
        index["corpus"],
        "packed corpus",
    )


def corpus_of_entries(
    entries: list[tuple[Entry, Path, int]],
    sample_rate_hz: int,
    facts: dict[str, Any],
    layout: str,
) -> Corpus:
    """Makes the index of a corpus from the entries of its containers, in its own order.

    Args:
        entries: Entry, container and number in the container of each clip.
        sample_rate_hz: Sample rate in Hz.
        facts: See `corpus_facts`.
        layout: Name of the layout.
    """
    clips: dict[str, list[Clip]] = {"speech": [], "noise": []}
    for entry, path, record in sorted(entries, key=lambda item: item[0].position):
        clips[entry.kind].append(
            Clip(
                path=path,
                seconds=entry.samples / sample_rate_hz,
                split=entry.split,
                group=entry.group,
                category=entry.category,
                treble_lift_db=entry.treble_lift_db,
                record=record,
            )
        )
    return Corpus(
        speech=tuple(clips["speech"]), noise=tuple(clips["noise"]), layout=layout, **facts
    )


def open_packed(clips: list[Clip], sample_rate_hz: int) -> AudioStore:
    """Opens clips of one packed corpus without reading their audio.

    Args:
        clips: Clips as `read_packed` lists them, at least one.
        sample_rate_hz: Sample rate in Hz; must be that of the corpus.

    Raises:
        ValueError: If the corpus has another sample rate.
    """
    audio = clips[0].path
    index = _read_index(audio.with_name(INDEX_NAME), audio.with_name(INDEX_NAME).stat().st_mtime_ns)
    check_rate(audio, index["sample_rate_hz"], sample_rate_hz)
    entries = index["clips"]
    ends = np.cumsum([entry["samples"] for entry in entries])
    samples = np.memmap(audio, dtype="<i2", mode="r").view(np.ndarray)
    chosen = [clip.record or 0 for clip in clips]
    return AudioStore(
        signals=[samples[ends[i] - entries[i]["samples"] : ends[i]] for i in chosen],
        clips=clips,
        skipped=[],
        sample_rate_hz=sample_rate_hz,
        levels_dbfs=[entries[i]["level_dbfs"] for i in chosen],
    )


def check_rate(path: Path, stored_hz: int, wanted_hz: int) -> None:
    """Refuses a container of another sample rate.

    Raises:
        ValueError: If the rates differ.
    """
    if stored_hz != wanted_hz:
        raise ValueError(
            f"The audio must be stored at {wanted_hz} Hz. "
            f"Received {path} at {stored_hz} Hz. Make it again at that rate."
        )


def verify_packed(folder: str | Path) -> int:
    """Reads a packed corpus once and compares its checksum; returns the number of clips.

    Raises:
        ValueError: If the audio is not what was packed.
    """
    read_packed(folder)
    index, audio = read_json(Path(folder) / INDEX_NAME), Path(folder) / _AUDIO_NAME
    if sha256_of(audio) != index["sha256"]:
        raise ValueError(
            f"The audio of a packed corpus must have SHA-256 {index['sha256']}. "
            f"Received {audio}, which is damaged. Pack the corpus again."
        )
    return len(index["clips"])
