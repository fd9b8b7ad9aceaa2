# SPDX-License-Identifier: Apache-2.0
"""Readers of corpora, one per layout; `read_corpus` finds the one that fits a folder."""

from lmkd_tf.data.readers.registry import read_corpus, recognize

__all__ = ["read_corpus", "recognize"]
