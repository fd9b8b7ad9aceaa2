# SPDX-License-Identifier: Apache-2.0
import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.evaluate import evaluation
from lmkd_tf.evaluate.evaluation import (
    COLUMNS,
    check_folder,
    join_scores,
    read_scores,
    score_systems,
    write_results,
)
from lmkd_tf.evaluate.row_store import RowStore
from lmkd_tf.evaluate.scores import METRICS
from lmkd_tf.evaluate.systems import System, noisy_system

RECORD = {"command": "lmkd-evaluate", "git_commit": None, "version": "0", "versions": {"a": "1"}}


@pytest.fixture
def clips():
    signal = np.linspace(-0.1, 0.1, 16000, dtype=np.float32)
    return [
        EvaluationClip(name, signal + index, signal, 5.0 * index, f"noise{index}")
        for index, name in enumerate("abc")
    ]


@pytest.fixture
def scored(monkeypatch):
    """Replaces the metrics by the mean of the enhanced signal; lists what was asked for."""
    asked = []

    def score_signals(signals, num_workers):
        for name, clip, signal in signals:
            asked.append((name, clip.name))
            row = {"system": name, "file": clip.name, "snr_db": clip.snr_db, "note": ""}
            yield {**row, **dict.fromkeys(METRICS, float(np.mean(signal)))}

    monkeypatch.setattr(evaluation, "score_signals", score_signals)
    return asked


def _system(name, gain, seed=0):
    return System(name, lambda clip: gain * clip.noisy, {"gain": gain}, seed)


def _rows(system, values, seed=0):
    return [
        {"system": system, "seed": seed, "file": file, "snr_db": 0.0, "noise_category": "rain",
         **dict.fromkeys(METRICS, value), "note": ""}
        for file, value in zip("abc", values, strict=True)
    ]  # fmt: skip


def _joined(path, clips, scored):
    """Reads and joins as the program does; returns what was added."""
    read = read_scores(path, clips, {row["system"] for row in scored})
    return join_scores(scored, read, path)[len(scored) :]


def test_rows_come_system_by_system_with_their_seeds(scored, clips, tmp_path):
    systems = [noisy_system(), _system("s", 2.0), _system("s", 3.0, seed=1)]
    rows = score_systems(systems, clips, RowStore(tmp_path / "r", []))
    assert [(r["system"], r["seed"], r["file"]) for r in rows] == [
        (s.name, s.seed, c.name) for s in systems for c in clips
    ]
    assert [r["pesq_wb"] for r in rows[6:]] == pytest.approx([0.0, 3.0, 6.0], abs=1e-5)
    assert [r["noise_category"] for r in rows[:3]] == ["noise0", "noise1", "noise2"]


def test_interrupted_run_goes_on_where_it_stopped(scored, clips, tmp_path):
    def stop(clip):
        if clip.name == "c":
            raise KeyboardInterrupt
        return clip.noisy

    broken = System("s", stop, {"gain": 1.0})
    with pytest.raises(KeyboardInterrupt):
        score_systems([broken], clips, RowStore(tmp_path / "r", []))
    scored.clear()
    calls = []
    rows = score_systems(
        [_system("renamed", 1.0)],
        clips,
        RowStore(tmp_path / "r", []),
        on_progress=lambda *call: calls.append(call),
    )
    assert scored == [("renamed", "c")]
    assert calls == [(3, 3, "renamed")]
    assert [row["system"] for row in rows] == ["renamed"] * 3


def test_changed_system_is_scored_again(scored, clips, tmp_path):
    score_systems([_system("s", 1.0)], clips, RowStore(tmp_path / "r", []))
    score_systems([_system("s", 2.0)], clips, RowStore(tmp_path / "r", []))
    score_systems([_system("s", 2.0)], clips, RowStore(tmp_path / "r", ["other version"]))
    assert len(scored) == 9


