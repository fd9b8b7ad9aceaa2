# SPDX-License-Identifier: Apache-2.0
"""Means by SNR with confidence intervals, for JSON, markdown and the terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from lmkd_tf.evaluate.scores import METRICS

METRIC_TITLES = {
    "pesq_wb": "PESQ-WB", "stoi": "STOI", "estoi": "ESTOI", "si_sdr_db": "SI-SDR (dB)",
    "segmental_snr_db": "SegSNR (dB)", "csig": "CSIG", "cbak": "CBAK", "covl": "COVL",
    "dnsmos_sig": "SIG", "dnsmos_bak": "BAK", "dnsmos_ovrl": "OVRL",
}  # fmt: skip
# What a table for the terminal has room for.
MAIN_METRICS = ("pesq_wb", "stoi", "si_sdr_db", "dnsmos_ovrl")
_DIGITS = {"stoi": 3, "estoi": 3}
_NUM_RESAMPLES = 2000
_INTERVAL_PERCENT = (2.5, 97.5)

ALL_CLIPS = "all"
MEAN_OF_SNRS = "mean of SNRs"


def summarize(rows: Sequence[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Averages scores by system and SNR, with 95 % bootstrap intervals over clips.

    A system with several training seeds has several rows per clip. They are averaged before
    clips are drawn, and the spread of the seeds is stated beside the interval.

    Args:
        rows: Rows of `score_clips`, of any number of systems; `seed` where there are several.
        seed: Seed of the resampling.

    Returns:
        Per system, in the order of the rows, one entry per SNR, one over all
        clips, and one that is the mean of the SNR means (what to compare when
        the SNRs hold different numbers of clips): `system`, `group` (such as
        `"5 dB"`, `"all"`), `snr_db` (None for the last two), `num_clips`, and
        per metric `{"mean", "low", "high", "num_clips"}` or None. With several seeds also
        `num_seeds` and, in each metric, `seed_std`, the standard deviation of their means.
    """
    summary = []
    for system in unique(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        for group, snr_db, strata in snr_groups(own):
            summary.append({"snr_db": snr_db, **_entry(system, group, strata, seed)})
    return summary


def summarize_noise_types(rows: Sequence[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Averages scores by system and type of noise.

    Args:
        rows: Rows of `score_clips`, of any number of systems.
        seed: Seed of the resampling.

    Returns:
        Entries as those of `summarize`, without `snr_db`; `group` is the type of noise.
    """
    summary = []
    for system in unique(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        for category in sorted({row["noise_category"] for row in own}):
            part = [row for row in own if row["noise_category"] == category]
            summary.append(_entry(system, category, [part], seed))
    return summary


def snr_groups(
    rows: Sequence[dict[str, Any]],
) -> list[tuple[str, float | None, list[list[dict[str, Any]]]]]:
    """Groups the rows of a system: one group per SNR, all clips, and the mean of the SNRs.

    Args:
        rows: Rows of one system.

    Returns:
        Name, SNR in dB or None, and strata; the mean of a group is that of its strata's means.
        Without a known SNR there is one group, all clips.
    """
    snrs = sorted({row["snr_db"] for row in rows if row["snr_db"] is not None})
    strata = [[row for row in rows if row["snr_db"] == snr] for snr in snrs]
    groups = [(f"{snr:g} dB", snr, [s]) for snr, s in zip(snrs, strata, strict=True)]
    groups.append((ALL_CLIPS, None, [list(rows)]))
    return [*groups, (MEAN_OF_SNRS, None, strata)] if strata else groups


def clip_values(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, float]:
    """Returns the score of each clip, averaged over seeds; undefined scores are left out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(metric) is not None:
            values.setdefault(row["file"], []).append(row[metric])
    return {file: float(np.mean(scores)) for file, scores in values.items()}


def interval_of(strata: Sequence[Sequence[float]], seed: int) -> dict[str, float] | None:
    """Averages strata of values, with a 95 % bootstrap interval.

    Args:
        strata: Values of each stratum; empty strata are left out.
        seed: Seed of the resampling.

    Returns:
        `mean`, `low`, `high` and `num_clips`, or None without a value.
    """
    values = [np.asarray(part, np.float64) for part in strata if len(part)]
    if not values:
        return None
    rng = np.random.default_rng(seed)
    resampled = []
    for part in values:
        shares = np.full(len(part), 1.0 / len(part))
        resampled.append(rng.multinomial(len(part), shares, _NUM_RESAMPLES) @ part / len(part))
    low, high = np.percentile(np.mean(resampled, axis=0), _INTERVAL_PERCENT)
    mean = float(np.mean([part.mean() for part in values]))
    num_clips = sum(len(part) for part in values)
    return {"mean": mean, "low": float(low), "high": float(high), "num_clips": num_clips}


def to_markdown(
    summary: Sequence[dict[str, Any]],
    metrics: Sequence[str] = METRICS,
    group_title: str = "SNR",
) -> str:
    """Formats summaries as a markdown table with intervals.

    Args:
        summary: Result of `summarize` or `summarize_noise_types`.
        metrics: Columns.
        group_title: Head of the second column.
    """
    titles = ["System", group_title, "Clips", *(METRIC_TITLES[name] for name in metrics)]
    lines = [markdown_row(titles), markdown_row(["---"] * 2 + ["---:"] * (len(titles) - 2))]
    lines += [markdown_row(_cells(entry, metrics)) for entry in summary]
    return "\n".join(lines) + "\n"


def missing_clips(entries: Sequence[dict[str, Any]], metrics: Sequence[str] = METRICS) -> list[str]:
    """Names the metrics that are known of some clips only, so that no mean hides it.

    Args:
        entries: Results of `summarize` or `compare`; those over all clips count.
        metrics: Metrics to look at.

    Returns:
        One line per system, such as `"mine: PESQ-WB over 94 of 96 clips"`.
    """
    lines = []
    for entry in entries:
        if entry["group"] != ALL_CLIPS:
            continue
        total = entry["num_clips"]
        counts = {m: entry[m]["num_clips"] for m in metrics if entry[m]}
        short = [f"{METRIC_TITLES[m]} over {n}" for m, n in counts.items() if n < total]
        if short:
            against = f" against {entry['baseline']}" if "baseline" in entry else ""
            lines.append(f"{entry['system']}{against}: {', '.join(short)} of {total} clips")
    return lines


def to_terminal(summary: Sequence[dict[str, Any]], title: str = "") -> Table:
    """Formats the result of `summarize` as a table for `rich`, one block per system."""
    notes = "\n".join(missing_clips(summary, MAIN_METRICS))
    table = Table(title=escape(title) or None, caption=escape(notes) or None)
    for name in ("System", "SNR"):
        table.add_column(name, no_wrap=True)
    for name in ("Clips", *(METRIC_TITLES[name] for name in MAIN_METRICS)):
        table.add_column(name, justify="right")
    for index, entry in enumerate(summary):
        is_last = index + 1 == len(summary) or summary[index + 1]["system"] != entry["system"]
        cells = [escape(cell) for cell in _cells(entry, MAIN_METRICS)]
        is_first = index == 0 or summary[index - 1]["system"] != entry["system"]
        table.add_row(cells[0] if is_first else "", *cells[1:], end_section=is_last)
    return table


def format_mean(metric: str, interval: dict[str, float] | None) -> str:
    """Returns a mean with the digits that make sense for its metric.

    Example:
        >>> format_mean("stoi", {"mean": 0.91234}), format_mean("stoi", None)
        ('0.912', '-')
    """
    return f"{interval['mean']:.{digits_of(metric)}f}" if interval else "-"


def digits_of(metric: str) -> int:
    """Returns the decimals to show for a metric."""
    return _DIGITS.get(metric, 2)


def unique(values: Iterable[str]) -> list[str]:
    """Returns the values, each once, in the order in which they come first."""
    return list(dict.fromkeys(values))


def markdown_row(cells: Sequence[str]) -> str:
    """Formats a row of a markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _entry(
    system: str, group: str, strata: Sequence[Sequence[dict[str, Any]]], seed: int
) -> dict[str, Any]:
    rows = [row for part in strata for row in part]
    entry: dict[str, Any] = {"system": system, "group": group}
    entry["num_clips"] = len({(row["file"], row["snr_db"]) for row in rows})
    seeds = sorted({row.get("seed", 0) for row in rows})
    if len(seeds) > 1:
        entry["num_seeds"] = len(seeds)
    for metric in METRICS:
        interval = interval_of([list(clip_values(p, metric).values()) for p in strata], seed)
        if interval and len(seeds) > 1:
            interval["seed_std"] = _spread(strata, metric, seeds)
        entry[metric] = interval
    return entry


def _spread(strata: Sequence[Sequence[dict[str, Any]]], metric: str, seeds: Sequence[int]) -> float:
    """Returns the standard deviation of the seeds' means."""
    means = []
    for seed in seeds:
        own = [[row for row in part if row.get("seed", 0) == seed] for part in strata]
        values = [list(clip_values(part, metric).values()) for part in own]
        means.append(np.mean([np.mean(part) for part in values if part]))
    return float(np.std(means, ddof=1))


def _cells(entry: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    cells = [_with_interval(name, entry[name]) for name in metrics]
    return [entry["system"], entry["group"], str(entry["num_clips"]), *cells]


def _with_interval(metric: str, interval: dict[str, float] | None) -> str:
    if interval is None:
        return "-"
    digits = digits_of(metric)
    bounds = f"{interval['low']:.{digits}f}, {interval['high']:.{digits}f}"
    spread = f", seeds ±{interval['seed_std']:.{digits}f}" if "seed_std" in interval else ""
    return f"{format_mean(metric, interval)} [{bounds}]{spread}"
