# SPDX-License-Identifier: Apache-2.0
"""Finds audio files in a folder and asks them for their length; decodes nothing."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from lmkd_tf.data.index import SPLITS

AUDIO_SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".sph")
)
# Shares of the groups that go to the held-out splits where a corpus has none of its own.
_VALID_SHARE, _TEST_SHARE = 0.1, 0.1
_NUM_THREADS = 4


def find_audio(folder: str | os.PathLike) -> list[Path]:
    """Returns the audio files below a folder, sorted by path; hidden ones are left out.

    Links to folders are followed, each real folder once, so a loop of links ends.
    """
    return sorted(_walk(Path(folder), set()))


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        facts = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # a link that leads nowhere, a folder that may not be read
        return
    if (facts.st_dev, facts.st_ino) in seen:
        return
    seen.add((facts.st_dev, facts.st_ino))
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if _is_folder(entry):
            yield from _walk(path, seen)
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            yield path


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def probe_seconds(paths: Sequence[Path]) -> list[float]:
    """Returns the length of each file in s by its header; 0 where it cannot be read."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(_seconds_of, paths))


def _seconds_of(path: Path) -> float:
    try:
        return float(soundfile.info(path).duration)
    except (OSError, RuntimeError, TypeError):
        return 0.0  # loading will say why


def keyed(paths: Iterable[Path], folder: Path) -> dict[str, Path]:
    """Returns the files by their path below `folder` without the suffix.

    Raises:
        ValueError: If two files have one name but for the suffix.
    """
    found: dict[str, Path] = {}
    for path in paths:
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise ValueError(
                "Two files of one folder must differ in more than the suffix, or they cannot be "
                f"told apart. Received {found[key]} and {path}. Delete or rename one of them."
            )
        found[key] = path
    return found


def assign_splits(groups: Iterable[str]) -> dict[str, str]:
    """Returns group -> split: about a tenth is `valid` and a tenth `test`, by name alone.

    A group keeps its split when other groups come or go. With three groups or more no
    split is empty.
    """
    places = {group: _place_of(group) for group in groups}
    splits = {group: _split_at(place) for group, place in places.items()}
    if len(splits) >= len(SPLITS):
        ranked = sorted(places, key=lambda group: (places[group], group))
        for split, donor in (("test", ranked[0]), ("valid", ranked[1]), ("train", ranked[-1])):
            if split not in splits.values():
                splits[donor] = split
    return splits


def _place_of(group: str) -> float:
    """Returns a number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def _split_at(place: float) -> str:
    if place < _TEST_SHARE:
        return "test"
    return "valid" if place < _TEST_SHARE + _VALID_SHARE else "train"
