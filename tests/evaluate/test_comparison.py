# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.evaluate.comparison import compare, comparison_markdown


def _row(system, file, pesq, snr_db=0.0, seed=0):
    return {"system": system, "file": file, "snr_db": snr_db, "seed": seed, "pesq_wb": pesq}


def _all(comparison):
    return next(entry for entry in comparison if entry["group"] == "all")


def test_difference_is_that_of_the_same_files():
    rows = [_row("a", "x", 2.0), _row("a", "y", 3.0), _row("a", "only here", 9.0)]
    rows += [_row("b", "y", 2.5), _row("b", "x", 1.0)]
    entry = _all(compare(rows, "a", "b"))
    assert entry["pesq_wb"]["difference"] == pytest.approx(0.75)
    assert (entry["num_clips"], entry["pesq_wb"]["num_clips"]) == (2, 2)
    assert entry["stoi"] is None


def test_win_rate_counts_ties_as_half():
    pairs = {"w": (2, 1), "x": (1, 2), "y": (1, 1), "z": (3, 1)}
    rows = [_row("a", file, pair[0]) for file, pair in pairs.items()]
    rows += [_row("b", file, pair[1]) for file, pair in pairs.items()]
    assert _all(compare(rows, "a", "b"))["pesq_wb"]["win_rate"] == pytest.approx(2.5 / 4)


def test_paired_interval_is_narrow_where_the_difference_is_alike_on_all_files():
    rng = np.random.default_rng(0)
    levels, gains = rng.normal(2.0, 0.7, 200), rng.normal(0.1, 0.05, 200)
    rows = [_row("b", f"{i}", value) for i, value in enumerate(levels)]
    rows += [_row("a", f"{i}", value) for i, value in enumerate(levels + gains)]
    result = _all(compare(rows, "a", "b"))["pesq_wb"]
    half_width = 1.96 * gains.std() / np.sqrt(200)
    assert result["low"] == pytest.approx(gains.mean() - half_width, abs=0.001)
    assert result["high"] == pytest.approx(gains.mean() + half_width, abs=0.001)


def test_mean_of_snrs_weighs_every_snr_alike():
    rows = [_row("a", f"{i}", 1.0, snr_db=0.0) for i in range(9)] + [_row("a", "9", 3.0, 5.0)]
    rows += [{**row, "system": "b", "pesq_wb": 1.0} for row in rows]
    entry = next(e for e in compare(rows, "a", "b") if e["group"] == "mean of SNRs")
    assert entry["pesq_wb"]["difference"] == pytest.approx(1.0)


def test_seeds_are_averaged_and_compared_one_by_one():
    rows = [_row("a", "x", 2.0 + seed, seed=seed) for seed in range(3)]
    rows += [_row("b", "x", 1.0 + 2 * seed, seed=seed) for seed in range(3)]
    result = _all(compare(rows, "a", "b"))["pesq_wb"]
    assert result["difference"] == pytest.approx(0.0)
    assert result["seed_differences"] == pytest.approx([1.0, 0.0, -1.0])


def test_systems_without_a_common_file_are_an_error():
    with pytest.raises(ValueError, match="'a' and 'b' with none in common"):
        compare([_row("a", "x", 1.0), _row("b", "y", 1.0)], "a", "b")


def test_markdown_states_difference_interval_and_wins():
    rows = [_row("a", "x", 2.0), _row("b", "x", 1.5)]
    lines = comparison_markdown(compare(rows, "a", "b"), ["pesq_wb"]).splitlines()
    assert lines[0] == "| System | Against | Clips | PESQ-WB |"
    assert lines[2:] == ["| a | b | 1 | +0.50 [+0.50, +0.50], wins 100 % |"]
