# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from lmkd_tf.data.index import Pair
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.packed import read_packed, verify_packed, write_packed
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.shards import write_shards
from lmkd_tf.data.sources import open_store


@pytest.fixture
def corpus(noisy_corpus):
    return read_corpus(noisy_corpus)


@pytest.fixture
def packed(corpus, tmp_path):
    write_packed(corpus, tmp_path / "packed")
    return tmp_path / "packed"


def test_batches_from_a_packed_corpus_are_those_from_files(corpus, packed):
    batches = []
    for source in (corpus, read_corpus(packed)):
        stores = [open_store(c) for c in (source.speech_in("train"), source.noise_in("train"))]
        batches.append(
            PairSource(stores[0], stores[1], MixSettings(crop_seconds=0.3), 8, 0).batch(2)
        )
    assert all(np.array_equal(*pair) for pair in zip(*batches, strict=True))


def test_index_keeps_what_is_known_of_each_clip(corpus, packed):
    def facts(clips):
        return [(c.split, c.group, c.category, round(c.seconds, 3)) for c in clips]

    read = read_packed(packed)
    assert facts(read.speech) == facts(corpus.speech)
    assert facts(read.noise) == facts(corpus.noise)
    assert (read.name, read.is_synthetic) == (corpus.name, corpus.is_synthetic)


def test_audio_is_mapped_and_not_read(packed):
    (signal, *_) = open_store(read_packed(packed).speech).signals
    while isinstance(signal, np.ndarray) and not isinstance(signal, np.memmap):
        signal = signal.base
    assert isinstance(signal, np.memmap)


def test_truncated_audio_is_refused(packed):
    audio = packed / "audio.pcm"
    audio.write_bytes(audio.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"must be whole: \d+ bytes.*audio\.pcm"):
        read_packed(packed)


def test_damaged_audio_is_found_by_verify(packed):
    assert verify_packed(packed) == len(read_packed(packed).speech + read_packed(packed).noise)
    content = bytearray((packed / "audio.pcm").read_bytes())
    content[100] ^= 1
    (packed / "audio.pcm").write_bytes(content)
    with pytest.raises(ValueError, match="which is damaged"):
        verify_packed(packed)


def test_index_of_another_format_is_refused(packed):
    (packed / "packed.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(ValueError, match=r"must be 'lmkd-tf packed audio' of version 1"):
        read_packed(packed)


def test_folder_without_a_packed_corpus_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lmkd-data pack CORPUS FOLDER"):
        read_packed(tmp_path)


def test_other_files_are_left_alone(corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="folder of its own"):
        write_packed(corpus, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_other_files_beside_a_packed_corpus_are_left_alone(corpus, packed):
    write_packed(corpus, packed)  # its own files are replaced
    (packed / "inspection.json").write_text("mine")
    with pytest.raises(ValueError, match=r"something else: inspection\.json\."):
        write_packed(corpus, packed)
    assert (packed / "inspection.json").read_text() == "mine"
    assert verify_packed(packed) > 0


def test_full_disk_leaves_nothing_behind_and_the_older_corpus_untouched(
    corpus, packed, monkeypatch
):
    def no_room(descriptor):
        raise OSError(28, "No space left on device")

    before = (packed / "audio.pcm").read_bytes()
    monkeypatch.setattr("lmkd_tf.data.packed.os.fsync", no_room)
    with pytest.raises(OSError, match="No space left"):
        write_packed(corpus, packed)
    assert (packed / "audio.pcm").read_bytes() == before
    assert [path.name for path in packed.parent.iterdir() if path.name.startswith(".")] == []


def test_unusable_files_are_listed(noisy_corpus, tmp_path):
    bad = sorted((noisy_corpus / "noise").rglob("*.wav"))[0]
    bad.write_bytes(bad.read_bytes()[:30])
    skipped = write_packed(read_corpus(noisy_corpus), tmp_path / "p", max_failed_fraction=0.5)
    assert [path for path, _ in skipped] == [bad]


def test_responses_and_pairs_that_are_left_out_are_named(corpus, tmp_path, caplog):
    write_packed(corpus, tmp_path / "plain")
    write_shards(corpus, tmp_path / "plain_shards")
    assert caplog.messages == []
    pair = Pair(corpus.noise[0].path, corpus.speech[0].path, 0.4, "test", "a")
    whole = replace(corpus, responses=corpus.noise[:2], pairs=(pair,))
    for write, name in ((write_packed, "packed"), (write_shards, "shards")):
        caplog.clear()
        write(whole, tmp_path / name)
        (message,) = caplog.messages
        assert "Left out of trees: 2 room impulse responses" in message
        assert "1 pairs" in message


def test_reading_and_mixing_need_no_tensorflow_and_no_keras(packed):
    code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.sources import open_store
corpus = read_corpus({str(packed)!r})
stores = [open_store(c) for c in (corpus.speech_in("train"), corpus.noise_in("train"))]
print(PairSource(*stores, MixSettings(crop_seconds=0.3), 4, 0).batch(0)[0].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4, 4800)"
