# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.data.readers import read_corpus, recognize


def test_missing_corpus_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"corpus must exist. Received .*nowhere"):
        recognize(tmp_path / "nowhere")


def test_unknown_layout_says_what_is_there_and_what_was_looked_for(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        ValueError, match=r"(?s)with music/, notes.txt\..*VoiceBank\+DEMAND: clean_"
    ):
        recognize(tmp_path)


def test_empty_folder_says_that_nothing_is_in_it(tmp_path):
    with pytest.raises(ValueError, match="with nothing in it"):
        recognize(tmp_path)


def test_folder_with_manifests_is_a_corpus_folder(write_corpus):
    rows = [(f"{split}.flac", split, split) for split in ("train", "valid", "test")]
    corpus = read_corpus(write_corpus(rows, rows))
    assert corpus.layout == "corpus folder"


def test_missing_split_is_refused_whatever_the_layout(tmp_path, add_audio):
    for side in ("clean", "noisy"):
        add_audio(tmp_path / "test" / side / "a.wav")
    with pytest.raises(ValueError, match="no speech in split 'train'"):
        read_corpus(tmp_path)


def test_path_with_a_comma_that_exists_is_one_corpus(tmp_path, add_audio):
    for side in ("clean", "noisy"):
        add_audio(tmp_path / "a,b" / side / "a.wav")
    assert read_corpus(tmp_path / "a,b", required_splits=()).layout == "pair of folders"


def test_a_speaker_in_two_splits_is_warned_of_by_name(tmp_path, add_audio, caplog):
    for name in ("train/anna/1.wav", "train/ben/1.wav", "test/anna/2.wav"):
        add_audio(tmp_path / "speech" / name)
    add_audio(tmp_path / "noise" / "rain.wav")
    read_corpus(tmp_path, ())
    (message,) = caplog.messages
    assert "speaker should be in one split only" in message
    assert "1 is in more than one: 'anna' (test and train)." in message


def test_a_recording_in_two_splits_of_a_list_is_warned_of_by_name(tmp_path, add_audio, caplog):
    rows = [f"{split}.wav,noise,{split},rain" for split in ("train", "test")]
    for split in ("train", "test"):
        add_audio(tmp_path / f"{split}.wav")
    (tmp_path / "list.csv").write_text("\n".join(["path,kind,split,recording", *rows]))
    read_corpus(tmp_path / "list.csv", ())
    (message,) = caplog.messages
    assert "1 is in more than one: 'rain' (test and train)." in message


def test_file_names_that_two_splits_share_are_no_speakers(tmp_path, add_audio, caplog):
    for split in ("train", "test"):
        for side in ("clean", "noisy"):
            add_audio(tmp_path / split / side / "001.wav")
    read_corpus(tmp_path, ())
    assert caplog.messages == []


def test_shared_recordings_are_read_whole(shared_data):
    corpus = read_corpus(shared_data)
    # As its README states: 1784 + 2557, 146 and 146 files of speech, 502 of noise.
    assert (len(corpus.speech), len(corpus.noise)) == (1784 + 2557 + 146 + 146, 502)
    assert not [clip for clip in corpus.speech if "benchmark" in clip.path.parts]


def test_embedded_corpus_is_read(tiny_corpus):
    folder = tiny_corpus.speech[0].path.parents[2]
    assert read_corpus(folder).is_synthetic
