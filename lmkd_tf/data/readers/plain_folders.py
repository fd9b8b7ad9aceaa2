# SPDX-License-Identifier: Apache-2.0
"""Reads plain folders: a pair of `clean/` and `noisy/`, or trees of speech and noise.

Pairs may lie in folders named after a split (`train/clean`, `train/noisy`, `test/clean`).
Trees are `speech/` (or `clean/`) and `noise/`, with `rirs/` for room impulse responses.
"""

from pathlib import Path

from lmkd_tf.data.index import SPLITS, Clip, Corpus, Pair
from lmkd_tf.data.readers.layout import (
    SPLIT_OF_FOLDER,
    Labels,
    Layout,
    describe,
    first_folder,
    make_pairs,
    match_names,
    noise_of_pairs,
    read_tree,
    speech_of_pairs,
)

_SPEECH, _NOISE = ("speech", "clean"), ("noise", "noises")
_RESPONSES = ("rirs", "rir", "impulse_responses")


def _is_pair(path: Path) -> bool:
    return (path / "clean").is_dir() and (path / "noisy").is_dir()


def _pair_folders(path: Path) -> list[tuple[str, Path]]:
    """Returns (split or empty, folder with `clean/` and `noisy/`)."""
    if _is_pair(path):
        return [("", path)]
    folders = sorted(path.iterdir()) if path.is_dir() else []
    named = [(SPLIT_OF_FOLDER.get(folder.name.lower(), ""), folder) for folder in folders]
    return [(split, folder) for split, folder in named if split and _is_pair(folder)]


def read_pairs(path: Path) -> Corpus:
    """Reads noisy and clean files that belong together by name.

    Raises:
        ValueError: If a file of one folder has no counterpart in the other.
    """
    pairs: list[Pair] = []
    for split, folder in _pair_folders(path):
        files = match_names(folder / "noisy", folder / "clean")
        pairs += make_pairs(files, lambda file, split=split: Labels(split, file.stem))
    return Corpus(
        name=path.resolve().name,
        is_synthetic=False,
        speech=speech_of_pairs(pairs),
        noise=noise_of_pairs(pairs),
        description=describe("Noisy and clean files of one name", {"speech": pairs}),
        pairs=tuple(pairs),
        layout=PAIRS.name,
    )


def read_trees(path: Path) -> Corpus:
    """Reads a tree of speech and a tree of noise."""
    clips: dict[str, tuple[Clip, ...]] = {}
    for part, names in (("speech", _SPEECH), ("noise", _NOISE), ("responses", _RESPONSES)):
        tree = first_folder(path, names)
        clips[part] = read_tree(tree, is_noise=part != "speech") if tree else ()
    return Corpus(
        name=path.resolve().name,
        is_synthetic=False,
        speech=clips["speech"],
        noise=clips["noise"],
        description=describe("Trees of speech and noise", clips),
        responses=clips["responses"],
        layout=TREES.name,
    )


def _is_trees(path: Path) -> bool:
    return first_folder(path, _SPEECH) is not None and first_folder(path, _NOISE) is not None


PAIRS = Layout(
    "pair of folders",
    f"clean/ and noisy/ with files of the same names, or these in {', '.join(SPLITS)}/",
    lambda path: bool(_pair_folders(path)),
    read_pairs,
)
TREES = Layout(
    "speech and noise trees",
    "speech/ (or clean/) and noise/, any folders below",
    _is_trees,
    read_trees,
)
