# SPDX-License-Identifier: Apache-2.0
"""The listening page of lmkd-evaluate: what `write_report` needs, from scored systems."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmkd_tf.cli.system_specs import describe_cost, first_targets
from lmkd_tf.config.files import read_json
from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.evaluate.report import write_report
from lmkd_tf.evaluate.systems import System
from lmkd_tf.evaluate.table import ALL_CLIPS

_NUM_SHOWN_CLIPS = 6
_NUM_SHOWN_SYSTEMS = 7  # as many as there are keys to switch between them, with clean


def write_evaluation_report(
    path: Path,
    results: dict[str, Any],
    systems: Sequence[System],
    specs: Sequence[str],
    clips: Sequence[EvaluationClip],
) -> None:
    """Writes the report of an evaluation.

    Args:
        path: File to write.
        results: What `write_results` returned.
        systems: Scored systems, the noisy speech first.
        specs: `--system` of the program.
        clips: Clips that were scored.
    """
    shown = [system for system in systems if system.seed == 0][:_NUM_SHOWN_SYSTEMS]
    costs = {name: describe_cost(target) for name, target in first_targets(specs).items()}
    models = [{"name": name, **cost} for name, cost in costs.items() if cost]
    benchmark = results["settings"]["benchmark"]
    write_report(
        path,
        title=", ".join(system.name for system in shown[1:]) or "noisy",
        description=_description(benchmark or f"split {results['settings']['split']}", clips),
        rows=results["rows"],
        history={},
        clips=[_sounds(clip, shown) for clip in chosen_clips(clips, _NUM_SHOWN_CLIPS)],
        models=sorted(models, key=lambda model: -model["bytes"]),
        details={
            "run": {k: results[k] for k in ("command", "git_commit", "version", "machine")},
            "settings": results["settings"],
            "versions": results["versions"],
            "systems": {f"{s['name']} {s['seed']}": s for s in results["systems"]},
        },
        is_synthetic=False,
        comparisons=results["comparisons"],
        published=published_systems(benchmark, results["summary"]),
        shipped=systems[-1].name,
    )


def chosen_clips(clips: Sequence[EvaluationClip], count: int) -> list[EvaluationClip]:
    """Chooses clips of all SNRs, the same ones every time, in rising order of SNR.

    Args:
        clips: Clips to choose from.
        count: Clips wanted.
    """
    in_order = sorted(clips, key=lambda clip: (clip.snr_db, clip.name))
    positions = [round(i * (len(in_order) - 1) / max(1, count - 1)) for i in range(count)]
    return [in_order[position] for position in sorted(set(positions))]


def published_systems(
    benchmark: str | None, summary: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns published systems on the same files, with what they cost.

    Args:
        benchmark: Name of the benchmark, or None.
        summary: Means of this evaluation. Where `--scores` brought the scores of a published
            system, they replace those of the table, with their intervals.
    """
    table = read_json(Path(str(importlib.resources.files("lmkd_tf.evaluate"))) / "published.json")
    if table["benchmark"] != benchmark:
        return []
    found = {entry["system"]: entry for entry in summary if entry["group"] == ALL_CLIPS}
    return [{**s, **_scores_of(found.get(s["peer"]))} for s in table["systems"]]


def _scores_of(entry: dict[str, Any] | None) -> dict[str, Any]:
    return {m: entry[m] for m in ("pesq_wb", "dnsmos_ovrl") if entry[m]} if entry else {}


def _description(source: str, clips: Sequence[EvaluationClip]) -> str:
    seconds = sum(len(clip.speech) for clip in clips) / 16000
    return f"{len(clips)} clips of {source}, {seconds / 60:.1f} minutes in all."


def _sounds(clip: EvaluationClip, systems: Sequence[System]) -> dict[str, Any]:
    signals = {system.name: system.enhance(clip) for system in systems}
    entry = {"name": clip.name, "snr_db": float(clip.snr_db), "sample_rate_hz": 16000}
    return {**entry, "signals": {**signals, "clean": clip.speech}}
