# SPDX-License-Identifier: Apache-2.0
r"""Scores a network on held-out noisy speech: PESQ, STOI and SI-SDR by SNR.

Usage:
  lmkd-evaluate --data=FOLDER --output=FOLDER [--preset=NAME | --model=FILE]
                [--backend=keras|tflite|tflm|firmware] [--split=test | --benchmark=vbdemand96]

Scores the noisy speech and the enhanced one, prints the table, and writes
scores.json (every clip, the means, the settings) and scores.md to OUTPUT.

Examples:
  lmkd-evaluate --data=recordings --output=runs/scores
  lmkd-evaluate --data=recordings --output=runs/scores --benchmark=vbdemand96 \
      --model=student_int8.tflite --backend=tflm
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lmkd_tf.cli.common import run_program
from lmkd_tf.cli.enhance import (
    DEFAULT_PRESET,
    choose_backend,
    define_system_flags,
)

if TYPE_CHECKING:
    from lmkd_tf.data.pipeline import EvaluationClip
    from lmkd_tf.evaluate.streaming import Backend

# Choices are made on valid; the table is made on test.
SPLITS = ("test", "valid")
BENCHMARKS = ("vbdemand96",)


def main(arguments: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> int:
    """Runs the program.

    Args:
        arguments: Name of the program and nothing else.
        values: Parsed flags.

    Returns:
        0.

    Raises:
        ValueError: If a flag or the data cannot be used.
        FileNotFoundError: If there is no such data or model.
    """
    if len(arguments) > 1:
        raise ValueError(
            "This program takes flags only. "
            f"Received {list(arguments[1:])}. See lmkd-evaluate --help."
        )
    for name in ("data", "output"):
        if not values[name].value:
            raise ValueError(
                f"This program needs --{name}=FOLDER. Received none. See lmkd-evaluate --help."
            )
    backend = choose_backend(values.preset, values.model, values.backend)()
    clips = read_clips(Path(values.data), values.split, values.benchmark)
    rows = _score(clips, _system_name(values, backend), backend)
    settings = {k: values[k].value for k in ("data", "model", "benchmark")}
    settings["preset"] = None if values.model else values.preset or DEFAULT_PRESET
    settings["split"] = None if values.benchmark else values.split
    _write_results(Path(values.output), rows, {**settings, "backend": backend.name})
    return 0


def read_clips(data: Path, split: str, benchmark: str | None) -> "list[EvaluationClip]":
    """Reads a benchmark, or makes the fixed noisy utterances of a split.

    Args:
        data: Data folder.
        split: `"test"` or `"valid"`.
        benchmark: Name of a folder in `benchmark/`, or None for the split.

    Returns:
        Clips with a clean reference.
    """
    from lmkd_tf.config.schema import DataConfig
    from lmkd_tf.data.folder import read_folder
    from lmkd_tf.data.pipeline import EVALUATION_SEED, benchmark_set, evaluation_set
    from lmkd_tf.data.store import load_store

    if benchmark:
        return benchmark_set(data / "benchmark" / benchmark)
    corpus, settings = read_folder(data), DataConfig()
    stores = [load_store(clips) for clips in (corpus.speech_in(split), corpus.noise_in(split))]
    for store in stores:
        if store.skipped:
            sys.stderr.write(f"Left out:\n{store.describe_skipped()}\n")
    snrs_db, count = settings.evaluation_snrs_db, settings.num_evaluation_clips
    return evaluation_set(*stores, snrs_db=snrs_db, count=count, seed=EVALUATION_SEED)


def _system_name(values: flags.FlagValues, backend: "Backend") -> str:
    network = Path(values.model).stem if values.model else values.preset or DEFAULT_PRESET
    return f"{network} ({backend.name})"


def _score(
    clips: "list[EvaluationClip]", system_name: str, backend: "Backend"
) -> list[dict[str, Any]]:
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.evaluate.scores import score_clips
    from lmkd_tf.evaluate.streaming import StreamingEnhancer

    systems = {"noisy": lambda noisy: noisy, system_name: StreamingEnhancer(backend).enhance}
    rows: list[dict[str, Any]] = []
    with Progress("Score", len(systems) * len(clips)) as progress:
        for name, enhance in systems.items():
            start = len(rows)

            def report(done: int, total: int, start: int = start, name: str = name) -> None:
                progress.update(start + done, f"{name}, {done} of {total}")

            rows += score_clips(name, clips, enhance, on_progress=report)
    return rows


def _write_results(output: Path, rows: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    from rich.console import Console

    import lmkd_tf
    from lmkd_tf.config.files import sha256_of, write_json, write_text
    from lmkd_tf.config.loader import git_commit, package_versions
    from lmkd_tf.evaluate.table import summarize, to_markdown, to_terminal

    summary = summarize(rows)
    if settings["model"]:
        settings = {**settings, "model_sha256": sha256_of(settings["model"])}
    made_by = {"version": lmkd_tf.__version__, "git_commit": git_commit(), **package_versions()}
    record = {"settings": settings, "made_by": made_by, "summary": summary}
    write_json(output / "scores.json", {**record, "rows": rows})
    write_text(output / "scores.md", to_markdown(summary))
    Console().print(to_terminal(summary, "Mean and 95 % interval"))
    sys.stdout.write(f"Written: {output / 'scores.json'}, {output / 'scores.md'}\n")


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of this program."""
    define_system_flags(values)
    flags.DEFINE_string(
        "data", None, "Folder with speech/ and noise/, or benchmark/.", flag_values=values
    )
    flags.DEFINE_string("output", None, "Folder for the results.", flag_values=values)
    flags.DEFINE_enum(
        "split", SPLITS[0], SPLITS, "Part of the recordings to mix and score.", flag_values=values
    )
    flags.DEFINE_enum(
        "benchmark", None, BENCHMARKS, "Published noisy speech instead.", flag_values=values
    )


def run() -> None:
    """Entry point of the console script."""
    define_flags()
    names = ("data", "output", "preset", "model", "backend", "split", "benchmark")
    run_program(main, __doc__ or "", names)


if __name__ == "__main__":
    run()
