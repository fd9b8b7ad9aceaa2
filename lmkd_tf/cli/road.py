# SPDX-License-Identifier: Apache-2.0
"""The whole road in one work directory: which stage needs what, and its results."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import lmkd_tf
from lmkd_tf.cli import train_stages
from lmkd_tf.cli.training import read_history
from lmkd_tf.cli.workspace import Workspace
from lmkd_tf.config.files import atomic_path, read_json, sha256_of, write_json
from lmkd_tf.config.loader import resolve_record, to_dict
from lmkd_tf.config.schema import ExperimentConfig
from lmkd_tf.data.pipeline import EVALUATION_SEED, EvaluationClip, evaluation_set
from lmkd_tf.evaluate.backends import StepBackend
from lmkd_tf.evaluate.cost import float_cost
from lmkd_tf.evaluate.report import write_report
from lmkd_tf.evaluate.scores import score_clips
from lmkd_tf.evaluate.streaming import StreamingEnhancer
from lmkd_tf.evaluate.table import summarize
from lmkd_tf.export.manifest import read_manifest
from lmkd_tf.models.builder import ARCHITECTURES
from lmkd_tf.models.enhancer import load_enhancer
from lmkd_tf.models.presets import preset_files
from lmkd_tf.models.taps import tap_model

# stage -> (stages whose results it reads, parts of the configuration it depends on)
_NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "teacher": ((), ("data", "loss", "teacher", "teacher_preset", "teacher_training")),
    "student": (
        ("teacher",),
        ("data", "loss", "student", "student_start", "distill", "distillation_training"),
    ),
    "pruned": (("teacher", "student"), ("data", "loss", "student", "distill", "compress")),
    "quantized": (
        ("teacher", "student", "pruned"),
        ("data", "loss", "student", "distill", "compress"),
    ),
    "export": (("pruned", "quantized"), ("data", "student", "compress")),
    "scores": (("teacher", "student", "pruned", "export"), ("data", "student")),
}
STAGES = tuple(_NEEDS)
# Beside the road: one network on its own.
_NEEDS["network"] = (
    (),
    ("data", "loss", "network", "network_start", "network_start_is_partial", "network_training"),
)
COMMANDS = {
    "network": "lmkd-train",
    "teacher": "lmkd-train",
    "student": "lmkd-distill",
    "pruned": "lmkd-compress",
    "quantized": "lmkd-compress",
    "export": "lmkd-export",
}
# Settings that came later, and the value with which everything is as before: left out of a
# stage's record then, so that older work directories stay valid.
_LATER_SETTINGS = {
    **{"ema_momentum": 0.0, "num_scored_clips": 0, "monitor": "", "patience": 0},
    "metric_weight": 0.0,
    **{"speed_probability": 0.0, "speech_tilt_probability": 0.0, "codec_probability": 0.0},
    "room_tone_probability": 0.0,
    "noise_speeds": (1.0,),
    "network_start_is_partial": False,
    "magnitude_asymmetry": 0.0,
    "codecs": ("ulaw", "vorbis"),
    **dict.fromkeys(("bands_per_position", "encoder_channels", "squeeze_channels")),
    **dict.fromkeys(("bottleneck_channels", "bottleneck_dilations", "recurrent_channels")),
}
_NUM_SHOWN_CLIPS = 6


@dataclass(frozen=True)
class Listener:
    """Where a stage reports to.

    Args:
        callbacks: Keras callbacks for `fit`.
        on_progress: Called with (done, total) by stages that do not train.
    """

    callbacks: tuple[Any, ...] = ()
    on_progress: Any = None


class Road:
    """Runs the stages of one configuration on one data folder.

    Args:
        config: Resolved configuration.
        workdir: Work directory; one folder per stage.
        data_folder: Recordings (see `lmkd_tf.data.folder.read_folder`).
        is_distilling: Whether teacher and student have to fit each other.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        workdir: Path,
        data_folder: Path,
        *,
        is_distilling: bool = True,
    ):
        self.config = config
        self.workspace = Workspace(workdir)
        self.audio = train_stages.Audio(data_folder, config)
        if is_distilling:
            check_distillation(config)

    def is_finished(self, stage: str) -> bool:
        """Tells whether a stage need not run."""
        return self.workspace.is_finished(stage, self._settings(stage), _NEEDS[stage][0])

    def run(self, stage: str, listener: Listener | None = None) -> Path:
        """Runs a stage unless it is finished.

        Args:
            stage: Name in `STAGES`, or `"network"`.
            listener: Where to report progress.

        Returns:
            Folder with the results of the stage.

        Raises:
            FileNotFoundError: If a stage before it has not finished.
            ValueError: If a stage before it was run with other settings or recordings.
        """
        for name in _NEEDS[stage][0]:
            self.workspace.require(name, COMMANDS[name])
            if not self.is_finished(name):
                raise ValueError(
                    "A stage builds on stages with the same settings and recordings. "
                    f"Received {self.workspace.folder(name)}, made with others. "
                    f"Run {COMMANDS[name]} again or give the settings it was run with."
                )
        listener = listener or Listener()
        make = getattr(self, f"_make_{stage}")

        def make_with_record(folder: Path) -> None:
            make(folder, listener)
            corpus, backend = _describe_corpus(self.audio.corpus), keras.backend.backend()
            record = {**resolve_record(self.config), "backend": backend, "corpus": corpus}
            write_json(folder / "record.json", record)

        return self.workspace.run(stage, self._settings(stage), _NEEDS[stage][0], make_with_record)

    def write_report(self) -> Path:
        """Writes `report.html` and `results.json` from the finished stages."""
        scores = self.workspace.require("scores", "lmkd-quickstart")
        rows, models = read_json(scores / "rows.json"), self._describe_models()
        corpus = self.audio.corpus
        record = resolve_record(self.config)
        results = {"summary": summarize(rows), "models": models, "rows": rows, **record}
        write_json(self.workspace.root / "results.json", results)
        path = self.workspace.root / "report.html"
        write_report(
            path,
            title=f"{self.config.student.architecture}: from Keras to TFLite Micro",
            description=(
                "A causal student (32 ms window, 16 ms hop, no look-ahead) distilled by latent "
                "mixup, a reconstruction of the published method, then pruned, quantized to int8 "
                "and run by TFLite Micro. " + corpus.description
            ),
            rows=rows,
            history={n: _losses(self.workspace.folder(n)) for n in STAGES[:4]},
            clips=_read_clips(scores / "clips.npz"),
            models=models,
            details={
                **record["config"],
                "versions": record["versions"],
                "run": {k: record[k] for k in ("git_commit", "seed", "machine", "python")},
            },
            is_synthetic=corpus.is_synthetic,
        )
        return path

    def evaluation_clips(self) -> list[EvaluationClip]:
        """Returns the fixed noisy utterances of the `test` split."""
        data = self.config.data
        return evaluation_set(
            self.audio.store("speech", "test"),
            self.audio.store("noise", "test"),
            snrs_db=data.evaluation_snrs_db,
            count=data.num_evaluation_clips,
            seed=EVALUATION_SEED,
        )

    def systems(self) -> dict[str, Any]:
        """Returns system name -> function from noisy `(N,)` to enhanced `(N,)`."""
        student = self.config.student.architecture
        exported = self.workspace.folder("export") / f"{student}_int8.tflite"
        int8 = StreamingEnhancer(StepBackend(exported, "tflm"))
        return {
            "noisy": lambda noisy: noisy,
            "teacher": _whole(self._load("teacher", "teacher.keras")),
            f"{student} float": _whole(self._load("student", "student.keras")),
            f"{student} pruned": _whole(self._load("pruned", "pruned.keras")),
            f"{student} int8 (TFLM)": int8.enhance,
        }

    def _settings(self, stage: str) -> dict[str, Any]:
        whole = asdict(self.config)
        parts = {name: whole[name] for name in ("seed", "stft", *_NEEDS[stage][1])}
        if stage != "scores":
            parts["data"] = {k: v for k, v in parts["data"].items() if "evaluation" not in k}
        if "compress" in parts and self.config.compress.num_bands is None:  # came later, as well
            parts["compress"].pop("num_bands")
        if stage in ("pruned", "quantized"):
            parts["compress"].pop("num_calibration_frames")
        if stage == "pruned":
            parts["compress"].pop("quantization")
        if stage == "teacher" and self.config.teacher_preset:
            parts["teacher_preset"] = sha256_of(preset_files(self.config.teacher_preset)["weights"])
        for name in {"student_start", "network_start"} & parts.keys():
            start = parts.pop(name)
            self._check_start(stage, name, start)
            parts |= {name: sha256_of(start)} if start else {}
        parts = _without_later(parts)
        version = lmkd_tf.__version__
        return {**parts, "corpus": digest_of(self.audio.corpus), "version": version}

    def _check_start(self, stage: str, name: str, start: str) -> None:
        """Refuses a file that the stage itself would overwrite."""
        folder = self.workspace.folder(stage)
        if start and Path(start).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"`{name}` must lie outside the folder of the stage that starts from it. "
                f"Received {start}, which is in {folder}. Copy it, or choose another --workdir."
            )

    def _load(self, stage: str, name: str) -> Any:
        return load_enhancer(self.workspace.folder(stage) / name)

    def _make_teacher(self, folder: Path, listener: Listener) -> None:
        train_stages.train_teacher(self.config, self.audio, folder, list(listener.callbacks))

    def _make_network(self, folder: Path, listener: Listener) -> None:
        train_stages.train_network(self.config, self.audio, folder, list(listener.callbacks))

    def _make_student(self, folder: Path, listener: Listener) -> None:
        teacher = self._load("teacher", "teacher.keras")
        callbacks = list(listener.callbacks)
        train_stages.distill_student(self.config, self.audio, folder, teacher, callbacks)

    # The stages below need TensorFlow, those above do not.

    def _inputs(self, student_stage: str, student_file: str) -> Any:
        from lmkd_tf.cli import stages

        return stages.Inputs(
            teacher=self._load("teacher", "teacher.keras"),
            student=self._load(student_stage, student_file),
            projectors=self.workspace.folder("student") / "projectors.npz",
        )

    def _make_pruned(self, folder: Path, listener: Listener) -> None:
        from lmkd_tf.cli import stages

        inputs = self._inputs("student", "student.keras")
        callbacks = list(listener.callbacks)
        stages.prune_student(self.config, self.audio, folder, inputs, callbacks)

    def _make_quantized(self, folder: Path, listener: Listener) -> None:
        from lmkd_tf.cli import stages

        inputs = self._inputs("pruned", "pruned.keras")
        callbacks = list(listener.callbacks)
        stages.quantize_student(self.config, self.audio, folder, inputs, callbacks)

    def _make_export(self, folder: Path, listener: Listener) -> None:
        from lmkd_tf.cli import stages

        del listener
        stages.export_student(self.config, self.audio, folder, self.workspace.root)

    def _make_scores(self, folder: Path, listener: Listener) -> None:
        clips = self.evaluation_clips()
        shown = clips[:: max(1, len(clips) // _NUM_SHOWN_CLIPS)][:_NUM_SHOWN_CLIPS]
        rows, sounds = [], {clip.name: {} for clip in shown}
        systems = self.systems()
        shown_systems = ("noisy", "teacher", list(systems)[-1])
        for index, (name, enhance) in enumerate(systems.items()):
            report = _shifted(listener.on_progress, index, len(systems))
            rows += score_clips(name, clips, enhance, on_progress=report)
            if name in shown_systems:
                for clip in shown:
                    sounds[clip.name][name] = enhance(clip.noisy)
        _write_clips(folder / "clips.npz", shown, sounds)
        write_json(folder / "rows.json", rows)

    def _describe_models(self) -> list[dict[str, Any]]:
        student = self.config.student.architecture
        entries = []
        preset = self.config.teacher_preset
        teacher_note = f"preset {preset!r}, loaded" if preset else "trained in this run"
        for name, stage, file, note in (
            ("teacher", "teacher", "teacher.keras", f"float32, {teacher_note}"),
            (f"{student} float", "student", "student.keras", "float32, distilled"),
            (f"{student} pruned", "pruned", "pruned.keras", "float32, distilled and pruned"),
        ):
            cost = float_cost(self._load(stage, file))
            entries.append({**cost, "name": name, "note": f"{note}; bytes of the weights alone"})
        notes = {
            "int16": "TFLite Micro, 16-bit activations, post-training from pruned, not scored",
            "int8": "TFLite Micro, 8-bit, trained with fake quantization; C arrays written",
        }
        for dtype in ("int16", "int8"):
            manifest = read_manifest(self.workspace.folder("export") / f"{student}_{dtype}.tflite")
            entries.append(
                {
                    "name": f"{student} {dtype}",
                    "parameters": manifest.parameters,
                    "macs_per_hop": manifest.macs_per_hop,
                    "bytes": manifest.model["bytes"],
                    "arena_bytes": manifest.arena_bytes,
                    "note": notes[dtype],
                }
            )
        return entries


def check_distillation(config: ExperimentConfig) -> None:
    """Refuses taps and objectives that do not work out before anything is trained.

    Raises:
        ValueError: If a layer does not exist, naming network and tap, or the settings of
            the objective are wrong.
    """
    networks = {}
    for role, column in (("teacher", 1), ("student", 2)):
        core = networks[role] = train_stages.build_network(getattr(config, role), config)
        try:
            tap_model(core, [tap[column] for tap in config.distill.taps])
        except ValueError as error:
            raise ValueError(
                f"`distill.taps` must name layers of the {role}, input to output. "
                f"Received {config.distill.taps}. Correct the tap ({error})."
            ) from error
    train_stages.build_distiller(config, **networks)


def _without_later(part: Any) -> Any:
    """Returns settings without those of `_LATER_SETTINGS` that change nothing."""
    if not isinstance(part, dict):
        return part
    return {
        name: _without_later(value)
        for name, value in part.items()
        if name not in _LATER_SETTINGS or value != _LATER_SETTINGS[name]
    }


def _losses(folder: Path) -> dict[str, list[float]]:
    """Returns the losses per epoch of a stage, without terms that are switched off."""
    history = read_history(folder)
    return {name: values for name, values in history.items() if "loss" in name and any(values)}


def _whole(model: Any) -> Any:
    def enhance(noisy: np.ndarray) -> np.ndarray:
        return np.asarray(model(noisy[None], training=False))[0]

    return enhance


def _describe_corpus(corpus: Any) -> dict[str, Any]:
    """Returns what a training heard: name and listed hours of the split `train`."""
    hours = {
        f"train_{kind}_hours": sum(c.seconds for c in clips if c.split == "train") / 3600.0
        for kind, clips in (("speech", corpus.speech), ("noise", corpus.noise))
    }
    rounded = {name: round(value, 2) for name, value in hours.items()}
    return {"name": corpus.name, "is_synthetic": corpus.is_synthetic, **rounded}


def digest_of(corpus: Any) -> str:
    """Identifies recordings by manifest entry and file size, without reading them.

    A recording changed in place that keeps its size is not noticed; `docs/training.md` says so.
    """
    entries = []
    for clip in (*corpus.speech, *corpus.noise, *corpus.responses):
        num_bytes = clip.path.stat().st_size if clip.path.is_file() else None
        facts = (clip.seconds, clip.split, clip.group, clip.category, clip.treble_lift_db)
        # Only where there is something to add, so that older work directories stay valid.
        more = [clip.minus.parts[-3:]] if clip.minus else []
        more += [] if clip.record is None else [clip.record]
        entries.append((*clip.path.parts[-3:], num_bytes, *facts, *more))
    return hashlib.sha256(repr(entries).encode()).hexdigest()


def settings_of(config: ExperimentConfig, corpus: Any, parts: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a kept result of a benchmark depends on, equal to what JSON reads back.

    Args:
        config: Resolved configuration.
        corpus: Recordings.
        parts: Parts of the configuration that matter beside its seed and its frame.
    """
    settings = {part: to_dict(getattr(config, part)) for part in parts}
    frame = to_dict(config.stft)
    return {**settings, "seed": config.seed, "stft": frame, "corpus": digest_of(corpus)}


def network_settings(architecture: str, size: dict[str, Any]) -> dict[str, Any]:
    """Returns a network with the whole of its size, equal to what JSON reads back.

    Args:
        architecture: Name in `lmkd_tf.models.ARCHITECTURES`.
        size: Sizes other than the architecture's own.
    """
    whole = {**ARCHITECTURES[architecture][1], **size}
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in whole.items()}
    return {"architecture": architecture, "size": plain}


def _shifted(on_progress: Any, index: int, count: int) -> Any:
    if on_progress is None:
        return None
    return lambda done, total: on_progress(index * total + done, count * total)


def _write_clips(path: Path, shown: list[EvaluationClip], sounds: dict) -> None:
    arrays = {}
    for clip in shown:
        for label, signal in {**sounds[clip.name], "clean": clip.speech}.items():
            arrays[f"{clip.name}|{clip.snr_db}|{label}"] = np.asarray(signal, np.float32)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _read_clips(path: Path) -> list[dict[str, Any]]:
    clips: dict[str, dict[str, Any]] = {}
    with np.load(path) as stored:
        for key in stored.files:
            name, snr_db, label = key.split("|")
            entry = {"name": name, "snr_db": float(snr_db), "sample_rate_hz": 16000, "signals": {}}
            clips.setdefault(name, entry)["signals"][label] = stored[key]
    return list(clips.values())
