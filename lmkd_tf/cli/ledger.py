# SPDX-License-Identifier: Apache-2.0
"""The quality ledger: what every step from Keras to TFLite Micro cost, on the same clips."""

import functools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lmkd_tf.cli import stages
from lmkd_tf.cli.common import config_path
from lmkd_tf.compress.quantization import load_quantized, ranges_of
from lmkd_tf.compress.sensitivity import (
    calibrated_ranges,
    changed_layers,
    dequantized_core,
    layer_losses,
)
from lmkd_tf.config.files import read_json, write_json
from lmkd_tf.config.loader import load
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig, StftConfig
from lmkd_tf.data.pipeline import EVALUATION_SEED, EvaluationClip, evaluation_set
from lmkd_tf.evaluate.parity import snr_db
from lmkd_tf.evaluate.scores import mean_score, score_clips
from lmkd_tf.export.interpreter import StepModel
from lmkd_tf.export.manifest import read_manifest
from lmkd_tf.export.tflite import to_tflite
from lmkd_tf.models import from_preset
from lmkd_tf.models.enhancer import SpeechEnhancer, load_enhancer
from lmkd_tf.models.presets import preset_files

COLUMNS = {
    "pesq_wb": "PESQ-WB",
    "stoi": "STOI",
    "si_sdr_db": "SI-SDR (dB)",
    "dnsmos_ovrl": "DNSMOS OVRL",
}
_DIGITS = {"pesq_wb": 3, "stoi": 4, "si_sdr_db": 2, "dnsmos_ovrl": 3}
_NUM_NAMED_LAYERS = 3


@dataclass
class Step:
    """One row of the ledger.

    Args:
        name: Name of the row.
        gains: From features `(T, E)` to gains `(T, E)`, from a fresh state.
        before: Row that it is compared with.
        blame: Returns layers and their agreement in dB, called when the row falls below the
            floor.
        scores: Mean score of each metric; filled by `measure`.
        snr_db: Gains of the row before over their difference, in dB; filled by `measure`.
        layers: Layers that a drop comes from; filled by `measure`.
    """

    name: str
    gains: Callable[[np.ndarray], np.ndarray]
    before: str | None = None
    blame: Callable[[], list[tuple[str, float]]] | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    snr_db: float | None = None
    layers: list[tuple[str, float]] = field(default_factory=list)

    @property
    def is_identical(self) -> bool:
        """Whether the gains are those of the row before, bit for bit."""
        return self.snr_db == float("inf")

    @property
    def record(self) -> dict[str, Any]:
        """The row as plain values."""
        return {
            "name": self.name,
            "before": self.before,
            "snr_db": None if self.is_identical else self.snr_db,
            "is_identical": self.is_identical,
            "layers": self.layers,
            **self.scores,
        }