def test_results_hold_rows_means_comparisons_and_how_to_repeat_them(tmp_path):
    rows = _rows("noisy", [1, 2, 3]) + _rows("s", [2, 3, 4]) + _rows("s", [4, 5, 6], seed=1)
    write_results(tmp_path, rows, "noisy", RECORD, seed=5)
    results = json.loads((tmp_path / "scores.json").read_text())
    assert results["command"] == "lmkd-evaluate"
    assert (results["bootstrap_seed"], len(results["rows"])) == (5, 9)
    (gain,) = [e["pesq_wb"] for e in results["comparisons"] if e["group"] == "all"]
    assert gain["difference"] == pytest.approx(2.0)
    with open(tmp_path / "scores.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert tuple(table[0]) == COLUMNS
    assert [(row["seed"], row["pesq_wb"]) for row in table[6:]] == [
        ("1", "4"),
        ("1", "5"),
        ("1", "6"),
    ]
    text = (tmp_path / "scores.md").read_text()
    assert text.startswith("`lmkd-evaluate`\n\nCommit unknown, version 0, bootstrap seed 5.")
    assert "SegSNR, CBAK and DNSMOS do" in text
    assert "+2.00 [+2.00, +2.00], wins 100 %" in text
    assert "Versions: a 1." in text


def test_unknown_baseline_is_an_error_that_lists_the_systems(tmp_path):
    with pytest.raises(ValueError, match="Received 'x'; there are noisy"):
        write_results(tmp_path, _rows("noisy", [1, 2, 3]), "x", RECORD)
    assert list(tmp_path.iterdir()) == []


def test_written_scores_are_read_back(tmp_path, clips):
    rows = _rows("noisy", [1, 2, 3]) + _rows("s", [2, 3, None])
    write_results(tmp_path, rows, "noisy", RECORD)
    read = _joined(tmp_path / "scores.csv", clips, rows[:3])
    assert [row["system"] for row in read] == ["s"] * 3
    assert [row["stoi"] for row in read] == [2.0, 3.0, None]
    assert [row["snr_db"] for row in read] == [0.0, 5.0, 10.0]  # of the clips, not of the file


def test_published_scores_are_read(shared_data):
    folder = shared_data / "benchmark" / "vbdemand96"
    with open(folder / "peers.csv", newline="") as stream:
        records = [row for row in csv.DictReader(stream) if row["peer"] == "noisy"]
    signal = np.zeros(1, np.float32)
    clips = [EvaluationClip(r["file"], signal, signal, float(r["snr_db"]), "") for r in records]
    noisy = [
        {"system": "noisy", "file": r["file"], "pesq_wb": float(r["pesq_wb"])} for r in records
    ]
    rows = _joined(folder / "peers.csv", clips, noisy)
    values = [row["pesq_wb"] for row in rows if row["system"] == "rnnoise_0.1.1"]
    assert np.mean(values) == pytest.approx(2.100, abs=5e-4)  # as PEERS.md has it
    assert rows[0]["segmental_snr_db"] is None


def test_scores_of_another_scorer_are_refused(tmp_path, clips):
    rows = _rows("noisy", [1, 2, 3]) + _rows("s", [2, 3, 4])
    write_results(tmp_path, rows, "noisy", RECORD)
    narrow = [{**row, "pesq_wb": row["pesq_wb"] + 0.9} for row in rows[:3]]
    with pytest.raises(ValueError, match=r"same wide-band PESQ. Received 1.0 for a.*1.9000 here"):
        _joined(tmp_path / "scores.csv", clips, narrow)


def test_scores_without_the_noisy_speech_are_refused(tmp_path, clips):
    """Nothing would tell a narrow-band score from a wide-band one."""
    lines = ["system,file,pesq_wb", *(f"s,{clip.name},3.4" for clip in clips)]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"Received .*s.csv without a system `noisy`"):
        _joined(tmp_path / "s.csv", clips, _rows("noisy", [1, 2, 3]))


