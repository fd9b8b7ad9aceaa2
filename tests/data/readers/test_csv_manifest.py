# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.data.readers import read_corpus


@pytest.fixture
def write_list(tmp_path, add_audio):
    """Function `(*rows) -> path`; the files of well-behaved rows are made."""

    def write(*rows, name="files.csv"):
        for row in rows[1:]:
            for cell in row.split(","):
                if cell.endswith(".wav") and not cell.startswith(("/", "..")):
                    add_audio(tmp_path / cell)
        (tmp_path / name).write_text("\n".join(rows) + "\n", "utf-8")
        return tmp_path / name

    return write


def test_clips_are_read_with_what_is_known_of_them(write_list):
    path = write_list(
        "path,kind,split,speaker,category",
        "a.wav,speech,train,anna,",
        "b.wav,noise,train,,rain",
        "c.wav,room,test,,",
    )
    corpus = read_corpus(path, required_splits=("train",))
    assert corpus.layout == "CSV manifest"
    assert [(c.path.name, c.group, c.split) for c in corpus.speech] == [("a.wav", "anna", "train")]
    assert [(c.path.name, c.category) for c in corpus.noise] == [("b.wav", "rain")]
    assert [c.path.name for c in corpus.responses] == ["c.wav"]
    assert corpus.speech[0].seconds == pytest.approx(0.2)


def test_pairs_are_test_pairs_unless_they_say_otherwise(write_list):
    path = write_list("noisy,clean,snr_db", "n/a.wav,c/a.wav,7.5", name="manifest.csv")
    for given in (path, path.parent):
        (pair,) = read_corpus(given, required_splits=()).pairs
        assert (pair.split, pair.snr_db, pair.clean.parent.name) == ("test", 7.5, "c")


@pytest.mark.parametrize("cell", ["/etc/passwd", "../outside.wav", "a/../../b.wav", ""])
def test_path_that_leads_out_of_the_folder_is_refused_with_its_line(write_list, cell):
    path = write_list("path,kind", "a.wav,speech", f"{cell},noise")
    with pytest.raises(ValueError, match=r"inside the folder of the manifest.*line 3"):
        read_corpus(path, required_splits=())


@pytest.mark.parametrize(
    ("row", "message"),
    [("a.wav,song,train", "one of speech, noise, room"), ("a.wav,speech,dev", "one of train")],
)
def test_unknown_kind_and_split_are_refused(write_list, row, message):
    with pytest.raises(ValueError, match=f"{message}.*line 2"):
        read_corpus(write_list("path,kind,split", row), required_splits=())


def test_list_without_rows_is_refused(write_list):
    with pytest.raises(ValueError, match="at least one file"):
        read_corpus(write_list("path,kind"), required_splits=())


def test_names_in_any_script_and_very_long_paths_are_read(write_list):
    long_path = "/".join(["d" * 200] * 4) + "/ünïcödé 語.wav"
    corpus = read_corpus(write_list("path,kind", f"{long_path},speech"), required_splits=())
    assert corpus.speech[0].seconds == pytest.approx(0.2)


def test_shared_list_of_small_files_is_read(shared_data):
    corpus = read_corpus(shared_data / "mini.csv")
    assert (len(corpus.speech), len(corpus.noise)) == (62, 39)
    minutes = [sum(clip.seconds for clip in clips) / 60 for clips in (corpus.speech, corpus.noise)]
    assert minutes == pytest.approx([3.3, 3.4], abs=0.06)  # as its README states


def test_shared_benchmark_is_read_as_pairs(shared_data):
    corpus = read_corpus(shared_data / "benchmark" / "vbdemand96", required_splits=())
    assert {pair.snr_db for pair in corpus.pairs} == {2.5, 7.5, 12.5, 17.5}
    assert len(corpus.pairs) == 96
    assert {pair.group for pair in corpus.pairs} == {"p232", "p257"}
