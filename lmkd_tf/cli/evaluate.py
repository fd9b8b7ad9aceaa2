# SPDX-License-Identifier: Apache-2.0
r"""Scores systems on held-out noisy speech, by SNR and type of noise, with intervals.

Usage:
  lmkd-evaluate --data=FOLDER --output=FOLDER [--system=[NAME=]TARGET[@HOW] ...]
                [--baseline=NAME] [--scores=FILE.csv ...]
                [--split=test | --benchmark=vbdemand96|pairs]
  lmkd-evaluate --data=FOLDER --write_noisy=FOLDER

TARGET is a preset, a .keras or .tflite file, or a folder of files that another program
enhanced; HOW is a back-end (keras, tflite, tflm, firmware) or the delay of a folder in
samples, which is found otherwise. TARGET,TARGET,... are the training seeds of one system,
and `presets` is every preset there is. --preset, --model and --backend name one system.

Scores PESQ-WB, STOI, ESTOI, SI-SDR, segmental SNR, CSIG, CBAK, COVL and DNSMOS P.835 per file,
compares every system with the baseline on the same files, and writes scores.json, scores.csv,
scores.md and report.html to OUTPUT. An interrupted run goes on where it stopped.

Examples:
  lmkd-evaluate --data=recordings --output=runs/scores
  lmkd-evaluate --data=recordings --output=runs/scores --system=nano@keras --system=nano@tflm
  lmkd-evaluate --data=recordings --output=runs/scores --benchmark=vbdemand96 \
      --system=ours=a.tflite,b.tflite,c.tflite --system=theirs=enhanced/ --baseline=theirs
"""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lmkd_tf.cli.common import run_program
from lmkd_tf.cli.enhance import choose_backend, default_preset, define_system_flags
from lmkd_tf.cli.system_specs import read_systems

if TYPE_CHECKING:
    from lmkd_tf.data.pipeline import EvaluationClip

# Choices are made on valid; the table is made on test.
SPLITS = ("test", "valid")
# `pairs`: the noisy and clean test files of the corpus itself, as in VoiceBank+DEMAND.
BENCHMARKS = ("vbdemand96", "pairs")
FLAGS = (
    "data", "output", "system", "preset", "model", "backend", "baseline", "scores", "split",
    "benchmark", "num_workers", "bootstrap_seed", "write_noisy",
)  # fmt: skip


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
    for name in ("data", "write_noisy" if values.write_noisy else "output"):
        if not values[name].value:
            raise ValueError(
                f"This program needs --{name}=FOLDER. Received none. See lmkd-evaluate --help."
            )
    specs = _specs(values)
    clips = read_clips(Path(values.data), values.split, values.benchmark)
    if values.write_noisy:
        return _write_noisy(Path(values.write_noisy), clips)
    _evaluate(values, specs, clips)
    return 0


def read_clips(data: Path, split: str, benchmark: str | None) -> "list[EvaluationClip]":
    """Reads a benchmark, or makes the fixed noisy utterances of a split.

    Args:
        data: Data folder.
        split: `"test"` or `"valid"`.
        benchmark: Name of a folder in `benchmark/`, `"pairs"` for the noisy and clean files
            of the corpus itself, or None to mix those of the split.

    Returns:
        Clips with a clean reference.
    """
    from lmkd_tf.config.schema import DataConfig
    from lmkd_tf.data.pipeline import EVALUATION_SEED, benchmark_set, evaluation_set, paired_set
    from lmkd_tf.data.readers import read_corpus
    from lmkd_tf.data.sources import open_store

    if benchmark == "pairs":
        return paired_set(read_corpus(data, required_splits=()))
    if benchmark:
        return benchmark_set(data / "benchmark" / benchmark)
    corpus, settings = read_corpus(data, required_splits=(split,)), DataConfig()
    stores = [open_store(clips) for clips in (corpus.speech_in(split), corpus.noise_in(split))]
    for store in stores:
        if store.skipped:
            sys.stderr.write(f"Left out:\n{store.describe_skipped()}\n")
    snrs_db, count = settings.evaluation_snrs_db, settings.num_evaluation_clips
    return evaluation_set(*stores, snrs_db=snrs_db, count=count, seed=EVALUATION_SEED)


def _specs(values: flags.FlagValues) -> list[str]:
    """Returns `--system`, or what --preset, --model and --backend say, in its form."""
    one = values.preset or values.model or values.backend
    if values.system and one:
        raise ValueError(
            "Systems are named by --system, or one by --preset, --model and --backend. "
            f"Received --system={values.system[0]} and {one}. Leave one out."
        )
    if values.system:
        return list(values.system)
    choose_backend(values.preset, values.model, values.backend)  # refuses what does not fit
    target = values.model or values.preset or default_preset(values.backend)
    return [f"{target}@{values.backend}" if values.backend else target]


