# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.index import Clip
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.sources import open_store
from lmkd_tf.data.store import load_store
from lmkd_tf.data.streaming import stream_store


def clip_of(path, **facts):
    return Clip(Path(path), 0.0, "train", "a", **facts)


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(-0.5, 0.5, 32000)


@pytest.mark.parametrize(
    ("name", "rate_hz", "channels"),
    [("a.wav", 16000, 1), ("a.flac", 16000, 1), ("a.flac", 48000, 2), ("a.ogg", 22050, 1)],
)
def test_slices_are_those_of_the_decoded_file(tmp_path, noise, name, rate_hz, channels):
    soundfile.write(tmp_path / name, np.stack([noise] * channels, axis=1), rate_hz)
    clip = clip_of(tmp_path / name)
    (streamed,), (decoded,) = stream_store([clip]).signals, load_store([clip]).signals
    assert streamed.size == decoded.size
    for part in (slice(0, 100), slice(5000, 9000), slice(decoded.size - 50, None), slice(None)):
        assert np.array_equal(streamed[part], decoded[part])


@pytest.mark.parametrize(
    ("suffix", "subtype", "is_direct"),
    [
        ("wav", "FLOAT", False),
        ("wav", "DOUBLE", False),
        ("aiff", "FLOAT", False),
        ("au", "FLOAT", False),
        ("wav", "PCM_24", False),
        ("flac", "PCM_24", False),
        ("wav", "PCM_32", False),
        ("wav", "PCM_16", True),
        ("wav", "PCM_U8", True),
        ("flac", "PCM_S8", True),
    ],
)
def test_slices_are_those_of_the_decoded_file_whatever_its_samples(
    tmp_path, noise, suffix, subtype, is_direct
):
    clip = clip_of(tmp_path / f"a.{suffix}")
    soundfile.write(clip.path, noise, 16000, subtype=subtype)
    (streamed,), (decoded,) = stream_store([clip]).signals, load_store([clip]).signals
    assert np.array_equal(streamed[5000:9000], decoded[5000:9000])
    assert streamed.is_direct == is_direct  # what is exact must not be decoded whole


def test_batches_are_those_from_memory(noisy_corpus):
    corpus = read_corpus(noisy_corpus)
    batches = []
    for max_memory_bytes in (None, 1):
        stores = [
            open_store(clips, max_memory_bytes=max_memory_bytes)
            for clips in (corpus.speech_in("train"), corpus.noise_in("train"))
        ]
        batches.append(
            PairSource(stores[0], stores[1], MixSettings(crop_seconds=0.3), 8, 0).batch(2)
        )
    assert all(np.array_equal(*pair) for pair in zip(*batches, strict=True))


def test_file_that_changes_between_epochs_is_an_error_that_names_it(tmp_path, noise):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise, 16000)
    (signal,) = stream_store([clip_of(path)]).signals
    assert signal[:10].size == 10
    soundfile.write(path, noise[:16000], 16000)
    with pytest.raises(OSError, match=r"stay as it is.*a\.flac, which is not the file that was"):
        signal[:10]


def test_file_that_vanishes_between_epochs_is_an_error_that_names_it(tmp_path, noise):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, 16000)
    (signal,) = stream_store([clip_of(path)]).signals
    os.unlink(path)
    with pytest.raises(OSError, match=r"a\.wav, which is not the file"):
        signal[:10]


def test_unusable_files_are_skipped_with_their_reason(tmp_path, noise):
    soundfile.write(tmp_path / "good.wav", noise, 16000)
    soundfile.write(tmp_path / "short.wav", noise[:100], 16000)
    (tmp_path / "empty.wav").write_bytes(b"")
    clips = [clip_of(tmp_path / name) for name in ("good.wav", "short.wav", "empty.wav")]
    store = stream_store(clips, max_failed_fraction=0.9)
    assert [clip.path.name for clip in store.clips] == ["good.wav"]
    assert [path.name for path, _ in store.skipped] == ["short.wav", "empty.wav"]
    with pytest.raises(ValueError, match="Received 2 unusable of 3"):
        stream_store(clips)


def test_silent_and_truncated_files_are_skipped_as_in_memory(tmp_path, noise):
    late = np.concatenate([np.zeros(40000), noise[:100]])  # sound in the third second only
    for name, samples in (("good", noise), ("late", late), ("silent", np.zeros(40000))):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
    soundfile.write(tmp_path / "cut.wav", noise[:8000], 16000)
    clips = [clip_of(tmp_path / f"{name}.wav") for name in ("good", "late", "silent")]
    clips.append(Clip(tmp_path / "cut.wav", 2.0, "train", "a"))
    streamed, decoded = (way(clips, max_failed_fraction=0.9) for way in (stream_store, load_store))
    assert [clip.path.stem for clip in streamed.clips] == ["good", "late"]
    assert streamed.clips == decoded.clips
    assert streamed.skipped == decoded.skipped


def test_unusable_file_that_only_decoding_finds_is_announced_and_an_error(tmp_path, noise, caplog):
    noise[20000] = np.nan
    soundfile.write(tmp_path / "nan.wav", noise, 16000, subtype="FLOAT")
    (signal,) = stream_store([clip_of(tmp_path / "nan.wav")]).signals
    assert "1 of 1 files are decoded when they are drawn" in caplog.text
    with pytest.raises(OSError, match=r"must be usable.*nan\.wav, which holds NaN.*inspect lists"):
        signal[:10]


def test_files_that_are_read_in_part_are_no_warning(tmp_path, noise, caplog):
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    stream_store([clip_of(tmp_path / "a.wav")])
    assert caplog.messages == []


def test_whole_files_are_kept_up_to_a_number_of_bytes(tmp_path, noise):
    clips = []
    for index in range(4):
        soundfile.write(tmp_path / f"{index}.wav", noise, 32000)
        clips.append(clip_of(tmp_path / f"{index}.wav"))
    store = stream_store(clips, max_cache_bytes=70000)  # a decoded file takes 32,000 bytes
    for signal in store.signals:
        _ = signal[:10]
    cached = [store.signals[0]._cache.get(clip.path) is not None for clip in clips]
    assert cached == [False, False, True, True]