def run_ledger(values: Any) -> int:
    """Measures and prints the ledger that the flags ask for.

    Args:
        values: Parsed flags of `lmkd-export`.

    Returns:
        Exit status.
    """
    config = load(config_path(values.config), values.override)
    if values.preset:
        config = preset_config(values.preset, config)
    audio = stages.Audio(Path(values.data), config)
    seeds = [int(seed) for seed in values.seeds.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Ledger(config, audio, Path(scratch), values.clips)
        folder = None if values.preset else Path(values.workdir)
        steps = ledger.steps(folder, values.preset, seeds)
        ledger.measure(steps, values.floor_db)
        losses = ledger.sensitivity()
    text = to_markdown(steps, values.floor_db) + "\n" + sensitivity_table(losses)
    sys.stdout.write(text)
    if values.output:
        record = {
            "clips": [clip.name for clip in ledger.clips],
            "floor_db": values.floor_db,
            "steps": [step.record for step in steps],
            "sensitivity": [asdict(loss) for loss in losses],
        }
        write_json(values.output, record)
    return 0


def preset_config(name: str, like: ExperimentConfig | None = None) -> ExperimentConfig:
    """Returns the configuration of a shipped student.

    Args:
        name: Name of the preset.
        like: Where the other settings come from.

    Raises:
        ValueError: If there is no such preset, or it has no int8 export.
    """
    files = preset_files(name)
    if "tflite" not in files:
        raise ValueError(
            "The ledger needs a student that ships as int8. "
            f"Received {name!r}, which ships in float only. Use nano or --workdir."
        )
    record = read_json(files["record"])
    student = ModelConfig(record["architecture"], **record["size"])
    stft = StftConfig(**record["stft"])
    return replace(like or ExperimentConfig(), name=name, stft=stft, student=student)


class Ledger:
    """Runs the steps of one student over the same clips.

    Args:
        config: Resolved configuration.
        audio: Recordings.
        scratch: Folder for exports that only the ledger needs.
        num_clips: Clips of the test split.
    """

    def __init__(self, config: ExperimentConfig, audio: Any, scratch: Path, num_clips: int):
        self._config, self._audio, self._scratch = config, audio, scratch
        self._student = stages.compressed_student(config)
        self._build = stages.core_builder(self._student)
        self.clips: list[EvaluationClip] = evaluation_set(
            audio.store("speech", "test"),
            audio.store("noise", "test"),
            snrs_db=config.data.evaluation_snrs_db,
            count=num_clips,
            seed=EVALUATION_SEED,
        )
        self._features: dict[tuple[str, float], np.ndarray] = {}
        self._model: SpeechEnhancer | None = None
        self._ranges: dict[str, tuple[float, float]] = {}
        self._core: Any = None
        self._source = "float"  # row that the post-training baselines are compared with

    def steps(self, workdir: Path | None, preset: str | None, seeds: Sequence[int]) -> list[Step]:
        """Lists the rows: the chain of the student and the post-training baselines.

        Args:
            workdir: Work directory with every stage finished, or None.
            preset: Shipped student, or None.
            seeds: Seeds of the calibrations of the baselines.

        Returns:
            Rows, each after the one it is compared with.

        Raises:
            FileNotFoundError: If a stage of the work directory is not finished.
        """
        if preset:
            steps, int8 = self._preset_steps(preset)
        else:
            steps, int8 = self._workdir_steps(workdir or Path("."))
        last = steps[-1].name
        steps.append(Step("int8 TFLite reference", exported_gains(int8, "tflite"), last))
        steps[-1].blame = self._rounding_blame
        steps.append(
            Step("int8 TFLite Micro", exported_gains(int8, "tflm"), "int8 TFLite reference")
        )
        steps[-1].blame = functools.partial(_runtime_blame, int8)
        return [*steps, *self._calibrated_steps(seeds)]

    def start_from(self, model: SpeechEnhancer) -> Step:
        """Makes a float network the one that the others come from, and returns its row."""
        self._model, self._core = model, model.core
        return Step("float", whole_gains(self._core))

    def _preset_steps(self, preset: str) -> tuple[list[Step], Path]:
        return [self.start_from(from_preset(preset))], preset_files(preset)["tflite"]

    def _workdir_steps(self, workdir: Path) -> tuple[list[Step], Path]:
        from lmkd_tf.cli.road import COMMANDS
        from lmkd_tf.cli.workspace import Workspace

        folders = {
            name: Workspace(workdir).require(name, COMMANDS[name])
            for name in ("student", "pruned", "quantized", "export")
        }
        student = load_enhancer(folders["student"] / "student.keras")
        model = self._model = load_enhancer(folders["pruned"] / "pruned.keras")
        quantized = load_quantized(self._build, folders["quantized"] / "quantized.weights.h5")
        self._core = dequantized_core(self._build, quantized)
        self._ranges, self._source = ranges_of(quantized), "pruned"
        pruned = model.core
        steps = [
            Step("float", whole_gains(student.core)),
            Step("pruned", whole_gains(pruned), "float"),
            Step("fake-quantized", whole_gains(quantized), "pruned"),
        ]
        if self._config.compress.num_bands is not None:  # float has other features: not compared
            steps = [replace(steps[1], before=None), steps[2]]
        elif not self._config.compress.size:  # a shrunk network has other layers
            steps[1].blame = lambda: changed_layers(student.core, pruned, self._probe())
        steps[-1].blame = lambda: changed_layers(pruned, self._core, self._probe())
        return steps, folders["export"] / f"{self._config.student.architecture}_int8.tflite"

    def _calibrated_steps(self, seeds: Sequence[int]) -> Iterator[Step]:
        """Post-training baselines of the float network before quantization-aware training."""
        network = {"architecture": self._config.student.architecture}
        for dtype in ("int8", "int16"):
            for seed in seeds:
                path = self._scratch / f"{dtype}_{seed}.tflite"
                to_tflite(
                    self.model.core,
                    path,
                    **network,
                    size=self._student.size,
                    stft=self.model.stft,
                    dtype=dtype,
                    calibration=stages.draw_calibration(
                        self._config, self._audio, self.model, seed
                    ),
                )
                name = f"{dtype} after training, seed {seed}"
                yield Step(name, exported_gains(path, "tflm"), self._source, self._rounding_blame)

    @property
    def model(self) -> SpeechEnhancer:
        """The float network that the quantized ones come from."""
        if self._model is None:
            raise RuntimeError("`steps` lists the rows first. Received none. Call it before.")
        return self._model

    def measure(self, steps: Sequence[Step], floor_db: float) -> None:
        """Scores every row and compares it with the one before; the results go into the rows.

        Args:
            steps: Rows of `steps`.
            floor_db: Agreement below which the layers are named, in dB.
        """
        gains: dict[str, np.ndarray] = {}
        for step in steps:
            parts = [step.gains(self._features_of(clip)) for clip in self.clips]
            gains[step.name] = np.concatenate(parts)
            pairs = zip(self.clips, parts, strict=True)
            by_name = {clip.noisy.tobytes(): part for clip, part in pairs}
            rows = score_clips(
                step.name, self.clips, functools.partial(self._apply, by_name), num_workers=2
            )
            step.scores = {name: mean_score(rows, name) for name in COLUMNS}
            if step.before:
                step.snr_db = snr_db(gains[step.before], gains[step.name])
                if step.snr_db < floor_db and step.blame:
                    step.layers = step.blame()[:_NUM_NAMED_LAYERS]

    def sensitivity(self) -> list[Any]:
        """Returns what each layer costs when it alone is quantized."""
        if not self._ranges:
            self._ranges = calibrated_ranges(self._build, self._core, [self._probe()])
        return layer_losses(self._core, self._ranges, self._probe())

    def _rounding_blame(self) -> list[tuple[str, float]]:
        return [(loss.layer, loss.snr_db) for loss in self.sensitivity()]

    def _probe(self) -> np.ndarray:
        """Features of the first clips, `(1, T, 1, E)`."""
        return np.concatenate([self._features_of(c) for c in self.clips[:4]])[None, :, None]

    def _features_of(self, clip: EvaluationClip) -> np.ndarray:
        key = clip.name, clip.snr_db
        if key not in self._features:
            features, _ = self.model.analyze(clip.noisy[None])
            self._features[key] = np.asarray(keras.ops.convert_to_numpy(features))[0, :, 0]
        return self._features[key]

    def _apply(self, gains: dict[bytes, np.ndarray], noisy: np.ndarray) -> np.ndarray:
        _, spectrum = self.model.analyze(noisy[None])
        mask = gains[noisy.tobytes()][None, :, None]
        return np.asarray(self.model.synthesize(spectrum, mask, len(noisy)))[0]


def to_markdown(steps: Sequence[Step], floor_db: float) -> str:
    """Returns the ledger as a markdown table, with the layers of drops below it.

    Args:
        steps: Measured rows.
        floor_db: Agreement below which a drop is named, in dB.
    """
    titles = ["step", *COLUMNS.values(), "SNR to", "dB"]
    lines = [f"| {' | '.join(titles)} |", f"|---|{'---:|' * len(COLUMNS)}---|---:|"]
    for step in steps:
        cells = [_number(step.scores.get(name), _DIGITS[name]) for name in COLUMNS]
        lines.append(
            f"| {step.name} | {' | '.join(cells)} | {step.before or '-'} | {_ratio(step.snr_db)} |"
        )
    for step in steps:
        if step.snr_db is not None and step.snr_db < floor_db:
            named = ", ".join(f"{layer} ({_ratio(value)} dB alone)" for layer, value in step.layers)
            lines.append(
                f"\n{step.name}: {_ratio(step.snr_db)} dB to {step.before}, below the floor of "
                f"{floor_db:g} dB; it comes from {named or 'no single layer'}."
            )
    return "\n".join(lines) + "\n"


def sensitivity_table(losses: Sequence[Any]) -> str:
    """Returns what each layer costs as a markdown table, the worst first.

    Args:
        losses: Result of `lmkd_tf.compress.sensitivity.layer_losses`.
    """
    lines = [
        "| only this tensor quantized | kernels | int8, dB | int16, dB | bytes more at int16 |",
        "|---|---|---:|---:|---:|",
    ]
    for loss in losses:
        kernels = ", ".join(loss.weights) or "-"
        lines.append(
            f"| {loss.layer} | {kernels} | {_ratio(loss.snr_db)} | {_ratio(loss.snr_int16_db)} | "
            f"{loss.extra_bytes} |"
        )
    return "\n".join(lines) + "\n"


def exported_gains(path: Path, runtime: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the gains of a `.tflite` from a fresh state, as `Step` wants them."""
    step = StepModel(path, runtime)

    def gains(features: np.ndarray) -> np.ndarray:
        step.reset()
        return step.gains(features)

    return gains


def whole_gains(core: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the gains of the whole-utterance graph, as `Step` wants them."""

    def gains(features: np.ndarray) -> np.ndarray:
        return np.asarray(core(features[None, :, None], training=False))[0, :, 0]

    return gains


def _runtime_blame(path: Path) -> list[tuple[str, float]]:
    """Operators that the two runtimes compute differently; TFLite Micro is the golden one."""
    from lmkd_tf.export.operators import OPERATORS

    manifest = read_manifest(path)
    names = [entry["name"] for entry in manifest.operators]
    return [(name, float("nan")) for name in names if OPERATORS[name].tflite_steps]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    return "identical" if np.isinf(value) and value > 0 else f"{value:.1f}"
