# SPDX-License-Identifier: Apache-2.0
"""Corpora, mixing of speech and noise, and the pairs that training draws from them."""

from lmkd_tf.data.folder import read_folder
from lmkd_tf.data.index import Clip, Corpus

__all__ = ["Clip", "Corpus", "read_folder"]
