# SPDX-License-Identifier: Apache-2.0
"""`lmkd-quickstart`: the whole road, from a corpus to a report, safe to interrupt."""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from lmkd_tf.cli.common import (
    TRAINING_FLAGS,
    check_packages,
    config_path,
    define_flags,
    run_program,
)

# Seconds on 2 cores, for the first estimate of the time left.
_EXPECTED_SECONDS = {
    "corpus": 45,
    "recordings": 20,
    "teacher": 10,
    "student": 240,
    "pruned": 100,
    "quantized": 100,
    "export": 60,
    "scores": 90,
    "report": 5,
}


def main(arguments: list[str]) -> None:
    """Runs the program."""
    if len(arguments) > 1:
        raise ValueError(
            f"This program takes flags only. Received {arguments[1:]}. Use --data=FOLDER."
        )
    from lmkd_tf.cli.progress import StageBoard

    values = flags.FLAGS
    check_packages()
    with StageBoard("quickstart", _EXPECTED_SECONDS) as board:
        data = Path(values.data) if values.data else None
        workdir = Path(values.workdir or _default_workdir(data))
        road = _open_road(board, data, workdir)
        _run_road(board, road)
        with board.stage("report"):
            path = road.write_report()
    _show_results(path)


def _default_workdir(data: Path | None) -> str:
    """Keeps the results on a user's recordings apart from those on the synthetic corpus."""
    return "runs/quickstart" if data is None else f"runs/quickstart-{data.resolve().name}"


def _open_road(board: Any, data: Path | None, workdir: Path) -> Any:
    from lmkd_tf.cli.road import Road
    from lmkd_tf.config.loader import load
    from lmkd_tf.data.embedded import build_embedded_corpus

    config = load(config_path(flags.FLAGS.config), flags.FLAGS.override)
    if data is None:
        data = Path("runs/embedded")
        with board.stage("corpus") as progress:
            build_embedded_corpus(data, seed=0, on_progress=progress.update_of)
    else:
        board.skip("corpus", "not needed: recordings are given")
    return Road(config, workdir, data)


def _run_road(board: Any, road: Any) -> None:
    from lmkd_tf.cli.progress import ProgressCallback
    from lmkd_tf.cli.road import STAGES, Listener

    finished = {name for name in STAGES if road.is_finished(name)}
    if len(finished) == len(STAGES):
        board.skip("recordings", "not needed")
    else:
        with board.stage("recordings") as progress:
            road.audio.load_all(progress.update_of)
            road.evaluation_clips()  # fails here rather than after the training
    for name in STAGES:
        # Asked again: a stage that ran changes what the later ones depend on.
        if road.is_finished(name):
            board.skip(name)
            continue
        with board.stage(name) as progress:
            road.run(name, Listener((ProgressCallback(progress),), progress.update_of))


def _show_results(report: Path) -> None:
    from rich.console import Console

    from lmkd_tf.config.files import read_json
    from lmkd_tf.evaluate.table import MEAN_OF_SNRS, to_terminal

    results = read_json(report.parent / "results.json")
    summary = [entry for entry in results["summary"] if entry["group"] == MEAN_OF_SNRS]
    title = "Held-out clips: mean over SNRs [95 % interval]; the report has every SNR"
    Console().print(to_terminal(summary, title))
    exported = report.parent / "export"
    sys.stdout.write(f"Report: {report}\nStudent and C arrays: {exported}\n")


def run() -> None:
    """Entry point of the console script."""
    define_flags("quickstart", None, None)
    run_program(main, __doc__ or "", TRAINING_FLAGS)


if __name__ == "__main__":
    run()
