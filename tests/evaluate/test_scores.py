# SPDX-License-Identifier: Apache-2.0
import csv

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.evaluate.scores import METRICS, mean_score, score_clips, score_signals
from lmkd_tf.metrics import utterance
from lmkd_tf.metrics.perceptual import pesq_wb, stoi
from lmkd_tf.metrics.si_sdr import si_sdr_db
from lmkd_tf.metrics.utterance import utterance_scores


def _clip(name, seconds=1.0, gain=1.0, snr_db=5.0):
    time = np.arange(round(16000 * seconds)) / 16000
    tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20))
    speech = (gain * 0.1 * tone * np.sin(2 * np.pi * 3 * time) ** 2).astype(np.float32)
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    return EvaluationClip(
        name=name, noisy=speech + noise, speech=speech, snr_db=snr_db, noise_category="hiss"
    )


def test_rows_hold_the_metrics_of_each_clip():
    clips = [_clip("a"), _clip("b", seconds=0.8, snr_db=0)]
    rows = score_clips("half", clips, lambda noisy: 0.5 * noisy, num_workers=0)
    assert [(r["system"], r["file"], r["snr_db"]) for r in rows] == [
        ("half", "a", 5.0), ("half", "b", 0.0)]  # fmt: skip
    speech, enhanced = clips[0].speech, 0.5 * clips[0].noisy
    assert rows[0]["pesq_wb"] == pytest.approx(pesq_wb(speech, enhanced).value)
    assert rows[0]["stoi"] == pytest.approx(stoi(speech, enhanced).value)
    assert rows[0]["si_sdr_db"] == pytest.approx(si_sdr_db(speech, enhanced))
    others = utterance_scores(speech, enhanced)
    for name in METRICS:
        if name != "si_sdr_db":
            assert rows[0][name] == pytest.approx(others[name].value), name
    assert rows[0]["noise_category"] == "hiss"
    assert rows[0]["note"] == ""


def test_processes_give_the_same_rows_and_report_every_clip():
    clips, calls = [_clip("a"), _clip("b")], []
    alone = score_clips("noisy", clips, np.asarray, num_workers=0)
    rows = score_clips("noisy", clips, np.asarray, 2, lambda *call: calls.append(call))
    for row, other in zip(rows, alone, strict=True):
        assert row == pytest.approx(other, abs=1e-6)  # sums depend on the number of threads
    assert calls == [(1, 2), (2, 2)]


def test_undefined_metrics_are_none_with_a_note():
    rows = score_clips("x", [_clip("short", 0.1), _clip("mute", gain=0.0)], np.asarray, 0)
    assert rows[0]["pesq_wb"] is rows[0]["stoi"] is None
    assert rows[1]["si_sdr_db"] is None
    assert rows[1]["note"] == (
        "PESQ: No utterances detected; STOI: silent reference; ESTOI: silent reference; "
        "SI-SDR: silent reference"
    )


def test_perfect_system_has_no_finite_si_sdr():
    clip = _clip("a")
    rows = score_clips("oracle", [clip], lambda _: clip.speech, num_workers=0)
    assert rows[0]["si_sdr_db"] is None
    assert rows[0]["note"] == "SI-SDR: inf"


def test_rows_hold_the_metrics_that_are_asked_for(monkeypatch):
    monkeypatch.setattr(utterance, "dnsmos", None)  # the one that takes longest
    metrics = ("stoi", "si_sdr_db", "csig")
    (row,) = score_clips("x", [_clip("a")], np.asarray, num_workers=0, metrics=metrics)
    assert [name for name in METRICS if name in row] == ["stoi", "si_sdr_db", "csig"]


def test_unknown_snr_is_none():
    clip = _clip("a", snr_db=float("nan"))
    assert score_clips("x", [clip], np.asarray, num_workers=0)[0]["snr_db"] is None


def test_few_signals_are_held_at_a_time():
    clip, made = _clip("a"), []

    def signals():
        for index in range(12):
            made.append(index)
            yield "x", clip, clip.noisy

    rows = score_signals(signals(), num_workers=2)
    next(rows)
    assert len(made) == 2 * 3 + 1
    assert len(list(rows)) == 11


@pytest.mark.parametrize(
    ("enhance", "message"),
    [
        (lambda noisy: noisy[1:], r"keep the length.*\(15999,\) for \(16000,\) from 'bad'.*'a'"),
        (lambda noisy: noisy * np.nan, "finite samples.*'bad' on clip 'a'"),
    ],
)
def test_system_that_breaks_the_signal_is_named(enhance, message):
    with pytest.raises(ValueError, match=message):
        score_clips("bad", [_clip("a")], enhance, num_workers=0)


def test_published_noisy_rows_are_reproduced(shared_data):
    folder = shared_data / "benchmark" / "vbdemand96"
    with open(folder / "peers.csv", newline="") as stream:
        published = [row for row in csv.DictReader(stream) if row["peer"] == "noisy"][::30]
    clips = [
        EvaluationClip(
            name=row["file"],
            noisy=soundfile.read(folder / "noisy" / f"{row['file']}.flac", dtype="float32")[0],
            speech=soundfile.read(folder / "clean" / f"{row['file']}.flac", dtype="float32")[0],
            snr_db=float(row["snr_db"]),
            noise_category="",
        )
        for row in published
    ]
    for row, expected in zip(score_clips("noisy", clips, np.asarray, 0), published, strict=True):
        for metric in METRICS:
            tolerance = 0.02 if metric.startswith("dnsmos") else 2e-3
            if metric in expected:
                assert row[metric] == pytest.approx(float(expected[metric]), abs=tolerance), metric


def test_muted_clip_counts_with_the_lowest_scores():
    """A system must not get better by failing on hard clips."""
    metrics = ("pesq_wb", "si_sdr_db", "csig", "cbak", "covl")
    clip = _clip("a")
    (row,) = score_clips("mute", [clip], np.zeros_like, num_workers=0, metrics=metrics)
    assert [row[name] for name in metrics] == [1.0, -30.0, 1.0, 1.0, 1.0]
    assert "SI-SDR: -inf dB, counted as -30" in row["note"]


def test_si_sdr_below_the_floor_is_cut():
    clip = _clip("a")
    noise = np.random.default_rng(1).standard_normal(len(clip.speech)).astype(np.float32)
    noise -= clip.speech * np.dot(noise, clip.speech) / np.dot(clip.speech, clip.speech)
    (row,) = score_clips("x", [clip], lambda _: noise, num_workers=0, metrics=("si_sdr_db",))
    assert row["si_sdr_db"] == -30.0


def test_mean_leaves_undefined_scores_out():
    rows = [{"stoi": 0.5}, {"stoi": None}, {"stoi": 1.0}]
    assert mean_score(rows, "stoi") == 0.75
    assert mean_score(rows, "pesq_wb") is None
