# SPDX-License-Identifier: Apache-2.0
"""Reads packed corpora and shards once, to know that they are what was written."""

from pathlib import Path

from lmkd_tf.config.files import read_json, sha256_of
from lmkd_tf.data import packed, sharded_pairs, shards, tfrecord


def verify_container(folder: str | Path) -> int:
    """Checks every byte of a packed corpus, of shards or of pair shards.

    Returns:
        Number of records.

    Raises:
        FileNotFoundError: If the folder holds none of these.
        ValueError: If something is damaged, naming the file.
    """
    path = Path(folder)
    if (path / packed.INDEX_NAME).is_file():
        return packed.verify_packed(path)
    if (path / shards.INDEX_NAME).is_file():
        return shards.verify_shards(path)
    if (path / sharded_pairs.INDEX_NAME).is_file():
        return _verify_pairs(path)
    names = (packed.INDEX_NAME, shards.INDEX_NAME, sharded_pairs.INDEX_NAME)
    raise FileNotFoundError(
        f"A folder to verify holds one of {', '.join(names)}. "
        f"Received {path}, without any. Give the folder that lmkd-data pack, shard or mix wrote."
    )


def _verify_pairs(folder: Path) -> int:
    sharded_pairs.read_pair_index(folder)
    index = read_json(folder / sharded_pairs.INDEX_NAME)
    for item in index["shards"]:
        shards.verify_shard(folder / item["file"])
        if sha256_of(folder / item["file"]) != item["sha256"]:
            raise tfrecord.damaged(folder / item["file"], "is not the one of the index")
    return int(index["num_pairs"])
