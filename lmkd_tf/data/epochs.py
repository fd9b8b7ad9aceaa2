# SPDX-License-Identifier: Apache-2.0
"""Shuffles an epoch of crops without a list of them.

An epoch visits every part of every clip once, in an order that depends on seed and epoch
alone. The order is a keyed permutation that is computed place by place: it takes no
memory, and going on in the middle of an epoch costs nothing.
"""

import hashlib

import numpy as np

from lmkd_tf.data.mixing import Place

_NUM_ROUNDS = 6


def permute(index: int, size: int, key: bytes) -> int:
    """Returns where a keyed permutation of `range(size)` sends an index.

    Args:
        index: Index in `[0, size)`.
        size: Length of the permutation.
        key: Chooses the permutation.

    Returns:
        An index in `[0, size)`; another one for every other index.

    References:
        J. Black and P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002:
        a Feistel network on the next power of four, walked until it falls within range.
    """
    half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for round_number in range(_NUM_ROUNDS):
            block = key + round_number.to_bytes(1, "little") + right.to_bytes(8, "little")
            digest = hashlib.blake2b(block, digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        index = left << half_bits | right
        if index < size:
            return index


class EpochOrder:
    """The order in which the parts of all clips are visited, epoch after epoch.

    A clip has as many parts as whole crops fit into it, but at least one, so that every
    second of speech comes about equally often.

    Args:
        sizes: Length of each clip in samples.
        crop_samples: Length of a crop in samples.
        seed: Seed of the order.
    """

    def __init__(self, sizes: np.ndarray, crop_samples: int, seed: int) -> None:
        self._num_parts = np.maximum(1, np.asarray(sizes) // crop_samples)
        self._ends = np.cumsum(self._num_parts)
        self._seed = seed

    @property
    def epoch_length(self) -> int:
        """Number of crops in an epoch."""
        return int(self._ends[-1])

    def place(self, position: int) -> Place:
        """Returns the part of a clip at a position that counts on from epoch to epoch."""
        epoch, step = divmod(position, self.epoch_length)
        key = np.array([self._seed, epoch], dtype="<u8").tobytes()
        crop = permute(step, self.epoch_length, key)
        clip = int(np.searchsorted(self._ends, crop, side="right"))
        num_parts = int(self._num_parts[clip])
        return Place(clip, crop - int(self._ends[clip]) + num_parts, num_parts)
