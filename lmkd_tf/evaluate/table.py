# SPDX-License-Identifier: Apache-2.0
"""Means by SNR with confidence intervals, for JSON, markdown and the terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from lmkd_tf.evaluate.scores import METRICS

METRIC_TITLES = {"pesq_wb": "PESQ-WB", "stoi": "STOI", "si_sdr_db": "SI-SDR (dB)"}
_DIGITS = {"pesq_wb": 2, "stoi": 3, "si_sdr_db": 2}
_NUM_RESAMPLES = 2000
_INTERVAL_PERCENT = (2.5, 97.5)

ALL_CLIPS = "all"
MEAN_OF_SNRS = "mean of SNRs"


def summarize(rows: Sequence[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Averages scores by system and SNR, with 95 % bootstrap intervals over clips.

    Args:
        rows: Rows of `score_clips`, of any number of systems.
        seed: Seed of the resampling.

    Returns:
        Per system, in the order of the rows, one entry per SNR, one over all
        clips, and one that is the mean of the SNR means (what to compare when
        the SNRs hold different numbers of clips): `system`, `group` (such as
        `"5 dB"`, `"all"`), `snr_db` (None for the last two), `num_clips`, and
        per metric `{"mean", "low", "high", "num_clips"}` or None.
    """
    summary = []
    for system in _unique(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        snrs = sorted({row["snr_db"] for row in own})
        strata = [[row for row in own if row["snr_db"] == snr] for snr in snrs]
        groups = [(f"{snr:g} dB", snr, [s]) for snr, s in zip(snrs, strata, strict=True)]
        groups += [(ALL_CLIPS, None, [own]), (MEAN_OF_SNRS, None, strata)]
        for group, snr_db, parts in groups:
            entry = {"system": system, "group": group, "snr_db": snr_db}
            entry["num_clips"] = sum(len(part) for part in parts)
            entry.update({metric: _interval(parts, metric, seed) for metric in METRICS})
            summary.append(entry)
    return summary


def to_markdown(summary: Sequence[dict[str, Any]]) -> str:
    """Formats the result of `summarize` as a markdown table with intervals."""
    titles = ["System", "SNR", "Clips", *(METRIC_TITLES[name] for name in METRICS)]
    lines = [_markdown_row(titles), _markdown_row(["---"] * 2 + ["---:"] * (len(titles) - 2))]
    lines += [_markdown_row(_cells(entry)) for entry in summary]
    return "\n".join(lines) + "\n"


def to_terminal(summary: Sequence[dict[str, Any]], title: str = "") -> Table:
    """Formats the result of `summarize` as a table for `rich`, one block per system."""
    table = Table(title=title or None)
    for name in ("System", "SNR"):
        table.add_column(name, no_wrap=True)
    for name in ("Clips", *(METRIC_TITLES[name] for name in METRICS)):
        table.add_column(name, justify="right")
    for index, entry in enumerate(summary):
        is_last = index + 1 == len(summary) or summary[index + 1]["system"] != entry["system"]
        cells = _cells(entry)
        is_first = index == 0 or summary[index - 1]["system"] != entry["system"]
        table.add_row(cells[0] if is_first else "", *cells[1:], end_section=is_last)
    return table


def format_mean(metric: str, interval: dict[str, float] | None) -> str:
    """Returns a mean with the digits that make sense for its metric.

    Example:
        >>> format_mean("stoi", {"mean": 0.91234}), format_mean("stoi", None)
        ('0.912', '-')
    """
    return f"{interval['mean']:.{_DIGITS[metric]}f}" if interval else "-"


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _interval(
    parts: Sequence[Sequence[dict[str, Any]]], metric: str, seed: int
) -> dict[str, float] | None:
    values = [np.array([r[metric] for r in part if r[metric] is not None]) for part in parts]
    values = [part for part in values if len(part)]
    if not values:
        return None
    rng = np.random.default_rng(seed)
    resampled = [
        part[rng.integers(0, len(part), (_NUM_RESAMPLES, len(part)))].mean(axis=1)
        for part in values
    ]
    low, high = np.percentile(np.mean(resampled, axis=0), _INTERVAL_PERCENT)
    mean = float(np.mean([part.mean() for part in values]))
    num_clips = sum(len(part) for part in values)
    return {"mean": mean, "low": float(low), "high": float(high), "num_clips": num_clips}


def _cells(entry: dict[str, Any]) -> list[str]:
    metrics = [_with_interval(name, entry[name]) for name in METRICS]
    return [entry["system"], entry["group"], str(entry["num_clips"]), *metrics]


def _with_interval(metric: str, interval: dict[str, float] | None) -> str:
    if interval is None:
        return "-"
    digits = _DIGITS[metric]
    bounds = f"{interval['low']:.{digits}f}, {interval['high']:.{digits}f}"
    return f"{format_mean(metric, interval)} [{bounds}]"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
