# SPDX-License-Identifier: Apache-2.0
"""Scores systems, goes on after an interruption, and writes the results."""

import csv
import importlib.resources
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.config.files import read_json, write_json, write_text
from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.evaluate.comparison import compare, comparison_markdown
from lmkd_tf.evaluate.row_store import RowStore
from lmkd_tf.evaluate.scores import METRICS, known_snr_db, score_signals
from lmkd_tf.evaluate.systems import System
from lmkd_tf.evaluate.table import (
    missing_clips,
    summarize,
    summarize_noise_types,
    to_markdown,
    unique,
)

COLUMNS = ("system", "seed", "file", "snr_db", "noise_category", *METRICS, "note")
# Two scorers that agree differ by the rounding of published figures only.
_MAX_SCORER_DIFFERENCE = 0.005


def score_systems(
    systems: Sequence[System],
    clips: Sequence[EvaluationClip],
    store: RowStore,
    num_workers: int = 2,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Scores every system on every clip, but for the rows that the store has already.

    Args:
        systems: Systems to score.
        clips: Clips with a clean reference.
        store: Where rows are kept; each is there as soon as it is known.
        num_workers: Scoring processes; with 0 everything runs in this one.
        on_progress: Called with (rows known, rows in all, name of the system).

    Returns:
        Rows of `score_clips` with a `seed`, system after system.
    """
    wanted = [(s, c, store.key(s.facts, c)) for s in systems for c in clips]
    missing = [item for item in wanted if store.get(item[2]) is None]

    def signals() -> Iterator[tuple[str, EvaluationClip, np.ndarray]]:
        for system, clip, _ in missing:
            yield system.name, clip, system.enhance(clip)

    num_known = len(wanted) - len(missing)
    for (_, _, key), row in zip(missing, score_signals(signals(), num_workers), strict=True):
        store.put(key, row)
        num_known += 1
        if on_progress:
            on_progress(num_known, len(wanted), row["system"])
    rows = []
    for system, clip, key in wanted:
        # A stored row may come from a run that labelled the same signals otherwise.
        labels = {"snr_db": known_snr_db(clip), "noise_category": clip.noise_category}
        facts = {"system": system.name, "seed": system.seed, "file": clip.name}
        rows.append({**(store.get(key) or {}), **facts, **labels})
    return rows


def listed_snrs_db(benchmark: str) -> dict[str, float]:
    """Returns file -> nominal SNR in dB of the files of a benchmark.

    Args:
        benchmark: `"vbdemand96"`, 96 of the 824 pairs of the VoiceBank+DEMAND test set.
    """
    path = importlib.resources.files("lmkd_tf.evaluate") / f"{benchmark}.csv"
    records = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    return {record["file"]: float(record["nearest_nominal_snr_db"]) for record in records}


def read_scores(
    path: str | Path, clips: Sequence[EvaluationClip], taken: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Reads scores per file that were computed before, here or elsewhere.

    They must hold the PESQ of the noisy speech, by which `join_scores` tells another scorer.

    Args:
        path: CSV file with the columns `system` (or `peer`), `file` and some of `METRICS`.
        clips: Clips of this evaluation; other files are left out.
        taken: Names of systems that there are already.

    Returns:
        Rows, those of the noisy speech among them.

    Raises:
        ValueError: If the file is no table of scores, a column, a name or the noisy speech is
            missing, or a system lacks a clip or has a name that is taken.
        FileNotFoundError: If there is no such file.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(
            f"Scores must be a CSV file. Received {source}, which does not exist. Check the path."
        )
    records = _csv_records(source)
    names = {"system" if "system" in (records or [{}])[0] else "peer", "file", "pesq_wb"}
    if not records or not names <= records[0].keys():
        raise ValueError(
            "A CSV file of scores must have the columns system, file and pesq_wb. "
            f"Received {source} with {', '.join(map(str, records[0])) if records else 'no rows'}. "
            "Write it with lmkd-evaluate."
        )
    by_name = {clip.name: clip for clip in clips}
    rows = [_row_of(r, by_name[r["file"]]) for r in records if r["file"] in by_name]
    _check_complete(rows, clips, source)
    if not any(row["pesq_wb"] is not None for row in _noisy(rows)):
        raise ValueError(
            "Scores of another run must hold the PESQ of the noisy speech, which tells whether the "
            f"scorers agree. Received {source} without a system `noisy`. "
            "Score the noisy files there as well."
        )
    doubled = {row["system"] for row in rows} & set(taken) - {"noisy"}
    if doubled:
        raise ValueError(
            "Every system must have a name of its own. "
            f"Received {', '.join(sorted(doubled))} in {source}, which there is already. "
            "Name what is scored now: --system=NAME=TARGET."
        )
    return rows


def join_scores(
    rows: Sequence[dict[str, Any]], read: Sequence[dict[str, Any]], source: str | Path
) -> list[dict[str, Any]]:
    """Adds scores that were read to those of this run, if one scorer has computed both.

    The noisy speech must have our PESQ there: so a narrow-band score, another version of the
    files or another scorer is noticed.

    Args:
        rows: Rows of this run, those of the noisy speech among them.
        read: Result of `read_scores`.
        source: File that it was read from.

    Returns:
        The rows, and what was read but for the noisy speech.

    Raises:
        ValueError: If the scorers differ.
    """
    _check_scorer(_noisy(read), _noisy(rows), source)
    return [*rows, *(row for row in read if row["system"] != "noisy")]


def check_folder(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuses to replace the results of other clips.

    Args:
        folder: Folder for the results.
        settings: `data`, `benchmark` and `split` of this run.

    Raises:
        ValueError: If `scores.json` there came from others.
    """
    path = Path(folder) / "scores.json"
    before = read_json(path).get("settings") if path.is_file() else None
    if before and _clips_of(before) != _clips_of(settings):
        raise ValueError(
            "The results in a folder must be those of one set of clips. "
            f"Received {_clips_text(settings)} for {folder}, which holds the results of "
            f"{_clips_text(before)}. Give another --output."
        )


def write_results(
    folder: str | Path,
    rows: Sequence[dict[str, Any]],
    baseline: str,
    record: dict[str, Any],
    seed: int = 0,
) -> dict[str, Any]:
    """Writes `scores.json`, `scores.csv` and `scores.md`.

    Args:
        folder: Folder to write to.
        rows: Rows of all systems.
        baseline: System that the others are compared with.
        record: Command, commit, versions and settings.
        seed: Seed of the bootstrap.

    Returns:
        What `scores.json` holds: the record, `summary`, `noise_types`, `comparisons`, `rows`.

    Raises:
        ValueError: If there is no such baseline.
    """
    systems = unique(row["system"] for row in rows)
    if baseline not in systems:
        raise ValueError(
            "The baseline must be one of the systems. "
            f"Received {baseline!r}; there are {', '.join(systems)}. Use one of these names."
        )
    others = [system for system in systems if system != baseline]
    comparisons = [entry for s in others for entry in compare(rows, s, baseline, seed)]
    results = {
        **record,
        "bootstrap_seed": seed,
        "summary": summarize(rows, seed),
        "noise_types": summarize_noise_types(rows, seed),
        "comparisons": comparisons,
        "rows": list(rows),
    }
    write_text(Path(folder) / "scores.csv", _csv_text(rows))
    write_text(Path(folder) / "scores.md", _markdown(results, baseline))
    write_json(Path(folder) / "scores.json", results)
    return results


def _clips_of(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what decides which clips are scored; a benchmark has no split."""
    benchmark = settings.get("benchmark")
    split = None if benchmark else settings.get("split")
    return benchmark, split, Path(settings.get("data") or "").resolve()


def _clips_text(settings: Mapping[str, Any]) -> str:
    name = "benchmark" if settings.get("benchmark") else "split"
    return f"--{name}={settings.get(name)} of {settings.get('data')}"


def _csv_records(source: Path) -> list[dict[str, str]]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            "Scores must be a CSV file in UTF-8. "
            f"Received {source}, which cannot be read ({error}). Save it as CSV."
        ) from error


def _row_of(record: dict[str, str], clip: EvaluationClip) -> dict[str, Any]:
    row: dict[str, Any] = {"system": _name_of(record), "seed": _seed_of(record)}
    row.update(file=clip.name, snr_db=known_snr_db(clip), noise_category=clip.noise_category)
    row.update({metric: _score_of(record, metric) for metric in METRICS})
    return {**row, "note": record.get("note") or ""}


def _name_of(record: dict[str, str]) -> str:
    name = record.get("system") or record.get("peer")
    if not name:
        raise ValueError(
            "Every row of scores must name its system. "
            f"Received a row of {record['file']} without a name. Fill in the column system."
        )
    return name


def _seed_of(record: dict[str, str]) -> int:
    text = record.get("seed") or "0"
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(
            f"Seeds must be whole numbers. Received {text!r} as seed of {record['file']}. "
            "Leave the cell empty where there is one run."
        ) from error


def _score_of(record: dict[str, str], metric: str) -> float | None:
    """Returns a score; None if the cell is empty or holds what a program writes for missing."""
    text = record.get(metric) or "nan"
    try:
        score = float(text)
    except ValueError as error:
        raise ValueError(
            f"Scores must be numbers. Received {text!r} as {metric} of {record['file']}. "
            "Leave a cell empty where there is no score."
        ) from error
    return score if np.isfinite(score) else None


def _check_complete(
    rows: Sequence[dict[str, Any]], clips: Sequence[EvaluationClip], source: Path
) -> None:
    files: dict[tuple[str, int], list[str]] = {(row["system"], 0): [] for row in rows}
    for row in rows:
        files.setdefault((row["system"], row["seed"]), []).append(row["file"])
    expected = sorted(clip.name for clip in clips)
    short = {name: len(f) for (name, _), f in files.items() if sorted(f) != expected}
    if short or not files:
        raise ValueError(
            f"Scores of earlier runs must cover the same {len(clips)} clips, each once. "
            f"Received {source} with {short or 'none of them'}. Use the scores of this benchmark."
        )


def _noisy(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["system"] == "noisy"]


def _check_scorer(
    theirs: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]], source: str | Path
) -> None:
    known = {row["file"]: row["pesq_wb"] for row in ours}
    for row in theirs:
        own, other = known.get(row["file"]), row["pesq_wb"]
        if own is None or other is None:
            continue
        if abs(own - other) > _MAX_SCORER_DIFFERENCE:
            raise ValueError(
                "Scores of another run must come from the same scorer, so the noisy speech must "
                f"have the same wide-band PESQ. Received {other} for {row['file']} in "
                f"{source}, which is {own:.4f} here. Score those files with lmkd-evaluate."
            )


def _csv_text(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer: Any = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"seed": 0, **row} for row in rows)
    return stream.getvalue()


def _notes(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines under a table that say which means lack clips."""
    missing = [f"- {line}" for line in missing_clips(entries)]
    return ["Undefined scores are left out:", "", *missing, ""] if missing else []


def _markdown(results: dict[str, Any], baseline: str) -> str:
    facts = (
        f"Commit {results['git_commit'] or 'unknown'}, version {results['version']}, bootstrap "
        f"seed {results['bootstrap_seed']}. In brackets: 95 % bootstrap intervals over clips. "
        "PESQ is wide-band (ITU-T P.862.2). PESQ, STOI, ESTOI, SI-SDR, CSIG and COVL do not "
        "depend on the level of the estimate; SegSNR, CBAK and DNSMOS do."
    )
    lines = [f"`{results['command']}`", "", facts, "", to_markdown(results["summary"])]
    lines += _notes(results["summary"])
    if results["comparisons"]:
        lines += [f"Difference to {baseline} on the same clips, and the share of clips won:", ""]
        lines.append(comparison_markdown(results["comparisons"]))
        lines += _notes(results["comparisons"])
    if len({entry["group"] for entry in results["noise_types"]}) > 1:
        lines += ["By type of noise:", ""]
        lines.append(to_markdown(results["noise_types"], group_title="Noise"))
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items() if v)
    return "\n".join([*lines, f"Versions: {versions}."]) + "\n"
