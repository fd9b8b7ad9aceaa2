# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.data.readers import read_corpus


def test_clean_and_noisy_are_paired_by_name_whatever_the_suffix(tmp_path, add_audio):
    for number in range(30):
        add_audio(tmp_path / "noisy" / f"u{number}.wav")
        add_audio(tmp_path / "clean" / f"u{number}.flac")
    corpus = read_corpus(tmp_path)
    assert corpus.layout == "pair of folders"
    assert all(pair.noisy.stem == pair.clean.stem for pair in corpus.pairs)
    assert len(corpus.pairs) == len(corpus.speech) == len(corpus.noise) == 30
    assert {pair.split for pair in corpus.pairs} == {"train", "valid", "test"}


def test_folders_named_after_splits_are_the_splits(tmp_path, add_audio):
    for folder in ("train", "dev", "test"):
        for side in ("clean", "noisy"):
            add_audio(tmp_path / folder / side / f"{folder}.wav")
    pairs = read_corpus(tmp_path).pairs
    assert {(p.noisy.stem, p.split) for p in pairs} == {
        ("train", "train"),
        ("dev", "valid"),
        ("test", "test"),
    }


def test_two_files_of_one_name_are_refused(tmp_path, add_audio):
    for name in ("noisy/a.wav", "clean/a.wav", "clean/a.flac"):
        add_audio(tmp_path / name)
    with pytest.raises(ValueError, match=r"more than the suffix.*a\.flac and .*a\.wav"):
        read_corpus(tmp_path)


def test_trees_of_speech_and_noise_are_split_by_speaker_and_recording(tmp_path, add_audio):
    for number in range(12):
        for utterance in range(2):
            add_audio(tmp_path / "speech" / f"speaker{number}" / f"{number}_{utterance}.wav")
        add_audio(tmp_path / "noise" / "fan" / f"f{number}.wav")
        add_audio(tmp_path / "rirs" / f"room{number}.wav")
    corpus = read_corpus(tmp_path)
    assert corpus.layout == "speech and noise trees"
    splits = {(clip.group, clip.split) for clip in corpus.speech}
    assert len(splits) == 12
    assert len(corpus.responses) == 12
    assert {clip.category for clip in corpus.noise} == {"fan"}
