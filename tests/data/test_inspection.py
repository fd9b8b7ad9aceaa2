# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.inspection import histogram, inspect_corpus, is_clipped, to_record, to_text
from lmkd_tf.data.readers import read_corpus


@pytest.fixture
def tone():
    return 0.5 * np.sin(np.arange(16000) * 0.2)


def test_counts_hours_rates_and_channels_are_those_of_the_files(noisy_corpus):
    soundfile.write(noisy_corpus / "noise" / "kind0" / "wide.wav", np.full((48000, 2), 0.1), 48000)
    found = inspect_corpus(read_corpus(noisy_corpus))
    totals = found.totals()
    assert sum(part["files"] for part in totals["speech"].values()) == 12
    # 12 files of 6400 + 700 n samples: 123000 samples.
    hours = sum(part["hours"] for part in totals["speech"].values())
    assert hours == pytest.approx(123000 / 16000 / 3600)
    assert found.sample_rates() == {"16000 Hz, 1 channel": 24, "48000 Hz, 2 channels": 1}


def test_level_is_that_of_the_samples(noisy_corpus, tone):
    path = noisy_corpus / "noise" / "kind0" / "tone.wav"
    soundfile.write(path, tone, 16000)
    files = {f.path: f for f in inspect_corpus(read_corpus(noisy_corpus)).files}
    assert files[str(path)].level_dbfs == pytest.approx(-9.03, abs=0.02)


def test_snr_of_a_pair_is_measured(tmp_path, tone):
    for side, samples in (("clean", tone), ("noisy", tone + 0.05 * np.sin(np.arange(16000)))):
        (tmp_path / side).mkdir()
        soundfile.write(tmp_path / side / "a.wav", samples, 16000)
    found = inspect_corpus(read_corpus(tmp_path, ()))
    (snr_db,) = found.values("snr_db", "pair")
    assert snr_db == pytest.approx(20.0, abs=0.5)  # the envelope needs 0.1 s of the 1 s to rise


def test_pair_of_unequal_lengths_is_a_fault(tmp_path, tone):
    for side, samples in (("clean", tone), ("noisy", tone[:-100])):
        (tmp_path / side).mkdir()
        soundfile.write(tmp_path / side / "a.wav", samples, 16000)
    pair = inspect_corpus(read_corpus(tmp_path, ())).files[-1]
    assert pair.kind == "pair"
    assert "differs from its clean file" in pair.fault


@pytest.mark.parametrize(
    ("clean", "fault"),
    [
        (np.zeros(16000), "has a clean file that is all zero"),
        (np.full(16000, np.nan), "has a clean file that holds NaN or infinite samples"),
        (None, "has no clean file"),
    ],
)
def test_fault_of_the_clean_side_is_a_fault_of_the_pair(tmp_path, tone, clean, fault):
    for side, samples in (("clean", tone if clean is None else clean), ("noisy", tone)):
        (tmp_path / side).mkdir()
        soundfile.write(tmp_path / side / "a.wav", samples, 16000, subtype="FLOAT")
    corpus = read_corpus(tmp_path, ())
    if clean is None:
        (tmp_path / "clean" / "a.wav").unlink()
    found = inspect_corpus(corpus)
    (pair,) = [facts for facts in found.faulty() if facts.kind == "pair"]
    assert pair.fault.startswith(fault)
    assert str(tmp_path / "clean" / "a.wav") in pair.fault


def test_broken_files_are_listed_and_stop_nothing(noisy_corpus):
    paths = sorted((noisy_corpus / "noise").rglob("*.wav"))
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:20])
    paths[2].write_text("no audio at all")
    soundfile.write(paths[3], np.zeros(8000), 16000)
    soundfile.write(paths[4], np.full(100, 0.1), 16000)
    faults = {f.path: f.fault for f in inspect_corpus(read_corpus(noisy_corpus)).faulty()}
    assert set(faults) == {str(path) for path in paths[:5]}
    assert faults[str(paths[0])] == "is empty (0 bytes)"
    assert faults[str(paths[3])] == "is all zero"
    assert faults[str(paths[4])] == "is shorter than 0.05 s"


def test_clipping_is_a_run_at_a_peak_near_full_scale(tone):
    loud = np.clip(4.0 * tone, -1.0, 1.0)[:, np.newaxis]
    assert is_clipped(loud)
    assert not is_clipped(0.5 * loud)
    assert not is_clipped(2.0 * tone[:, np.newaxis])  # reaches full scale for single samples
    assert not is_clipped(np.zeros((2, 1)))


def test_copies_are_found_in_any_container_and_across_splits(noisy_corpus):
    speech = read_corpus(noisy_corpus).speech
    source = next(c for c in speech if c.split == "train").path
    target = next(c for c in speech if c.split == "test").path
    samples, rate_hz = soundfile.read(source)
    target.unlink()
    soundfile.write(target.with_suffix(".wav"), samples, rate_hz)
    found = inspect_corpus(read_corpus(noisy_corpus))
    assert [{f.path for f in files} for files in found.duplicates()] == [
        {str(source), str(target.with_suffix(".wav"))}
    ]
    assert len(found.leaks()["same samples"]) == 1


def test_a_speaker_in_two_splits_is_a_leak(tmp_path, tone):
    rows = ["path,kind,split,speaker"]
    for index, split in enumerate(("train", "test")):
        soundfile.write(tmp_path / f"{index}.wav", tone * (0.5 + 0.1 * index), 16000)
        rows.append(f"{index}.wav,speech,{split},anna")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    found = inspect_corpus(read_corpus(tmp_path, ()))
    assert found.leaks() == {"same speaker": ["anna: test and train"]}
    assert "1 leaks between splits, same speaker" in to_text(found)


def test_histogram_counts_by_bins_of_5_db():
    values = np.array([-0.1, 0.0, 4.9, 5.0, 19.0])
    assert histogram(values) == [(-5.0, 1), (0.0, 2), (5.0, 1), (10.0, 0), (15.0, 1)]
    assert histogram(np.zeros(0)) == []


def test_text_and_record_say_what_was_found(noisy_corpus):
    shutil.copy(noisy_corpus / "noise/kind0/n0.wav", noisy_corpus / "noise/kind0/copy.wav")
    found = inspect_corpus(read_corpus(noisy_corpus))
    text, record = to_text(found), to_record(found)
    assert "speech and noise trees" in text
    assert "1 groups of duplicates" in text
    assert record["totals"]["speech"]["train"]["files"] > 0
    assert len(record["files"]) == 25


def test_sharded_corpus_is_inspected_like_its_files(noisy_corpus, tmp_path):
    from lmkd_tf.data.shards import write_shards

    corpus = read_corpus(noisy_corpus)
    write_shards(corpus, tmp_path / "shards")
    plain, sharded = (inspect_corpus(c) for c in (corpus, read_corpus(tmp_path / "shards")))
    assert plain.totals() == sharded.totals()
    assert plain.values("level_dbfs", "speech") == pytest.approx(
        sharded.values("level_dbfs", "speech"), abs=0.01
    )
