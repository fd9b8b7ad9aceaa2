# SPDX-License-Identifier: Apache-2.0
"""Sizes and time per hop of the shipped students on every runtime, and what each step cost.

Usage:
  ./x bench export [--data=FOLDER] [--clips=20] [--frames=500]
  ./x bench export --data=FOLDER --calibrations=8 [--clips=16]

Prints a table of sizes beside those published for DTLN and GTCRN, and a table of microseconds per
hop of the network alone. With recordings, the quality ledger of each student follows. With
--calibrations there is one table instead: what the draw of the calibration frames does to int8
after training, on clips of the split `valid`, run by TFLite Micro.
"""

import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from lmkd_tf.cli.common import run_program

# Published: DTLN (Westhausen and Meyer, Interspeech 2020) and its stage 1 in the examples of
# tflite-micro, which was run for the arena; GTCRN (Rong et al., ICASSP 2024), float.
PEERS = (
    ("DTLN, float", "under 1 M", "-", "-", "-", "-"),
    ("DTLN, int8, first of two stages", "-", "372,720", "-", "5,840", "-"),
    ("GTCRN, float", "48,200", "-", "-", "-", "33"),
)
_NUM_ROUNDS = 3


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    from lmkd_tf.models.presets import preset_files, preset_names

    students = [name for name in preset_names() if "tflite" in preset_files(name)]
    if flags.FLAGS.calibrations:
        _require_data()
        for name in students:
            seeds = range(flags.FLAGS.calibrations)
            table = spread_table(name, flags.FLAGS.data, seeds, flags.FLAGS.clips)
            sys.stdout.write(f"{name}\n\n{table}\n")
        return
    sys.stdout.write(size_table(students) + "\n")
    sys.stdout.write(time_table(students, flags.FLAGS.frames))
    if flags.FLAGS.data:
        for name in students:
            sys.stdout.write(f"\n{name}\n\n{_ledger(name)}")


def size_table(students: list[str]) -> str:
    """Returns sizes of the shipped students and of published ones as a markdown table.

    Args:
        students: Names of presets that ship as int8.
    """
    from lmkd_tf.export.manifest import read_manifest
    from lmkd_tf.models.presets import preset_files

    rows = [["network", "parameters", "bytes", "compressed", "arena", "MMAC/s"]]
    for name in students:
        path = preset_files(name)["tflite"]
        manifest, content = read_manifest(path), path.read_bytes()
        rate = manifest.stft["sample_rate_hz"] / manifest.stft["hop_length"]
        facts = (manifest.parameters, len(content), len(zlib.compress(content, 9)))
        cells = [f"{value:,}" for value in (*facts, manifest.arena_bytes)]
        rows.append([f"{name}, int8", *cells, f"{manifest.macs_per_hop * rate / 1e6:.1f}"])
    return _markdown(rows + [list(peer) for peer in PEERS])


def time_table(students: list[str], num_frames: int) -> str:
    """Returns the time per hop of each student on each runtime as a markdown table.

    Args:
        students: Names of presets that ship as int8.
        num_frames: Hops per round.
    """
    rows = [["network, microseconds per hop", "Keras", "TFLite XNNPACK", "reference", "TFLM"]]
    for name in students:
        runners = _runners(name)
        features = np.random.default_rng(0).normal(0.0, 0.3, (num_frames, _bands(name)))
        best = dict.fromkeys(runners, float("inf"))
        for _ in range(_NUM_ROUNDS):  # in turns, so that a busy machine is busy for all of them
            for kind, run in runners.items():
                best[kind] = min(best[kind], _seconds(run, features.astype(np.float32)))
        rows.append([name, *(f"{1e6 * value / num_frames:.0f}" for value in best.values())])
    return _markdown(rows)


def _runners(name: str) -> dict[str, Callable[[np.ndarray], Any]]:
    from lmkd_tf.export.interpreter import StepModel
    from lmkd_tf.models import from_preset
    from lmkd_tf.models.presets import preset_files

    core, path = from_preset(name).core, preset_files(name)["tflite"]
    return {
        "keras": lambda features: np.asarray(core(features[None, :, None], training=False)),
        **{kind: StepModel(path, kind).gains for kind in ("xnnpack", "tflite", "tflm")},
    }


def _bands(name: str) -> int:
    from lmkd_tf.export.manifest import read_manifest
    from lmkd_tf.models.presets import preset_files

    return read_manifest(preset_files(name)["tflite"]).num_bands


