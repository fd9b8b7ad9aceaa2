# SPDX-License-Identifier: Apache-2.0
"""Recognizes the layout of a corpus and reads it with the reader that fits."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from absl import logging

from lmkd_tf.data.files import find_audio
from lmkd_tf.data.folder import read_folder
from lmkd_tf.data.index import SPLITS, Clip, Corpus, clips_in
from lmkd_tf.data.readers import (
    containers,
    csv_manifest,
    dns_challenge,
    librispeech,
    ms_snsd,
    plain_folders,
    voicebank_demand,
)
from lmkd_tf.data.readers.layout import Layout, read_tree

_NUM_SHOWN = 12
_NUM_LEAKS_SHOWN = 5

_CORPUS_FOLDER = Layout(
    "corpus folder",
    "speech/manifest.csv and noise/manifest.csv",
    lambda path: all((path / part / "manifest.csv").is_file() for part in ("speech", "noise")),
    lambda path: read_folder(path, required_splits=()),
)
# The order decides where a folder fits two: what is more specific comes first.
LAYOUTS: tuple[Layout, ...] = (
    containers.LAYOUT,
    _CORPUS_FOLDER,
    voicebank_demand.LAYOUT,
    ms_snsd.LAYOUT,
    librispeech.LAYOUT,
    dns_challenge.LAYOUT,
    csv_manifest.LAYOUT,
    plain_folders.PAIRS,
    plain_folders.TREES,
)


def recognize(path: str | os.PathLike) -> Layout:
    """Returns the layout of a folder or list.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If no layout fits, with what was looked for and what is there.
    """
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(
            "The corpus must exist. "
            f"Received {folder}, where there is nothing. Give the folder of a corpus, "
            "or leave out --data to build the synthetic corpus."
        )
    for layout in LAYOUTS:
        if layout.recognizes(folder):
            return layout
    known = "\n".join(f"  {layout.name}: {layout.looks_for}" for layout in LAYOUTS)
    raise ValueError(
        "A corpus must have a layout that is known here. "
        f"Received {folder} with {_what_is_there(folder)}. "
        f"Give the folder above or below, or lay it out like one of these.\n{known}"
    )


def _what_is_there(folder: Path) -> str:
    if folder.is_file():
        return f"the file {folder.name}"
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir())
    rest = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return (", ".join(names[:_NUM_SHOWN]) + rest) or "nothing in it"


def read_corpus(path: str | os.PathLike, required_splits: tuple[str, ...] = SPLITS) -> Corpus:
    """Reads the index of a corpus, whatever its layout; decodes no audio.

    Args:
        path: Folder or CSV manifest. `SPEECH,NOISE` joins a corpus and trees of noise, so
            `LibriSpeech,musan/noise` is one corpus.
        required_splits: Splits that must hold speech and noise.

    Returns:
        The corpus. A speaker or recording in more than one split is warned of.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If no layout fits, an entry is wrong, or a required split is empty.
    """
    first, *rest = _parts_of(path)
    corpus = recognize(first).read(first)
    for noise in rest:
        corpus = _add_noise(corpus, noise)
    for split in required_splits:
        clips_in(corpus.speech, split, "speech")
        clips_in(corpus.noise, split, "noise")
    if corpus.layout != plain_folders.PAIRS.name:  # knows no speakers, only file names
        _warn_of_leaks(corpus.speech, "speaker")
        _warn_of_leaks(corpus.noise, "recording")
    return corpus


def _warn_of_leaks(clips: Iterable[Clip], kind: str) -> None:
    """Warns of speakers or recordings in more than one split.

    No error, unlike in a folder with manifests: there the columns promise splits, here a
    name may be no more than a label that two parts of a corpus happen to share.
    """
    splits: dict[str, set[str]] = {}
    for clip in clips:
        if clip.minus is None:  # the noise of a pair is named after its file
            splits.setdefault(clip.group, set()).add(clip.split)
    leaks = [f"'{g}' ({' and '.join(sorted(s))})" for g, s in splits.items() if len(s) > 1]
    if leaks:
        logging.warning(
            "A %s should be in one split only, or scores on held-out files are too good. "
            "%d %s in more than one: %s%s. Move all files of each to one split.",
            *(kind, len(leaks), "is" if len(leaks) == 1 else "are"),
            *(", ".join(leaks[:_NUM_LEAKS_SHOWN]), ", ..." if leaks[_NUM_LEAKS_SHOWN:] else ""),
        )


def _parts_of(path: str | os.PathLike) -> list[Path]:
    text = os.fspath(path)
    is_one = Path(text).exists() or "," not in text
    return [Path(part) for part in ([text] if is_one else text.split(","))]


def _add_noise(corpus: Corpus, path: Path) -> Corpus:
    if not path.is_dir() or not find_audio(path):
        raise ValueError(
            "What follows the comma must be a folder with audio files. "
            f"Received {path}. Give the folder of the noise recordings."
        )
    added = read_tree(path, is_noise=True)
    return replace(
        corpus,
        noise=corpus.noise + added,
        description=f"{corpus.description} Noise from {path.resolve().name}.",
    )