def test_not_a_number_is_no_score(tmp_path, clips):
    lines = ["system,file,pesq_wb", *(f"noisy,{clip.name},nan" for clip in clips)]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="must hold the PESQ of the noisy speech"):
        _joined(tmp_path / "s.csv", clips, _rows("noisy", [1, 2, 3]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,pesq_wb\na,1\n", "columns system, file and pesq_wb. Received .* with file, pesq_wb"),
        ("", "with no rows"),
        ("system,file,pesq_wb\ns,a,1\n", "the same 3 clips, each once. Received .*'s': 1"),
        ("system,file,pesq_wb\ns,z,1\n", "with none of them"),
        ("system,file,pesq_wb\ns,a,1\ns,a,1\ns,c,1\n", "each once. Received .*'s': 3"),
        ("system,seed,file,pesq_wb\ns,0,a,1\ns,0,b,1\ns,0,c,1\ns,1,a,1\n", "'s': 1"),
        ("system,file,pesq_wb\ns,a,high\n", "Received 'high' as pesq_wb of a"),
        ("system,seed,file,pesq_wb\ns,first,a,1\n", "whole numbers. Received 'first' as seed of a"),
        ("system,file,pesq_wb\n,a,1\n", "name its system. Received a row of a without a name"),
        ("peer,file,pesq_wb\n,a,1\n", "name its system. Received a row of a without a name"),
        ("system,file\ns,a,1\n", "must have the columns.* with system, file, None"),
    ],
)
def test_scores_that_do_not_fit_are_refused(tmp_path, clips, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        _joined(tmp_path / "s.csv", clips, [])


def test_missing_scores_are_named(tmp_path, clips):
    with pytest.raises(FileNotFoundError, match=r"Received .*none.csv, which does not exist"):
        _joined(tmp_path / "none.csv", clips, [])


def test_means_that_lack_clips_are_named_under_the_tables(tmp_path):
    rows = _rows("noisy", [1, 2, 3]) + _rows("s", [2, 3, 4])
    rows[-1]["pesq_wb"] = None
    write_results(tmp_path, rows, "noisy", RECORD)
    text = (tmp_path / "scores.md").read_text()
    assert "- s: PESQ-WB over 2 of 3 clips\n" in text
    assert "- s against noisy: PESQ-WB over 2 of 3 clips\n" in text


def test_reused_rows_have_the_labels_of_this_run(scored, clips, tmp_path):
    score_systems([noisy_system()], clips, RowStore(tmp_path / "r", []))
    snrs_db = (10.0, 0.0, float("nan"))
    relabelled = [replace(c, snr_db=s) for c, s in zip(clips, snrs_db, strict=True)]
    rows = score_systems([noisy_system()], relabelled, RowStore(tmp_path / "r", []))
    assert len(scored) == 3
    assert [row["snr_db"] for row in rows] == [10.0, 0.0, None]


def test_scores_that_are_no_text_are_refused(tmp_path, clips):
    (tmp_path / "s.csv").write_bytes(b"system,file,pesq_wb\nm\xfc,a,1\n")
    with pytest.raises(ValueError, match=r"CSV file in UTF-8. Received .*s.csv, which cannot be"):
        read_scores(tmp_path / "s.csv", clips)


SETTINGS = {"data": "here", "benchmark": None, "split": "test"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "pairs"}, r"--benchmark=pairs of here for .* results of --split=test of"),
        ({"split": "valid"}, "Received --split=valid of here for .*Give another --output"),
        ({"data": "there"}, "Received --split=test of there"),
    ],
)
def test_results_of_other_clips_are_not_replaced(tmp_path, changes, message):
    check_folder(tmp_path, SETTINGS)
    write_results(tmp_path, _rows("noisy", [1, 2, 3]), "noisy", {**RECORD, "settings": SETTINGS})
    check_folder(tmp_path, {**SETTINGS, "data": "./here"})
    with pytest.raises(ValueError, match=message):
        check_folder(tmp_path, {**SETTINGS, **changes})


def test_split_is_nothing_to_a_benchmark(tmp_path):
    settings = {**SETTINGS, "benchmark": "pairs"}
    write_results(tmp_path, _rows("noisy", [1, 2, 3]), "noisy", {**RECORD, "settings": settings})
    check_folder(tmp_path, {**settings, "split": "valid"})
