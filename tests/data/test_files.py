# SPDX-License-Identifier: Apache-2.0
import os

import pytest
import soundfile

from lmkd_tf.data.files import assign_splits, find_audio, probe_seconds


@pytest.fixture
def add(tmp_path):
    def make(name, num_samples=800):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, [0.1] * num_samples, 16000)
        return path

    return make


def test_audio_of_every_kind_is_found_in_order(add, tmp_path):
    for name in ("b.wav", "a/z.flac", "a/c.ogg", "d.WAV", "e.mp3"):
        add(name)
    (tmp_path / "notes.txt").write_text("x")
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert found == ["a/c.ogg", "a/z.flac", "b.wav", "d.WAV", "e.mp3"]


def test_hidden_files_and_those_of_archive_tools_are_left_out(add, tmp_path):
    for name in (".hidden.wav", "__MACOSX/x.wav", ".cache/y.wav", "good.wav"):
        add(name)
    assert [path.name for path in find_audio(tmp_path)] == ["good.wav"]


def test_a_loop_of_links_ends_and_each_file_comes_once(add, tmp_path):
    add("real/a.wav")
    os.symlink(tmp_path, tmp_path / "real" / "up")
    os.symlink(tmp_path / "itself", tmp_path / "itself")
    os.symlink(tmp_path / "nowhere", tmp_path / "dead")
    assert [path.name for path in find_audio(tmp_path)] == ["a.wav"]


def test_links_to_other_folders_are_followed(add, tmp_path):
    add("corpus/a.wav")
    add("elsewhere/b.wav")
    os.symlink(tmp_path / "elsewhere", tmp_path / "corpus" / "more")
    assert [path.name for path in find_audio(tmp_path / "corpus")] == ["a.wav", "b.wav"]


def test_seconds_come_from_the_header_and_are_0_where_there_is_none(add, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no audio")
    paths = [add("a.wav", 8000), tmp_path / "empty.wav", tmp_path / "text.wav"]
    assert probe_seconds(paths) == [0.5, 0.0, 0.0]


def test_a_tenth_goes_to_each_held_out_split():
    splits = list(assign_splits(f"speaker_{number}" for number in range(3000)).values())
    # Three standard deviations of 3000 draws at 10 %: 49.
    assert abs(splits.count("test") - 300) < 50
    assert abs(splits.count("valid") - 300) < 50


def test_a_group_keeps_its_split_when_others_come():
    few = assign_splits(f"speaker_{number}" for number in range(100))
    many = assign_splits(f"speaker_{number}" for number in range(200))
    assert few.items() <= many.items()


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_no_split_is_empty_with_three_groups_or_more(count):
    for name in "abcdefgh":
        splits = assign_splits(f"{name}{number}" for number in range(count))
        assert set(splits.values()) == {"train", "valid", "test"}
