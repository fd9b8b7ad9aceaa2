# SPDX-License-Identifier: Apache-2.0
"""Reads LibriSpeech (`train-clean-100/19/198/19-198-0001.flac`) and a tree of noise.

The folder is LibriSpeech itself or holds `LibriSpeech/`. The noise is a tree beside it
(`noise`, `noises`, `musan/noise`, `DEMAND`, `wham_noise`) or a second path. `train-*`,
`dev-*` and `test-*` are the splits.
"""

import re
from pathlib import Path

from lmkd_tf.data.files import find_audio
from lmkd_tf.data.index import Clip, Corpus
from lmkd_tf.data.readers.layout import (
    Labels,
    Layout,
    describe,
    first_folder,
    make_clips,
    read_tree,
)

_SUBSET = re.compile(r"(train|dev|test)-(clean|other)(-\d+)?")
_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_NOISE = ("noise", "noises", "musan/noise", "musan", "DEMAND", "demand", "wham_noise")


def recognizes(path: Path) -> bool:
    """Tells whether a subset of LibriSpeech is there."""
    return bool(_subsets(path))


def read(path: Path) -> Corpus:
    """Reads every subset that is there, and the noise beside them."""
    speech: tuple[Clip, ...] = ()
    for folder in _subsets(path):
        split = _SPLITS[folder.name.split("-")[0]]

        def label(file: Path, folder: Path = folder, split: str = split) -> Labels:
            return Labels(split, file.relative_to(folder).parts[0])

        speech += make_clips(find_audio(folder), label)
    tree = first_folder(path, _NOISE)
    noise = read_tree(tree, is_noise=True) if tree else ()
    parts = {"speech": speech, "noise": noise}
    return Corpus(
        name="librispeech",
        is_synthetic=False,
        speech=speech,
        noise=noise,
        description=describe("LibriSpeech with a tree of noise", parts),
        layout=LAYOUT.name,
    )


def _subsets(path: Path) -> list[Path]:
    folders = [
        folder
        for root in (path, path / "LibriSpeech")
        if root.is_dir()
        for folder in sorted(root.iterdir())
    ]
    return [f for f in folders if f.is_dir() and _SUBSET.fullmatch(f.name)]


LAYOUT = Layout(
    "LibriSpeech",
    "train-clean-100/ or another subset, itself or in LibriSpeech/, and noise/ beside it",
    recognizes,
    read,
)