def _seconds(run: Callable[[np.ndarray], Any], features: np.ndarray) -> float:
    start_s = time.perf_counter()
    run(features)
    return time.perf_counter() - start_s


def _require_data() -> None:
    if not flags.FLAGS.data:
        raise ValueError(
            "Calibrations are drawn from recordings. "
            "Received --calibrations without --data. Add --data=FOLDER."
        )


def spread_table(name: str, data: str | Path, seeds: Iterable[int], num_clips: int) -> str:
    """Returns scores of a student over several draws of calibration frames as a markdown table.

    Args:
        name: Preset that ships as int8.
        data: Recordings.
        seeds: Seeds of the draws.
        num_clips: Clips of the split `valid` that are scored.
    """
    from lmkd_tf.cli import stages
    from lmkd_tf.cli.ledger import preset_config
    from lmkd_tf.export.tflite import to_tflite
    from lmkd_tf.models import from_preset
    from lmkd_tf.models.presets import preset_files

    config, model = preset_config(name), from_preset(name)
    audio = stages.Audio(data, config)
    clips = audio.scored_clips(num_clips)
    rows = [["network", *(title for title, _ in _SPREAD.values())]]
    whole = _mean_scores(clips, lambda noisy: np.asarray(model(noisy[None], training=False))[0])
    rows += [["float", *_cells([whole])]]
    rows += [["int8 as shipped", *_cells([_int8_scores(clips, preset_files(name)["tflite"])])]]
    network = {"architecture": model.architecture, "size": model.size, "stft": model.stft}
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            path = Path(scratch) / f"{seed}.tflite"
            drawn = stages.draw_calibration(config, audio, model, seed)
            to_tflite(model.core, path, **network, calibration=drawn)
            found.append(_int8_scores(clips, path))
            rows.append([f"int8 after training, seed {seed}", *_cells([found[-1]])])
    rows.append([f"mean and deviation over {len(found)}", *_cells(found)])
    return _markdown(rows)


_SPREAD = {"pesq_wb": ("PESQ-WB", 3), "si_sdr_db": ("SI-SDR (dB)", 2)}


def _int8_scores(clips: list[Any], path: Path) -> dict[str, float | None]:
    from lmkd_tf.evaluate.backends import StepBackend
    from lmkd_tf.evaluate.streaming import StreamingEnhancer

    return _mean_scores(clips, StreamingEnhancer(StepBackend(path, "tflm")).enhance)


def _mean_scores(clips: list[Any], enhance: Callable[[np.ndarray], Any]) -> dict[str, float | None]:
    from lmkd_tf.evaluate.scores import mean_score, score_clips

    rows = score_clips("spread", clips, enhance, num_workers=1, metrics=tuple(_SPREAD))
    return {name: mean_score(rows, name) for name in _SPREAD}


def _cells(scores: Sequence[Mapping[str, float | None]]) -> list[str]:
    """Formats a value, or mean and standard deviation of several; a dash where there is none."""
    cells = []
    for name, (_, digits) in _SPREAD.items():
        values = [value for entry in scores if (value := entry[name]) is not None]
        text = f"{np.mean(values):.{digits}f}" if values else "-"
        more = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        cells.append(text + more)
    return cells


def _ledger(name: str) -> str:
    from lmkd_tf.cli import stages
    from lmkd_tf.cli.ledger import Ledger, preset_config, to_markdown

    config = preset_config(name)
    audio = stages.Audio(Path(flags.FLAGS.data), config)
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Ledger(config, audio, Path(scratch), flags.FLAGS.clips)
        steps = ledger.steps(None, name, [0])
        ledger.measure(steps, 0.0)
        return to_markdown(steps, 0.0)


def _markdown(rows: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = f"|---|{'---:|' * (len(rows[0]) - 1)}"
    return "\n".join([head, rule, *body]) + "\n"


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("data", None, "Recordings for the quality ledger.")
    flags.DEFINE_integer("clips", 20, "Clips that are scored.", lower_bound=1)
    flags.DEFINE_integer("frames", 500, "Hops per round of the time table.", lower_bound=1)
    flags.DEFINE_integer(
        "calibrations", 0, "Draws of calibration frames to compare instead.", lower_bound=0
    )
    run_program(main, __doc__ or "", ("data", "clips", "frames", "calibrations"))


if __name__ == "__main__":
    run()