def _evaluate(
    values: flags.FlagValues, specs: list[str], clips: "list[EvaluationClip]"
) -> dict[str, Any]:
    from lmkd_tf.cli.evaluation_report import write_evaluation_report
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.evaluate.evaluation import read_scores, score_systems, write_results
    from lmkd_tf.evaluate.row_store import RowStore
    from lmkd_tf.evaluate.systems import noisy_system

    output, record = Path(values.output), _record(values)
    systems = [noisy_system(), *read_systems(specs, clips)]
    _check_baseline(values, [system.name for system in systems])
    context = [record["version"], record["git_commit"], record["versions"]]
    store = RowStore(output / "rows.jsonl", context)
    num_workers = os.cpu_count() or 1 if values.num_workers is None else values.num_workers
    with Progress("Score", len(systems) * len(clips)) as progress:

        def report(done: int, total: int, name: str) -> None:
            progress.update(done, f"{name}, {done} of {total}")

        rows = score_systems(systems, clips, store, num_workers, report)
    noisy = rows[: len(clips)]
    for path in values.scores:
        rows = [*rows, *read_scores(path, clips, noisy)]
    record["systems"] = [{"name": s.name, "seed": s.seed, **s.facts} for s in systems]
    results = write_results(output, rows, values.baseline, record, values.bootstrap_seed)
    write_evaluation_report(output / "report.html", results, systems, specs, clips)
    _show(output, results)
    return results


def _check_baseline(values: flags.FlagValues, names: list[str]) -> None:
    """Refuses a misspelt baseline before the scoring; --scores may bring it."""
    if values.baseline not in names and not values.scores:
        raise ValueError(
            "The baseline must be one of the systems. "
            f"Received {values.baseline!r}; there are {', '.join(names)}. Use one of these names."
        )


def _record(values: flags.FlagValues) -> dict[str, Any]:
    import lmkd_tf
    from lmkd_tf.config.loader import describe_machine, git_commit, package_versions
    from lmkd_tf.data.pipeline import EVALUATION_SEED

    names = [name for name in FLAGS if name not in ("output", "num_workers", "write_noisy")]
    return {
        "command": shlex.join(["lmkd-evaluate", *sys.argv[1:]]),
        "settings": {name: values[name].value for name in names},
        "evaluation_seed": EVALUATION_SEED,
        "version": lmkd_tf.__version__,
        "git_commit": git_commit(),
        "versions": package_versions(),
        "python": platform.python_version(),
        "machine": describe_machine(),
    }


def _show(output: Path, results: dict[str, Any]) -> None:
    from rich.console import Console

    from lmkd_tf.evaluate.table import to_terminal

    Console().print(to_terminal(results["summary"], "Mean and 95 % interval"))
    names = ("scores.json", "scores.csv", "scores.md", "report.html")
    sys.stdout.write(f"Written to {output}: {', '.join(names)}\n")


def _write_noisy(folder: Path, clips: "list[EvaluationClip]") -> int:
    import soundfile

    from lmkd_tf.config.files import atomic_path
    from lmkd_tf.dsp.pcm import float_to_int16

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            "The noisy clips are written to a new or empty folder. "
            f"Received {folder}, which is not. Give another one."
        )
    for clip in clips:
        with atomic_path(folder / f"{clip.name}.wav") as temporary:
            soundfile.write(temporary, float_to_int16(clip.noisy), 16000)
    sys.stdout.write(f"{folder}: {len(clips)} noisy clips of 16 kHz\n")
    return 0


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of this program."""
    define_system_flags(values)
    flags.DEFINE_string(
        "data", None, "Folder with speech/ and noise/, or benchmark/.", flag_values=values
    )
    flags.DEFINE_string("output", None, "Folder for the results.", flag_values=values)
    flags.DEFINE_multi_string(
        "system", [], "System to score: [NAME=]TARGET[@HOW][,TARGET...].", flag_values=values
    )
    flags.DEFINE_string(
        "baseline", "noisy", "System that the others are compared with.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "scores", [], "CSV file of scores per file, such as scores.csv.", flag_values=values
    )
    flags.DEFINE_enum(
        "split", SPLITS[0], SPLITS, "Part of the recordings to mix and score.", flag_values=values
    )
    flags.DEFINE_enum(
        "benchmark", None, BENCHMARKS, "Published noisy speech instead.", flag_values=values
    )
    flags.DEFINE_integer(
        "num_workers",
        None,
        "Scoring processes; one per core by default.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "bootstrap_seed", 0, "Seed of the intervals.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_string(
        "write_noisy", None, "Write the noisy clips here and end.", flag_values=values
    )


def run() -> None:
    """Entry point of the console script."""
    define_flags()
    run_program(main, __doc__ or "", FLAGS)


if __name__ == "__main__":
    run()
