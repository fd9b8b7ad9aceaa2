# SPDX-License-Identifier: Apache-2.0
"""Corpora, mixing of speech and noise, and the pairs that training draws from them."""

from lmkd_tf.data.folder import read_folder
from lmkd_tf.data.index import Clip, Corpus, Pair
from lmkd_tf.data.readers import read_corpus

__all__ = ["Clip", "Corpus", "Pair", "read_corpus", "read_folder"]
