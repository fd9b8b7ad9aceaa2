# SPDX-License-Identifier: Apache-2.0
"""Reads corpora that were packed or sharded: one index for both."""

from pathlib import Path

from lmkd_tf.data import packed, shards
from lmkd_tf.data.index import Corpus
from lmkd_tf.data.readers.layout import Layout


def _recognizes(path: Path) -> bool:
    return any((path / module.INDEX_NAME).is_file() for module in (packed, shards))


def _read(path: Path) -> Corpus:
    is_packed = (path / packed.INDEX_NAME).is_file()
    return packed.read_packed(path) if is_packed else shards.read_shards(path)


LAYOUT = Layout(
    "packed corpus or shards",
    f"{packed.INDEX_NAME} or {shards.INDEX_NAME}, as lmkd-data pack and lmkd-data shard write",
    _recognizes,
    _read,
)
