# SPDX-License-Identifier: Apache-2.0
import io
import itertools
import json

import numpy as np
import pytest
from rich.console import Console

from lmkd_tf.evaluate.scores import METRICS
from lmkd_tf.evaluate.table import (
    missing_clips,
    summarize,
    summarize_noise_types,
    to_markdown,
    to_terminal,
)

_NAMES = map(str, itertools.count())


def _row(system, snr_db, pesq, stoi=0.9, si_sdr=1.0):
    return {**dict.fromkeys(METRICS), "system": system, "file": next(_NAMES), "snr_db": snr_db,
            "pesq_wb": pesq, "stoi": stoi, "si_sdr_db": si_sdr}  # fmt: skip


@pytest.fixture
def rows():
    noisy = [_row("noisy", 0.0, 1.0), _row("noisy", 0.0, 2.0), _row("noisy", 5.0, 3.0)]
    return [*noisy, _row("student", 0.0, None), _row("student", 5.0, 3.5)]


def _entry(summary, system, group):
    return next(e for e in summary if (e["system"], e["group"]) == (system, group))


def test_summary_averages_by_snr_over_clips_and_over_snrs(rows):
    summary = summarize(rows)
    means = {g: _entry(summary, "noisy", g)["pesq_wb"]["mean"] for g in ("0 dB", "5 dB", "all")}
    assert means == {"0 dB": 1.5, "5 dB": 3.0, "all": 2.0}
    assert _entry(summary, "noisy", "mean of SNRs")["pesq_wb"]["mean"] == 2.25


def test_summary_keeps_the_order_of_systems_and_sorts_snrs(rows):
    groups = [(e["system"], e["group"]) for e in summarize(rows[::-1])]
    expected = ["0 dB", "5 dB", "all", "mean of SNRs"]
    assert groups == [(s, g) for s in ("student", "noisy") for g in expected]


def test_undefined_scores_are_left_out_and_counted(rows):
    summary = summarize(rows)
    assert _entry(summary, "student", "0 dB")["pesq_wb"] is None
    assert _entry(summary, "student", "0 dB")["num_clips"] == 1
    assert _entry(summary, "student", "all")["pesq_wb"]["num_clips"] == 1


def test_interval_has_the_width_of_the_normal_theory():
    values = np.random.default_rng(3).normal(2.0, 0.5, 400)
    interval = summarize([_row("a", 0.0, value) for value in values])[0]["pesq_wb"]
    half_width = 1.96 * values.std() / np.sqrt(400)
    assert interval["low"] == pytest.approx(values.mean() - half_width, abs=0.006)
    assert interval["high"] == pytest.approx(values.mean() + half_width, abs=0.006)


def test_summary_repeats_with_the_same_seed_and_is_plain_json(rows):
    assert json.dumps(summarize(rows, seed=1)) == json.dumps(summarize(rows, seed=1))


def test_markdown_has_one_line_per_entry(rows):
    lines = to_markdown(summarize(rows), ("pesq_wb", "stoi", "si_sdr_db")).splitlines()
    assert len(lines) == 2 + 8
    assert lines[0] == "| System | SNR | Clips | PESQ-WB | STOI | SI-SDR (dB) |"
    assert lines[3].startswith("| noisy | 5 dB | 1 | 3.00 [3.00, 3.00] | 0.900 [0.900, 0.900] |")
    assert "| student | 0 dB | 1 | - |" in lines[6]


def test_terminal_table_names_each_system_once(rows):
    stream = io.StringIO()
    Console(file=stream, width=120).print(to_terminal(summarize(rows), title="Scores"))
    text = stream.getvalue()
    assert text.count("noisy") == 1
    assert text.count("mean of SNRs") == 2


def test_seeds_are_averaged_per_clip_and_their_spread_is_stated():
    values = {(seed, file): 2.0 + 0.1 * seed + file for seed in range(3) for file in range(4)}
    rows = [
        {**_row("a", 0.0, value), "file": str(file), "seed": seed}
        for (seed, file), value in values.items()
    ]
    entry = _entry(summarize(rows), "a", "all")
    assert entry["num_seeds"] == 3
    assert entry["num_clips"] == entry["pesq_wb"]["num_clips"] == 4
    assert entry["pesq_wb"]["mean"] == pytest.approx(2.1 + 1.5)
    assert entry["pesq_wb"]["seed_std"] == pytest.approx(0.1)
    assert "seeds ±0.10" in to_markdown([entry])


def test_clips_without_a_known_snr_are_one_group():
    summary = summarize([_row("a", None, 1.0), _row("a", None, 2.0)])
    assert [(e["group"], e["pesq_wb"]["mean"]) for e in summary] == [("all", 1.5)]


def test_noise_types_are_averaged_apart():
    clips = ((0.0, 1.0, "wind"), (5.0, 2.0, "rain"), (5.0, 2.0, "wind"))
    rows = [{**_row("a", snr, pesq), "noise_category": noise} for snr, pesq, noise in clips]
    means = {e["group"]: e["pesq_wb"]["mean"] for e in summarize_noise_types(rows)}
    assert means == {"rain": 2.0, "wind": 1.5}


def test_metric_that_lacks_clips_is_named_with_its_count(rows):
    summary = summarize(rows)
    assert missing_clips(summary) == ["student: PESQ-WB over 1 of 2 clips"]
    stream = io.StringIO()
    Console(file=stream, width=120).print(to_terminal(summary))
    assert "student: PESQ-WB over 1 of 2 clips" in stream.getvalue()


@pytest.mark.parametrize("name", ["net[v2]", "a [red]b[/red]", "x[/]", "[bold"])
def test_names_with_brackets_are_printed_as_they_are(name):
    stream = io.StringIO()
    table = to_terminal(summarize([_row(name, 0.0, 1.0)]), title=name)
    Console(file=stream, width=160).print(table)
    assert stream.getvalue().count(name) == 2
