# SPDX-License-Identifier: Apache-2.0
"""Trains candidate networks for an equal budget and compares what each one buys.

Usage:
  ./x bench search --data=FOLDER [--workdir=runs/search] [--candidates=nano,nano_narrow,...]
                   [--steps=1200] [--table=docs/search.md]

Every candidate starts from the same seed, sees the same pairs and is scored on the same noisy
clips of the valid split, in float and, where it can stream, as int8 in TFLite Micro
(calibrated ranges, no fine-tuning). Finished candidates are kept, so an interrupted search
goes on where it stopped.
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

_METRICS = ("pesq_wb", "stoi", "si_sdr_db")
_DIGITS = (3, 3, 2)
_TITLES = ("PESQ-WB", "STOI", "SI-SDR, dB")
# `nano` as it was before its recurrence.
_DILATED: dict[str, Any] = {
    "channels": 24,
    "dilations": (1,),
    "bottleneck_dilations": (2, 8),
    "recurrent_channels": 0,
}
# name -> (architecture, sizes other than its own, what it asks)
CANDIDATES: dict[str, tuple[str, dict[str, Any], str]] = {
    "tcn": ("tcn", {}, "a plain dilated network without positions"),
    "tcn_bins": ("tcn", {"num_bands": 257}, "bins instead of bands"),
    "gru": ("gru", {}, "one recurrence without positions"),
    "nano": ("nano", {}, "the shipped student"),
    "nano_dilated": ("nano", _DILATED, "frames at a distance instead of a recurrence"),
    "nano_recurrent": (
        "nano",
        {"dilations": (0,), "recurrent_channels": 0},
        "a recurrence on the grid, nothing else remembers",
    ),
    "nano_recurrent_bottleneck": (
        "nano",
        {"channels": 24, "dilations": (1,), "recurrent_channels": 96},
        "a recurrence in the bottleneck, a block on the grid",
    ),
    "nano_two_recurrences": (
        "nano",
        {"channels": 24, "dilations": (0,), "recurrent_channels": 80},
        "a recurrence on the grid and one in the bottleneck",
    ),
    "nano_three_memories": (
        "nano",
        {**_DILATED, "bottleneck_channels": 64, "bottleneck_dilations": (1, 3, 9)},
        "three narrower blocks of memory",
    ),
    "nano_narrow": (
        "nano",
        {**_DILATED, "bottleneck_channels": 48, "bottleneck_dilations": (1, 3, 9)},
        "three narrow blocks of memory",
    ),
    "nano_narrow_grid_wide": (
        "nano",
        {
            **_DILATED,
            "bottleneck_channels": 48,
            "bottleneck_dilations": (1, 3, 9),
            "channels": 32,
        },
        "the same under a wider grid",
    ),
    "nano_64": ("nano", {**_DILATED, "bottleneck_channels": 64}, "a narrower bottleneck"),
    "nano_80": ("nano", {**_DILATED, "bottleneck_channels": 80}, "a wider bottleneck"),
    "nano_bins": (
        "nano",
        {**_DILATED, "num_bands": 256, "bands_per_position": 16},
        "bins instead of bands, twice as many per position",
    ),
    "nano_transposed": (
        "nano_variant",
        {"upsampling": "transposed", "num_filtered_bins": 0, "num_taps": 0},
        "a transposed convolution instead of the sub-pixel one",
    ),
    "nano_complex": ("nano_variant", {"num_taps": 1}, "a complex mask below 2 kHz"),
    "nano_deep_filter": ("nano_variant", {}, "a deep filter of 3 taps below 2 kHz"),
    "nano_bins_complex": (
        "nano_variant",
        {"num_bands": 256, "bands_per_position": 16, "num_filtered_bins": 256, "num_taps": 1},
        "a complex mask on all bins",
    ),
    "small": ("small", {}, "the shipped student"),
    "small_dilated": (
        "small",
        {"dilations": (1, 2, 4), "bottleneck_dilations": (1, 2, 4, 8), "recurrent_channels": 0},
        "frames at a distance instead of recurrences",
    ),
}


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    from lmkd_tf.config.files import read_json
    from lmkd_tf.distill.objective import check_choice

    values = flags.FLAGS
    names = values.candidates or list(CANDIDATES)
    for name in names:
        check_choice("candidates", name, tuple(CANDIDATES))
    search = Search(_config(values), Path(values.data), Path(values.workdir))
    results, table = [], ""
    for index, name in enumerate(names):
        sys.stdout.write(f"candidate {index + 1} of {len(names)}: {name}\n")
        results.append(read_json(search.run(name)))
        table = to_markdown(results, _heading(search.config))
        Path(values.workdir, "table.md").write_text(table, encoding="utf-8")
    if values.table:
        Path(values.table).write_text(table, encoding="utf-8")
    sys.stdout.write(table)


class Search:
    """Trains and scores one candidate at a time.

    Args:
        config: Configuration whose `network_training` every candidate has.
        data: Folder with speech/ and noise/.
        workdir: Folder for the results.
    """

    def __init__(self, config: Any, data: Path, workdir: Path):
        from lmkd_tf.cli.train_stages import Audio

        self.config = config
        self._workdir = workdir
        self._audio = Audio(data, config)
        self._clips: list[Any] = []

    def run(self, name: str) -> Path:
        """Returns the result of a candidate, made before or now."""
        from lmkd_tf.cli.road import network_settings, settings_of
        from lmkd_tf.config.files import read_json, write_json
        from lmkd_tf.models.builder import ARCHITECTURES

        path = self._workdir / f"{name}.json"
        architecture, size, asks = CANDIDATES[name]
        size = {**ARCHITECTURES[architecture][1], **size}
        parts = ("data", "loss", "network_training")
        settings = settings_of(self.config, self._audio.corpus, parts)
        settings |= network_settings(architecture, size)
        if path.is_file() and read_json(path)["settings"] == settings:
            return path
        with tempfile.TemporaryDirectory() as scratch:
            result = self._train_and_score(architecture, size, Path(scratch))
        write_json(path, {"name": name, "asks": asks, "settings": settings, **result})
        return path

    def _train_and_score(self, architecture: str, size: Any, folder: Path) -> dict[str, Any]:
        import keras

        from lmkd_tf.cli.progress import Progress, ProgressCallback
        from lmkd_tf.cli.train_stages import build_loss
        from lmkd_tf.cli.training import fit_stage, make_optimizer
        from lmkd_tf.metrics.cost import count_parameters, macs_per_frame
        from lmkd_tf.models import build
        from lmkd_tf.models.builder import is_streaming

        train = self.config.network_training
        keras.utils.set_random_seed(self.config.seed)
        network = build(architecture, stft=self.config.stft, **size)
        network.compile(optimizer=make_optimizer(train), loss=build_loss(self.config))
        pairs = self._audio.training(train, 0, is_joined=True)
        validation = self._audio.validation(train, is_joined=True)
        with Progress(architecture) as progress:
            callbacks = [ProgressCallback(progress)]
            fit_stage(network, pairs, validation, train, folder, callbacks, is_resumable=False)
        result: dict[str, Any] = {
            "parameters": count_parameters(network.core),
            "macs_per_hop": macs_per_frame(network.core),
            "float": self._score(lambda noisy: np.asarray(network(noisy[None], training=False))[0]),
        }
        if not is_streaming(architecture):
            return {**result, "int8": None, "model_bytes": None, "arena_bytes": None}
        return {**result, **self._int8(network, architecture, size, folder)}

    def _int8(self, network: Any, architecture: str, size: Any, folder: Path) -> dict[str, Any]:
        from lmkd_tf.cli.stages import export_calibrated
        from lmkd_tf.evaluate.backends import StepBackend
        from lmkd_tf.evaluate.streaming import StreamingEnhancer

        batches = self._audio.validation(self.config.network_training, is_joined=True)
        path = folder / "network.tflite"
        manifest = export_calibrated(
            network, path, (noisy for noisy, _ in batches), architecture=architecture, size=size
        )
        return {
            "int8": self._score(StreamingEnhancer(StepBackend(path, "tflm")).enhance),
            "model_bytes": path.stat().st_size,
            "arena_bytes": manifest.arena["needed_bytes"],
        }

    def _score(self, enhance: Any) -> dict[str, float | None]:
        from lmkd_tf.evaluate.scores import mean_score, score_clips

        count = self.config.data.num_evaluation_clips
        self._clips = self._clips or self._audio.scored_clips(count)
        rows = score_clips("network", self._clips, enhance, metrics=_METRICS)
        return {name: mean_score(rows, name) for name in _METRICS}


def _config(values: flags.FlagValues) -> Any:
    from lmkd_tf.config.loader import load

    config = load(config_path(values.config), values.override)
    if config.network_training.metric_weight:
        raise ValueError(
            "Candidates train without a metric discriminator. "
            f"Received network_training.metric_weight={config.network_training.metric_weight}. "
            "Leave it out."
        )
    epochs = max(1, round(values.steps / 300))
    # The weights of the last step: an average lags behind in a run this short.
    last = {"ema_momentum": 0.0, "monitor": "", "patience": 0, "num_scored_clips": 0}
    length = {"epochs": epochs, "steps_per_epoch": round(values.steps / epochs)}
    return replace(config, network_training=replace(config.network_training, **length, **last))


def to_markdown(results: list[dict[str, Any]], heading: str) -> str:
    """Formats results as a table, best PESQ in float first.

    Args:
        results: What the runs wrote.
        heading: Text above the table.

    Returns:
        Markdown.
    """
    titles = ("network", "asks", "parameters", "MAC/hop", "int8 bytes", "arena bytes")
    scores = [f"{kind} {title}" for kind in ("float", "int8") for title in _TITLES]
    lines = [heading, "", _row([*titles, *scores])]
    lines.append(_row(["---", "---", *["---:"] * (len(titles) + len(scores) - 2)]))
    for result in sorted(results, key=lambda r: -(r["float"]["pesq_wb"] or 0.0)):
        counts = ("parameters", "macs_per_hop", "model_bytes", "arena_bytes")
        cells = [f"`{result['name']}`", result["asks"], *(_count(result[c]) for c in counts)]
        for kind in ("float", "int8"):
            cells += _score_cells(result[kind])
        lines.append(_row(cells))
    return "\n".join([*lines, ""])


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _score_cells(scores: dict[str, float | None] | None) -> list[str]:
    values = [None if scores is None else scores[metric] for metric in _METRICS]
    return [
        "-" if value is None else f"{value:.{digits}f}"
        for value, digits in zip(values, _DIGITS, strict=True)
    ]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _heading(config: Any) -> str:
    train = config.network_training
    command = f"./x bench search {' '.join(shlex.quote(a) for a in sys.argv[1:])}"
    return (
        "# Networks at an equal budget\n\n"
        f"`{command}`\n\n"
        f"{train.epochs * train.steps_per_epoch} steps of {2 * train.batch_size} crops of "
        f"{config.data.crop_seconds:g} s, seed {config.seed}, "
        f"{config.data.num_evaluation_clips} clips of the valid split; int8 with calibrated "
        "ranges, without fine-tuning, in TFLite Micro."
    )


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("config", "supervised", "Configuration: a file, or a name in configs/.")
    flags.DEFINE_multi_string("override", [], "Setting to change.")
    flags.DEFINE_string("data", None, "Folder with speech/ and noise/.", required=True)
    flags.DEFINE_string("workdir", "runs/search", "Folder for the results.")
    flags.DEFINE_list("candidates", [], "Candidates to compare; all if empty.")
    flags.DEFINE_integer("steps", 1200, "Optimizer steps of every run.", lower_bound=1)
    flags.DEFINE_string("table", None, "Markdown file to write, such as docs/search.md.")

    run_program(main, __doc__ or "", ("data", "workdir", "candidates", "steps", "table"))


if __name__ == "__main__":
    run()
