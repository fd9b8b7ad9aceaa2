# SPDX-License-Identifier: Apache-2.0
import hashlib

import numpy as np
import pytest

from lmkd_tf.data import tfrecord
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.shards import read_shard, verify_shards, write_shards
from lmkd_tf.data.sources import open_store


@pytest.fixture
def corpus(noisy_corpus):
    return read_corpus(noisy_corpus)


@pytest.fixture
def shards(corpus, tmp_path):
    write_shards(corpus, tmp_path / "shards", num_shards=2)
    return tmp_path / "shards"


def batch_of(corpus, **options):
    stores = [
        open_store(c, **options) for c in (corpus.speech_in("train"), corpus.noise_in("train"))
    ]
    return PairSource(stores[0], stores[1], MixSettings(crop_seconds=0.3), 8, 0).batch(2)


def test_batches_from_shards_are_those_from_files(corpus, shards):
    for sharded, plain in zip(batch_of(read_corpus(shards)), batch_of(corpus), strict=True):
        assert np.array_equal(sharded, plain)


def test_every_clip_is_in_one_shard(corpus, shards):
    names = [r["id"] for path in shards.glob("*.tfrecord") for r in read_shard(path).records]
    assert len(names) == len(set(names)) == len(corpus.speech) + len(corpus.noise)


def test_tensorflow_reads_the_shards(shards):
    import tensorflow as tf

    path = next(shards.glob("speech-train-*"))
    header, *records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    assert "lmkd_header" in tf.train.Example.FromString(header).features.feature
    for record, entry in zip(records, read_shard(path).records, strict=True):
        feature = tf.train.Example.FromString(record).features.feature
        assert feature["id"].bytes_list.value[0].decode() == entry["id"]
        assert len(feature["pcm"].bytes_list.value[0]) == 2 * entry["samples"]


def test_shards_are_the_same_bytes_wherever_and_whenever_they_are_written(corpus, shards, tmp_path):
    write_shards(corpus, tmp_path / "again", num_shards=2)
    for path in shards.glob("*.tfrecord"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_index_states_the_checksum_of_every_shard(shards):
    import json

    index = json.loads((shards / "shards.json").read_text())
    for item in index["shards"]:
        assert item["sha256"] == hashlib.sha256((shards / item["file"]).read_bytes()).hexdigest()
    assert verify_shards(shards) == sum(item["records"] for item in index["shards"])


def test_truncated_shard_is_refused_by_name_before_it_is_used(shards):
    path = next(shards.glob("noise-train-*"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{path.name}, which has \d+ bytes instead of"):
        read_corpus(shards)


def test_foreign_shard_is_refused_by_name(shards):
    path = next(shards.glob("noise-train-*"))
    path.write_bytes(tfrecord.frame(b"records of somebody else"))
    with pytest.raises(ValueError, match=rf"{path.name}, which begins with no header"):
        read_corpus(shards)


def test_file_that_is_no_shard_at_all_is_refused_by_name(shards):
    path = next(shards.glob("noise-train-*"))
    path.write_text("RIFF, perhaps")
    with pytest.raises(ValueError, match=rf"{path.name}, which is no TFRecord file"):
        read_corpus(shards)


def test_missing_shard_is_named(shards):
    path = next(shards.glob("noise-train-*"))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"no file .*{path.name}"):
        read_corpus(shards)


def test_shard_of_another_version_is_refused(shards):
    path = next(shards.glob("noise-train-*"))
    record = tfrecord.read_record(path).replace(b'"version": 1', b'"version": 2')
    path.write_bytes(tfrecord.frame(record) + path.read_bytes()[len(record) + 16 :])
    with pytest.raises(ValueError, match=r"version 1. Received .*\('lmkd-tf shard', 2\)"):
        read_corpus(shards)


def test_flipped_sample_is_found_when_the_record_is_used_first(shards):
    path = next(shards.glob("noise-train-*"))
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    store = open_store(read_corpus(shards).noise_in("train"))
    with pytest.raises(ValueError, match=rf"{path.name}, which holds a damaged record"):
        [signal.any() for signal in store.signals]
    with pytest.raises(ValueError, match=path.name):
        verify_shards(shards)


def test_unusable_files_go_to_the_dead_letters_with_their_reason(noisy_corpus, tmp_path):
    bad = sorted((noisy_corpus / "noise").rglob("*.wav"))[0]
    bad.write_bytes(b"")
    corpus = read_corpus(noisy_corpus)
    letters = write_shards(corpus, tmp_path / "shards", max_failed_fraction=0.5)
    assert [reason for _, reason in letters] == ["is empty (0 bytes)"]
    lines = (tmp_path / "shards" / "dead_letter.csv").read_text().splitlines()
    assert lines[0] == "path,reason"
    assert bad.name in lines[1]
    assert len(read_corpus(tmp_path / "shards", ()).noise) == len(corpus.noise) - 1


def test_too_many_unusable_files_leave_no_index(noisy_corpus, tmp_path):
    for path in (noisy_corpus / "noise").rglob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="may be unusable"):
        write_shards(read_corpus(noisy_corpus), tmp_path / "shards")
    assert not (tmp_path / "shards" / "shards.json").exists()


def test_interrupted_run_goes_on_and_keeps_whole_shards(corpus, shards):
    kept, lost = sorted(shards.glob("*.tfrecord"))[:2]
    before = kept.stat().st_mtime_ns
    content = lost.read_bytes()
    lost.write_bytes(content[:50])
    (shards / ".0badcafe.part.tfrecord").write_bytes(b"half")
    (shards / "shards.json").unlink()
    write_shards(corpus, shards, num_shards=2)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content
    assert list(shards.glob(".*")) == []


def test_folder_with_other_shards_or_files_is_left_alone(corpus, shards, tmp_path):
    with pytest.raises(ValueError, match="Shards need a folder of their own"):
        write_shards(corpus, shards, num_shards=3)
    assert verify_shards(shards) > 0
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="Shards need a folder of their own"):
        write_shards(corpus, tmp_path / "own")
    assert (tmp_path / "own" / "thesis.txt").read_text() == "x"


def test_shards_of_another_rate_are_refused(corpus, tmp_path):
    write_shards(corpus, tmp_path / "shards", sample_rate_hz=8000)
    clips = read_corpus(tmp_path / "shards").speech
    with pytest.raises(ValueError, match=r"at 16000 Hz. Received .* at 8000 Hz"):
        open_store(clips, 16000)
