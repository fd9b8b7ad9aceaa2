# SPDX-License-Identifier: Apache-2.0
"""Trains one student with every distillation method for an equal budget and compares them.

Usage:
  ./x bench kd --data=FOLDER [--workdir=runs/kd] [--methods=fitnets,...] [--seeds=3]
               [--steps=600] [--table=docs/kd.md]

Every run starts from the same weights as the others of its seed and sees the same pairs; only
the objective differs. Each is scored on the fixed noisy clips of the test split, in float and
as int8 in TFLite Micro (post-training ranges, no fine-tuning). Finished runs are kept, so an
interrupted benchmark goes on where it stopped; seeds come one after another, so that a table
over fewer seeds can be written at any time.
"""

import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from lmkd_tf.cli.common import config_path, run_program

CONTROL = "no_kd"
_METRICS = ("pesq_wb", "stoi", "si_sdr_db")
_TITLES = {"pesq_wb": "PESQ-WB", "stoi": "STOI", "si_sdr_db": "SI-SDR, dB"}
_DIGITS = {"pesq_wb": 3, "stoi": 4, "si_sdr_db": 2}
_NUM_RESAMPLES = 4000


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    from lmkd_tf.config.files import read_json
    from lmkd_tf.distill.objective import METHODS, check_choice

    values = flags.FLAGS
    methods = values.methods or list(METHODS)
    for method in methods:
        check_choice("methods", method, tuple(METHODS))
    methods = list(dict.fromkeys([CONTROL, *methods]))
    bench = _Bench(_config(values), Path(values.data), Path(values.workdir))
    results, table = [], ""
    for seed in range(values.seeds):
        for index, method in enumerate(methods):
            sys.stdout.write(f"seed {seed}, method {index + 1} of {len(methods)}: {method}\n")
            results.append(read_json(bench.run(method, seed)))
        table = to_markdown(results, _heading(bench.config, values, seed + 1))
        Path(values.workdir, "table.md").write_text(table, encoding="utf-8")
    if values.table:
        Path(values.table).write_text(table, encoding="utf-8")
    sys.stdout.write(table)


