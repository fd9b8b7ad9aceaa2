# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from lmkd_tf.data.index import Clip, Corpus


def clip(split):
    return Clip(Path("a.flac"), 1.0, split, "anna")


def test_clips_of_a_split_keep_their_order():
    first, other, last = clip("train"), clip("test"), clip("train")
    corpus = Corpus("c", False, (first, other, last), (), "")
    assert corpus.speech_in("train") == (first, last)


def test_an_empty_split_names_itself_and_what_there_is():
    corpus = Corpus("c", False, (clip("train"),), (clip("test"), clip("test")), "")
    with pytest.raises(ValueError, match=r"no noise in split 'valid'; there is: test \(2 files\)"):
        corpus.noise_in("valid")
    with pytest.raises(
        ValueError, match=r"no speech in split 'valid'; there is: train \(1 files\)"
    ):
        corpus.speech_in("valid")
