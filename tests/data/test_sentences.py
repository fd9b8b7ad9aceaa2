# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

from lmkd_tf.data.index import SPLITS
from lmkd_tf.data.sentences import SENTENCES


def test_no_sentence_is_listed_twice():
    texts = [text for splits in SENTENCES.values() for texts in splits.values() for text in texts]
    assert len(texts) == len({text.casefold() for text in texts})


@pytest.mark.parametrize("language", sorted(SENTENCES))
def test_every_language_has_sentences_in_every_split(language):
    assert [len(SENTENCES[language][split]) >= 3 for split in SPLITS] == [True] * 3


@pytest.mark.parametrize("language", sorted(SENTENCES))
def test_no_sentence_is_part_of_one_in_another_split(language):
    for first, second in itertools.permutations(SPLITS, 2):
        for text, other in itertools.product(
            SENTENCES[language][first], SENTENCES[language][second]
        ):
            assert text.rstrip(".?") not in other
