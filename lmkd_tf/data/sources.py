# SPDX-License-Identifier: Apache-2.0
"""Opens a part of a corpus the way that suits it: in memory, mapped, or file by file."""

import os
from collections.abc import Callable, Sequence

from lmkd_tf.data.index import Clip
from lmkd_tf.data.packed import INDEX_NAME, open_packed
from lmkd_tf.data.shards import open_shards
from lmkd_tf.data.store import AudioStore, load_store
from lmkd_tf.data.streaming import stream_store

# Share of the machine's memory that decoded audio of one part may take.
_MEMORY_SHARE = 0.25


def open_store(
    clips: Sequence[Clip],
    sample_rate_hz: int = 16000,
    *,
    max_memory_bytes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> AudioStore:
    """Opens clips of one corpus; batches do not depend on the way that is taken.

    One difference: an unusable file that `stream_store` cannot tell beforehand stops the
    run when it is drawn, where the other ways skip it.

    Packed and sharded clips are mapped. Files are decoded into memory where they fit, and
    read crop by crop where they do not.

    Args:
        clips: Clips of one kind, at least one.
        sample_rate_hz: Sample rate in Hz.
        max_memory_bytes: Room for decoded audio; a quarter of the memory if None.
        on_progress: Called with (clips done, clips in all) while files are decoded.

    Raises:
        ValueError: If there is no clip, or too many of them cannot be used.
    """
    listed = list(clips)
    if listed and listed[0].record is not None:
        is_packed = listed[0].path.with_name(INDEX_NAME).is_file()
        return (open_packed if is_packed else open_shards)(listed, sample_rate_hz)
    needed_bytes = 2 * sample_rate_hz * sum(clip.seconds for clip in listed)
    if needed_bytes > (max_memory_bytes or _MEMORY_SHARE * _memory_bytes()):
        return stream_store(listed, sample_rate_hz)
    return load_store(listed, sample_rate_hz, on_progress=on_progress)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
