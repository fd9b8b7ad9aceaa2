# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from lmkd_tf.data.folder import read_folder

SPEECH = [("a.flac", "train", "anna"), ("b.flac", "valid", "ben"), ("c.flac", "test", "cleo")]
NOISE = [("x.flac", "train", "1"), ("y.flac", "valid", "2"), ("z.flac", "test", "3")]


def test_one_file_in_each_split_is_enough(write_corpus):
    corpus = read_folder(write_corpus(SPEECH, NOISE))
    assert [(c.path.name, c.split, c.group) for c in corpus.speech] == SPEECH
    assert [(c.path.name, c.split, c.group, c.category) for c in corpus.noise] == [
        (*row, "hum") for row in NOISE
    ]
    assert not corpus.is_synthetic


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"corpus folder must exist. Received .*nowhere"):
        read_folder(tmp_path / "nowhere")


def test_missing_manifest_is_named(tmp_path):
    (tmp_path / "speech").mkdir()
    with pytest.raises(FileNotFoundError, match=r"'speech' must have a manifest. .*manifest\.csv"):
        read_folder(tmp_path)


def test_missing_split_is_named_with_what_there_is(write_corpus):
    folder = write_corpus(SPEECH, NOISE[:2])
    with pytest.raises(
        ValueError, match=r"no noise in split 'test'; there is: train \(1 files\), va"
    ):
        read_folder(folder)


def test_a_split_that_is_not_required_may_be_missing(write_corpus):
    corpus = read_folder(write_corpus(SPEECH[2:], NOISE[2:]), required_splits=("test",))
    assert len(corpus.speech) == len(corpus.noise) == 1


def test_manifest_without_rows_is_refused(write_corpus):
    with pytest.raises(ValueError, match="must list at least one file"):
        read_folder(write_corpus([], NOISE))


def test_missing_column_is_named(write_corpus):
    folder = write_corpus(SPEECH, NOISE)
    (folder / "noise" / "manifest.csv").write_text("path,seconds\nx.flac,1\n")
    with pytest.raises(ValueError, match="Add the column split"):
        read_folder(folder)


def test_unknown_split_is_refused_with_its_line(write_corpus):
    folder = write_corpus([*SPEECH, ("d.flac", "dev", "dora")], NOISE)
    with pytest.raises(ValueError, match=r"one of train, valid, test. Received 'dev' in .*line 5"):
        read_folder(folder)


@pytest.mark.parametrize("path", ["../benchmark/a.flac", "/etc/a.flac", ""])
def test_path_outside_the_part_is_refused(write_corpus, path):
    folder = write_corpus([*SPEECH, (path, "train", "dora")], NOISE, make_audio=False)
    with pytest.raises(ValueError, match="a path inside the manifest's folder"):
        read_folder(folder)


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan", "inf"])
def test_seconds_that_are_no_length_are_refused(write_corpus, seconds):
    folder = write_corpus(SPEECH, NOISE)
    manifest = folder / "speech" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("0.5", seconds, 1))
    with pytest.raises(ValueError, match=f"a length in seconds. Received '{seconds}'"):
        read_folder(folder)


def test_speaker_in_two_splits_is_refused(write_corpus):
    folder = write_corpus([*SPEECH, ("d.flac", "test", "anna")], NOISE)
    with pytest.raises(ValueError, match="speaker 'anna' in 'train' and 'test'"):
        read_folder(folder)


def test_files_without_a_speaker_are_groups_of_their_own(write_corpus):
    rows = [*SPEECH, ("d.flac", "train", ""), ("e.flac", "test", "")]
    corpus = read_folder(write_corpus(rows, NOISE))
    assert [clip.group for clip in corpus.speech[3:]] == ["d.flac", "e.flac"]


def test_opus_speech_is_training_speech_with_a_lifted_treble(write_corpus):
    folder = write_corpus(SPEECH, NOISE)
    (folder / "speech_opus").mkdir()
    (folder / "speech_opus" / "manifest.csv").write_text("path,seconds,speaker\nd.opus,2.5,dora\n")
    added = [clip for clip in read_folder(folder).speech if clip.treble_lift_db]
    assert [(c.path.name, c.split, c.seconds, c.treble_lift_db) for c in added] == [
        ("d.opus", "train", 2.5, 3.0)
    ]


def test_benchmark_folder_is_not_read(write_corpus):
    folder = write_corpus(SPEECH, NOISE)
    (folder / "benchmark").mkdir()
    (folder / "benchmark" / "manifest.csv").write_text("path,seconds,split\nq.flac,1,train\n")
    corpus = read_folder(folder)
    assert not [clip for clip in corpus.speech + corpus.noise if "benchmark" in clip.path.parts]


def test_listed_files_that_do_not_exist_stay_in_the_index(write_corpus):
    assert len(read_folder(write_corpus(SPEECH, NOISE, make_audio=False)).speech) == 3


def test_shared_recordings_are_indexed_as_their_readme_says(shared_data: Path):
    corpus = read_folder(shared_data)
    counts = [len(corpus.speech_in(split)) for split in ("train", "valid", "test")]
    assert counts == [1784 + 2557, 146, 146]
    assert [len(corpus.noise_in(split)) for split in ("train", "valid", "test")] == [379, 51, 72]
    assert len({clip.category for clip in corpus.noise}) == 44
    assert sum(clip.treble_lift_db > 0 for clip in corpus.speech) == 2557