class _Bench:
    """Trains and scores one method and seed at a time."""

    def __init__(self, config: Any, data: Path, workdir: Path):
        from lmkd_tf.cli.road import Road

        self.config = config
        self._workdir = workdir
        self._road = Road(config, workdir, data)
        self._clips: list[Any] = []

    def run(self, method: str, seed: int) -> Path:
        """Returns the result of a run, made before or now."""
        from lmkd_tf.config.files import read_json, write_json

        path = self._workdir / f"seed_{seed}" / f"{method}.json"
        train = self.config.distillation_training
        half = max(1, train.epochs * train.steps_per_epoch // 2)
        distill = replace(self.config.distill, method=method, schedule_steps=half)
        config = replace(self.config, seed=seed, distill=distill)
        settings = self._settings(config)
        if path.is_file() and read_json(path)["settings"] == settings:
            return path
        with tempfile.TemporaryDirectory() as scratch:
            result = self._train_and_score(config, Path(scratch))
        write_json(path, {"method": method, "seed": seed, "settings": settings, **result})
        return path

    def _settings(self, config: Any) -> dict[str, Any]:
        """Returns all that a result depends on; files count by what they hold."""
        from lmkd_tf.cli.road import network_settings, settings_of
        from lmkd_tf.config.files import sha256_of
        from lmkd_tf.models.presets import preset_files

        parts = ("data", "loss", "distill", "distillation_training")
        start = config.student_start
        return {
            **settings_of(config, self._road.audio.corpus, parts),
            "student": network_settings(config.student.architecture, config.student.size),
            "student_start": sha256_of(start) if start else "",
            "teacher_preset": config.teacher_preset,
            "teacher_weights": sha256_of(preset_files(config.teacher_preset)["weights"]),
            "calibration_batch_size": config.compress.quantization.batch_size,
        }

    def _train_and_score(self, config: Any, folder: Path) -> dict[str, Any]:
        from lmkd_tf.cli.progress import Progress, ProgressCallback
        from lmkd_tf.cli.train_stages import distill_student
        from lmkd_tf.cli.training import read_history
        from lmkd_tf.models import from_preset
        from lmkd_tf.models.enhancer import load_enhancer

        audio = self._road.audio.with_config(config)
        with Progress(config.distill.method) as progress:
            teacher = from_preset(config.teacher_preset)
            distill_student(config, audio, folder, teacher, [ProgressCallback(progress)])
        student = load_enhancer(folder / "student.keras")
        rows = {"float": self._score(student_enhancer(student))}
        rows["int8"] = self._score(self._int8_enhancer(config, audio, student, folder))
        return {"rows": rows, "history": read_history(folder)}

    def _score(self, enhance: Any) -> list[dict[str, Any]]:
        from lmkd_tf.evaluate.scores import score_clips

        self._clips = self._clips or self._road.evaluation_clips()
        rows = score_clips("student", self._clips, enhance, metrics=_METRICS)
        return [{name: row[name] for name in ("file", "snr_db", *_METRICS)} for row in rows]

    def _int8_enhancer(self, config: Any, audio: Any, student: Any, folder: Path) -> Any:
        from lmkd_tf.cli.stages import export_calibrated
        from lmkd_tf.evaluate.backends import StepBackend
        from lmkd_tf.evaluate.streaming import StreamingEnhancer

        batches = audio.validation(config.compress.quantization)
        noisy = (views["first_view"] for views, _ in batches)
        network = {"architecture": config.student.architecture, "size": config.student.size}
        export_calibrated(student, folder / "student.tflite", noisy, **network)
        return StreamingEnhancer(StepBackend(folder / "student.tflite", "tflm")).enhance


def student_enhancer(student: Any) -> Any:
    """Returns a function from noisy `(N,)` to enhanced `(N,)`."""
    return lambda noisy: np.asarray(student(noisy[None], training=False))[0]


def _config(values: flags.FlagValues) -> Any:
    from lmkd_tf.config.loader import load

    config = load(config_path(values.config), values.override)
    train = config.distillation_training
    epochs = max(1, round(values.steps / train.steps_per_epoch))
    steps = round(values.steps / epochs)
    return replace(
        config, distillation_training=replace(train, epochs=epochs, steps_per_epoch=steps)
    )


def to_markdown(results: list[dict[str, Any]], heading: str) -> str:
    """Formats runs as a table of means and paired differences to the control.

    Args:
        results: What the runs wrote, of any methods and seeds.
        heading: Text above the table.

    Returns:
        Markdown. A difference is taken per clip, averaged over the seeds; its 95 %
        interval resamples the clips.
    """
    lines = [heading, "", "Means; differences to `no_kd` with 95 % intervals.", ""]
    for kind in ("float", "int8"):
        lines += [f"## {kind}", "", _row(["method", *(_TITLES[m] for m in _METRICS)])]
        lines.append(_row(["---", *["---:"] * len(_METRICS)]))
        scores = {
            method: _per_clip(results, method, kind)
            for method in dict.fromkeys(result["method"] for result in results)
        }
        control = scores[CONTROL]
        order = sorted(scores, key=lambda method: -(_mean(scores[method]["pesq_wb"]) or 0.0))
        for method in order:
            lines.append(
                _row([f"`{method}`", *(_cell(scores[method], control, m) for m in _METRICS)])
            )
        lines.append("")
    return "\n".join(lines)


def _per_clip(results: list[dict[str, Any]], method: str, kind: str) -> dict[str, np.ndarray]:
    """Returns each clip's mean over the seeds; NaN where the clip leaves a score undefined."""
    from lmkd_tf.evaluate.scores import mean_score

    runs = [result["rows"][kind] for result in results if result["method"] == method]
    clips = list(zip(*runs, strict=True))
    return {
        metric: np.array([mean_score(rows, metric) for rows in clips], np.float64)
        for metric in _METRICS
    }


def _mean(values: np.ndarray) -> float | None:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else None


def _cell(scores: dict[str, np.ndarray], control: dict[str, np.ndarray], metric: str) -> str:
    digits, average = _DIGITS[metric], _mean(scores[metric])
    mean = "-" if average is None else f"{average:.{digits}f}"
    difference = scores[metric] - control[metric]
    difference = difference[np.isfinite(difference)]
    if scores is control or not difference.size:
        return mean
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(difference), (_NUM_RESAMPLES, len(difference)))
    low, high = np.percentile(difference[picks].mean(axis=1), (2.5, 97.5))
    return f"{mean} ({difference.mean():+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}])"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _heading(config: Any, values: flags.FlagValues, num_seeds: int) -> str:
    train = config.distillation_training
    command = f"./x bench kd {' '.join(shlex.quote(a) for a in sys.argv[1:])}"
    return (
        "# Distillation methods at an equal budget\n\n"
        f"`{command}`\n\n"
        f"Student `{config.student.architecture}`, teacher preset `{config.teacher_preset}`, "
        f"{train.epochs * train.steps_per_epoch} steps of {train.batch_size} pairs of "
        f"{config.data.crop_seconds:g} s, {num_seeds} seeds, "
        f"{config.data.num_evaluation_clips} test clips."
    )


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("config", "bench_kd", "Configuration: a file, or a name in configs/.")
    flags.DEFINE_multi_string("override", [], "Setting to change.")
    flags.DEFINE_string("data", None, "Folder with speech/ and noise/.", required=True)
    flags.DEFINE_string("workdir", "runs/kd", "Folder for the results.")
    flags.DEFINE_list("methods", [], "Methods to compare; all if empty.")
    flags.DEFINE_integer("seeds", 3, "Number of seeds.", lower_bound=1)
    flags.DEFINE_integer("steps", 600, "Optimizer steps of every run.", lower_bound=1)
    flags.DEFINE_string("table", None, "Markdown file to write, such as docs/kd.md.")
    run_program(main, __doc__ or "", ("data", "workdir", "methods", "seeds", "steps", "table"))


if __name__ == "__main__":
    run()
