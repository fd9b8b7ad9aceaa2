# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.data.readers import read_corpus


@pytest.fixture
def libri(tmp_path, add_audio):
    for subset, speaker in (("train-clean-100", 19), ("dev-clean", 84), ("test-other", 367)):
        for chapter in (1, 2):
            name = f"{speaker}-{chapter}-0000.flac"
            add_audio(tmp_path / "LibriSpeech" / subset / str(speaker) / str(chapter) / name)
    return tmp_path


@pytest.fixture
def noise_tree(tmp_path, add_audio):
    for number in range(8):
        add_audio(tmp_path / "outside" / "street" / f"s{number}.wav")
    return tmp_path / "outside"


def test_subsets_give_splits_and_folders_give_speakers(libri, add_audio):
    for number in range(8):
        add_audio(libri / "noise" / "rain" / f"r{number}.wav")
    corpus = read_corpus(libri)
    assert corpus.layout == "LibriSpeech"
    assert {(c.split, c.group) for c in corpus.speech} == {
        ("train", "19"),
        ("valid", "84"),
        ("test", "367"),
    }
    assert {clip.category for clip in corpus.noise} == {"rain"}


def test_noise_may_come_from_a_second_path(libri, noise_tree):
    corpus = read_corpus(f"{libri / 'LibriSpeech'},{noise_tree}")
    assert len(corpus.speech) == 6
    assert {clip.category for clip in corpus.noise} == {"street"}


def test_noise_tree_with_folders_of_splits_keeps_them(libri, tmp_path, add_audio):
    for folder in ("tr", "cv", "tt"):
        add_audio(tmp_path / "wham" / folder / "cafe" / f"{folder}.wav")
    corpus = read_corpus(f"{libri},{tmp_path / 'wham'}")
    assert {(c.path.stem, c.split, c.category) for c in corpus.noise} == {
        ("tr", "train", "cafe"),
        ("cv", "valid", "cafe"),
        ("tt", "test", "cafe"),
    }


def test_without_noise_the_message_says_so(libri):
    with pytest.raises(ValueError, match=r"at least one noise file. Received no noise"):
        read_corpus(libri)


def test_one_noise_file_is_not_enough_for_three_splits(libri, add_audio):
    add_audio(libri / "noise" / "only.wav")
    with pytest.raises(ValueError, match=r"no noise in split '\w+'; there is: \w+ \(1 files\)"):
        read_corpus(libri)


def test_second_path_without_audio_is_refused(libri, tmp_path):
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="follows the comma must be a folder with audio"):
        read_corpus(f"{libri},{tmp_path / 'bare'}")
