# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from lmkd_tf.cli import bench_search
from lmkd_tf.config.files import read_json
from lmkd_tf.config.schema import ExperimentConfig


def result(name, pesq):
    scores = {"pesq_wb": pesq, "stoi": 0.75, "si_sdr_db": 6.0}
    counts = {"parameters": 1000, "macs_per_hop": 2000, "model_bytes": 3000, "arena_bytes": 4000}
    lower = {**scores, "pesq_wb": pesq - 0.1}
    return {"name": name, "asks": "why", **counts, "float": scores, "int8": lower}


def test_table_has_the_best_network_first_and_dashes_where_there_is_no_int8():
    not_quantized = {"int8": None, "model_bytes": None, "arena_bytes": None}
    best = {**result("best", 1.8), **not_quantized}
    results = [result("worse", 1.5), best, result("better", 1.75)]
    table = bench_search.to_markdown(results, "heading")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows.pop(0) == (
        "| `best` | why | 1,000 | 2,000 | - | - | 1.800 | 0.750 | 6.00 | - | - | - |"
    )
    assert rows[0] == (
        "| `better` | why | 1,000 | 2,000 | 3,000 | 4,000 | 1.750 | 0.750 | 6.00 "
        "| 1.650 | 0.750 | 6.00 |"
    )
    assert rows[1].startswith("| `worse` |")


@pytest.fixture
def search(road, tmp_path):
    brief = replace(
        road.config.network_training,
        **{"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "ema_momentum": 0.0},
        **{"num_scored_clips": 0, "monitor": ""},
    )
    config = replace(road.config, network_training=brief)
    return bench_search.Search(config, road.corpus, tmp_path / "search")


def test_candidate_is_trained_quantized_and_scored_once(search, monkeypatch):
    size = {"channels": 8, "num_bands": 64, "bottleneck_channels": 16, "dilations": (1,)}
    monkeypatch.setitem(bench_search.CANDIDATES, "tiny", ("nano", size, "a test"))
    path = search.run("tiny")
    found = read_json(path)
    assert found["settings"]["size"]["channels"] == 8
    assert found["arena_bytes"] > 1000
    assert found["model_bytes"] > found["parameters"]
    # Two steps leave the network where it began, so int8 has little to lose.
    assert found["int8"]["si_sdr_db"] == pytest.approx(found["float"]["si_sdr_db"], abs=1.0)
    assert 1.0 <= found["int8"]["pesq_wb"] <= 4.7
    monkeypatch.setattr(search, "_train_and_score", lambda *_: pytest.fail("trained again"))
    assert search.run("tiny") == path


def test_candidate_that_cannot_stream_is_scored_in_float_alone(search, monkeypatch):
    size = {"channels": 8, "num_bands": 64, "bottleneck_channels": 16, "num_filtered_bins": 32}
    monkeypatch.setitem(bench_search.CANDIDATES, "tiny", ("nano_variant", size, "a test"))
    found = read_json(search.run("tiny"))
    assert found["int8"] is found["arena_bytes"] is None
    assert 1.0 <= found["float"]["pesq_wb"] <= 4.7


def test_candidate_of_another_budget_or_corpus_is_trained_again(search, monkeypatch):
    trained = []
    monkeypatch.setattr(
        bench_search.Search, "_train_and_score", lambda *_: trained.append(1) or {"float": {}}
    )
    search.run("nano")
    train = replace(search.config.network_training, epochs=3)
    search.config = replace(search.config, network_training=train)
    search.run("nano")
    search.run("nano")
    assert len(trained) == 2
    fewer = replace(search._audio.corpus, noise=search._audio.corpus.noise[1:])
    search._audio.corpus = fewer  # other recordings
    search.run("nano")
    assert len(trained) == 3


def test_clips_without_a_score_are_left_out_of_the_means(monkeypatch):
    rows = [
        {"pesq_wb": 2.0, "stoi": None, "si_sdr_db": 1.0},
        {"pesq_wb": None, "stoi": None, "si_sdr_db": 3.0},
    ]
    monkeypatch.setattr("lmkd_tf.evaluate.scores.score_clips", lambda *_, **__: rows)
    search = bench_search.Search.__new__(bench_search.Search)  # without recordings
    search.config, search._clips = ExperimentConfig(), [None]
    assert search._score(None) == {"pesq_wb": 2.0, "stoi": None, "si_sdr_db": 2.0}


def test_table_has_a_dash_where_no_clip_has_a_score():
    undefined = dict.fromkeys(("pesq_wb", "stoi", "si_sdr_db"))
    table = bench_search.to_markdown([{**result("none", 1.5), "float": undefined}], "")
    assert "| - | - | - | 1.400 | 0.750 | 6.00 |" in table
