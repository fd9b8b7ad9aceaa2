# SPDX-License-Identifier: Apache-2.0
"""Two systems on the same files: difference, interval and how often each wins."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmkd_tf.evaluate.scores import METRICS
from lmkd_tf.evaluate.table import (
    ALL_CLIPS,
    METRIC_TITLES,
    clip_values,
    digits_of,
    interval_of,
    markdown_row,
    snr_groups,
)


def compare(
    rows: Sequence[dict[str, Any]], system: str, baseline: str, seed: int = 0
) -> list[dict[str, Any]]:
    """Compares a system with a baseline, clip by clip.

    Only clips that both have scored count. A system with several training seeds enters with
    its mean over them; the seeds that both have are also compared one by one.

    Args:
        rows: Rows of `score_clips`, of both systems.
        system: Name of the system.
        baseline: Name of the one it is compared with.
        seed: Seed of the resampling.

    Returns:
        Groups as those of `summarize`: `system`, `baseline`, `group`, `num_clips`, and per
        metric `{"difference", "low", "high", "win_rate", "num_clips"}` or None. A difference
        is that of the system minus that of the baseline, its interval 95 % over clips; the
        win rate is the share of clips on which the system is better, ties counting half. With
        several common seeds also `seed_differences`, one per seed.

    Raises:
        ValueError: If the two have no clip in common.
    """
    own = [row for row in rows if row["system"] == system]
    other = [row for row in rows if row["system"] == baseline]
    common = {row["file"] for row in own} & {row["file"] for row in other}
    if not common:
        raise ValueError(
            "Two systems are compared on the same clips. "
            f"Received {system!r} and {baseline!r} with none in common. Score both on one set."
        )
    own, other = ([row for row in part if row["file"] in common] for part in (own, other))
    entries = []
    for group, _, strata in snr_groups(own):
        entry: dict[str, Any] = {"system": system, "baseline": baseline, "group": group}
        entry["num_clips"] = len({row["file"] for part in strata for row in part})
        entry.update({metric: _difference(strata, other, metric, seed) for metric in METRICS})
        entries.append(entry)
    return entries


def comparison_markdown(
    comparisons: Sequence[dict[str, Any]], metrics: Sequence[str] = METRICS
) -> str:
    """Formats results of `compare` over all clips as a markdown table.

    Args:
        comparisons: Entries of any number of comparisons.
        metrics: Columns.
    """
    titles = ["System", "Against", "Clips", *(METRIC_TITLES[name] for name in metrics)]
    lines = [markdown_row(titles), markdown_row(["---"] * 2 + ["---:"] * (len(titles) - 2))]
    for entry in comparisons:
        if entry["group"] == ALL_CLIPS:
            cells = [entry["system"], entry["baseline"], str(entry["num_clips"])]
            cells += [_cell(name, entry[name]) for name in metrics]
            lines.append(markdown_row(cells))
    return "\n".join(lines) + "\n"


def _difference(
    strata: Sequence[Sequence[dict[str, Any]]],
    other: Sequence[dict[str, Any]],
    metric: str,
    seed: int,
) -> dict[str, Any] | None:
    parts = [_paired(part, other, metric) for part in strata]
    interval = interval_of(parts, seed)
    if interval is None:
        return None
    differences = np.concatenate(parts)
    wins = np.mean(differences > 0) + 0.5 * np.mean(differences == 0)
    result: dict[str, Any] = {
        "difference": interval.pop("mean"),
        **interval,
        "win_rate": float(wins),
    }
    own = [row for part in strata for row in part]
    seeds = [{row.get("seed", 0) for row in rows} for rows in (own, other)]
    if len(seeds[0] & seeds[1]) > 1:
        result["seed_differences"] = [
            _mean_difference(strata, other, metric, number)
            for number in sorted(seeds[0] & seeds[1])
        ]
    return result


def _paired(
    own: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], metric: str
) -> list[float]:
    first, second = clip_values(own, metric), clip_values(other, metric)
    return [value - second[file] for file, value in first.items() if file in second]


def _mean_difference(
    strata: Sequence[Sequence[dict[str, Any]]],
    other: Sequence[dict[str, Any]],
    metric: str,
    seed: int,
) -> float:
    second = [row for row in other if row.get("seed", 0) == seed]
    parts = [
        _paired([row for row in part if row.get("seed", 0) == seed], second, metric)
        for part in strata
    ]
    return float(np.mean([np.mean(part) for part in parts if part]))


def _cell(metric: str, result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    digits = digits_of(metric)
    low, high = (f"{result[bound]:+.{digits}f}" for bound in ("low", "high"))
    wins = f"wins {100 * result['win_rate']:.0f} %"
    return f"{result['difference']:+.{digits}f} [{low}, {high}], {wins}"
