# SPDX-License-Identifier: Apache-2.0
import csv
import hashlib
import os
import time

import pytest

from lmkd_tf.config.files import read_json
from lmkd_tf.data import embedded
from lmkd_tf.data.embedded import build_embedded_corpus
from lmkd_tf.data.store import load_store

SIZE = 0.01


def digest(folder):
    files = sorted(folder.rglob("*.flac"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def root_of(corpus):
    return corpus.speech[0].path.parents[2]


def rows_of(folder, part):
    with (folder / part / "manifest.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_corpus_says_that_it_is_synthetic_and_what_it_is_good_for(tiny_corpus):
    assert tiny_corpus.is_synthetic
    assert tiny_corpus.name == "embedded"
    assert tiny_corpus.description.startswith("Synthetic: ")
    assert "for tests" in tiny_corpus.description
    assert "say nothing about the quality on real recordings" in tiny_corpus.description


def test_every_split_loads_without_a_skipped_file(tiny_corpus):
    for split in ("train", "valid", "test"):
        for clips in (tiny_corpus.speech_in(split), tiny_corpus.noise_in(split)):
            assert load_store(clips).skipped == []


def test_noise_has_ten_categories_in_every_split(tiny_corpus):
    for split in ("train", "valid", "test"):
        assert len({clip.category for clip in tiny_corpus.noise_in(split)}) == 10


def test_no_voice_timbre_or_sentence_is_in_two_splits(tiny_corpus):
    owners = {}
    for row in rows_of(root_of(tiny_corpus), "speech"):
        for key in (row["speaker"], row["speaker"].partition("+")[2], row["original_file"]):
            assert owners.setdefault(key, row["split"]) == row["split"]


def test_full_plan_keeps_splits_apart_and_has_twenty_voices_and_more():
    plan = embedded._plan_speech(seed=0, size=1.0)
    owners = {}
    for sentence in plan:
        for key in (sentence.voice, sentence.voice.partition("+")[2], sentence.text):
            assert owners.setdefault(key, sentence.split) == sentence.split
    spoken = [sentence for sentence in plan if not sentence.is_babble]
    assert len({sentence.voice for sentence in spoken}) >= 100
    babble_voices = {sentence.voice for sentence in plan if sentence.is_babble}
    assert not babble_voices & {sentence.voice for sentence in spoken}
    assert len({(s.split, s.stem, s.is_babble) for s in plan}) == len(plan)


def test_same_seed_gives_the_same_audio_and_progress_reaches_its_total(tiny_corpus, tmp_path):
    calls = []
    again = build_embedded_corpus(
        tmp_path / "again", seed=0, size=SIZE, on_progress=lambda *call: calls.append(call)
    )
    assert digest(root_of(again)) == digest(root_of(tiny_corpus))
    total = calls[0][1]
    assert calls == [(step, total) for step in range(1, total + 1)]


def test_another_seed_gives_other_voices_and_other_noise(tmp_path):
    plans = [embedded._plan_speech(seed, size=1.0) for seed in (0, 1)]
    assert {sentence.voice for sentence in plans[0]} != {sentence.voice for sentence in plans[1]}
    for seed in (0, 1):
        embedded._make_noise(tmp_path / f"{seed}.flac", "rain", [], [seed, 1, 0, 0, 0])
    assert (tmp_path / "0.flac").read_bytes() != (tmp_path / "1.flac").read_bytes()


@pytest.fixture
def build_stub(monkeypatch):
    """Replaces the making of audio by empty files; returns the list of recipes made."""
    made = []

    def generate(folder, recipe, on_progress):
        made.append(recipe)
        for part, group in (("speech", "speaker"), ("noise", "recording")):
            (folder / part).mkdir(parents=True)
            splits = ("train", "valid", "test")
            lines = [f"{split}.flac,1,{split},{split}\n" for split in splits]
            (folder / part / "manifest.csv").write_text(
                f"path,seconds,split,{group}\n" + "".join(lines)
            )
            for split in splits:
                (folder / part / f"{split}.flac").touch()
        embedded.write_json(folder / "corpus.json", recipe | {"is_synthetic": True})

    monkeypatch.setattr(embedded, "_generate", generate)
    return made


def test_a_complete_corpus_is_not_built_again(build_stub, tmp_path):
    for _ in range(2):
        build_embedded_corpus(tmp_path / "corpus", seed=3)
    assert len(build_stub) == 1


@pytest.mark.parametrize("change", [{"seed": 4}, {"size": 0.5}])
def test_another_seed_or_size_replaces_the_corpus(build_stub, tmp_path, change):
    build_embedded_corpus(tmp_path / "corpus", seed=3)
    build_embedded_corpus(tmp_path / "corpus", **{"seed": 3} | change)
    facts = read_json(tmp_path / "corpus" / "corpus.json")
    assert {key: facts[key] for key in change} == change
    assert os.listdir(tmp_path) == ["corpus"]


def test_another_version_replaces_the_corpus(build_stub, tmp_path, monkeypatch):
    build_embedded_corpus(tmp_path / "corpus")
    monkeypatch.setattr(embedded, "VERSION", 99)
    build_embedded_corpus(tmp_path / "corpus")
    assert [recipe["version"] for recipe in build_stub][1:] == [99]


@pytest.mark.parametrize("lost", ["speech/train.flac", "noise/manifest.csv"])
def test_a_corpus_that_lost_a_file_is_built_again(build_stub, tmp_path, lost):
    build_embedded_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / lost).unlink()
    build_embedded_corpus(tmp_path / "corpus")
    assert len(build_stub) == 2


def test_an_interrupted_build_leaves_nothing_behind(require_espeak, tmp_path):
    def interrupt(done, total):
        if done == total - 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_embedded_corpus(tmp_path / "corpus", size=SIZE, on_progress=interrupt)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_rebuild_keeps_the_old_corpus(build_stub, tmp_path, monkeypatch):
    build_embedded_corpus(tmp_path / "corpus", seed=3)

    def fail(folder, recipe, on_progress):
        (folder / "speech").mkdir(parents=True)
        raise OSError("disk full")

    monkeypatch.setattr(embedded, "_generate", fail)
    with pytest.raises(OSError, match="disk full"):
        build_embedded_corpus(tmp_path / "corpus", seed=4)
    assert read_json(tmp_path / "corpus" / "corpus.json")["seed"] == 3
    assert os.listdir(tmp_path) == ["corpus"]


def test_leftovers_of_killed_builds_are_removed_once_they_are_old(build_stub, tmp_path):
    old, new = tmp_path / ".corpus.partial-1", tmp_path / ".corpus.partial-2"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    build_embedded_corpus(tmp_path / "corpus")
    assert sorted(os.listdir(tmp_path)) == [".corpus.partial-2", "corpus"]


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"needs a folder of its own. Received"):
        build_embedded_corpus(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_corpus_with_a_damaged_record_is_left_alone(build_stub, tmp_path, content):
    build_embedded_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / "corpus.json").write_text(content)
    with pytest.raises(ValueError, match=r"holds something else. .* or delete this one"):
        build_embedded_corpus(tmp_path / "corpus")


def test_a_full_disk_is_named_with_the_space_needed(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise embedded.soundfile.LibsndfileError(2)

    monkeypatch.setattr(embedded.soundfile, "write", fail)
    with pytest.raises(OSError, match=r"about 100 MB of disk space. .*while writing a.flac"):
        embedded._make_noise(tmp_path / "a.flac", "rain", [], [0])


def test_an_empty_folder_is_used(build_stub, tmp_path):
    (tmp_path / "corpus").mkdir()
    assert build_embedded_corpus(tmp_path / "corpus").is_synthetic


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"size": 0.0}, {"size": float("nan")}])
def test_numbers_out_of_range_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match="`seed` must not be negative and `size` must be above 0"):
        build_embedded_corpus(tmp_path / "corpus", **arguments)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (3, r'Received neither .* Run pip install "lmkd-tf\[corpus\]" or apt install espeak-ng'),
        (-11, "Received status -11: crashed badly. Install espeak-ng 1.50"),
    ],
)
def test_a_failed_speech_process_gives_the_remedy(tmp_path, monkeypatch, status, message):
    ending = "os.kill(os.getpid(), 11)" if status < 0 else f"sys.exit({status})"
    script = f"import os, sys; sys.stderr.write('crashed badly'); sys.stderr.flush(); {ending}"
    plain = embedded.subprocess.Popen
    monkeypatch.setattr(
        embedded.subprocess,
        "Popen",
        lambda command, **options: plain([command[0], "-c", script], **options),
    )
    with pytest.raises(RuntimeError, match=message):
        build_embedded_corpus(tmp_path / "corpus", size=SIZE)
    assert os.listdir(tmp_path) == []
