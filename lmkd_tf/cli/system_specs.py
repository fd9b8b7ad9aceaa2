# SPDX-License-Identifier: Apache-2.0
"""Reads `--system` of lmkd-evaluate: which networks and folders are to be scored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmkd_tf.cli.enhance import BACKENDS, choose_backend

if TYPE_CHECKING:
    from lmkd_tf.data.pipeline import EvaluationClip
    from lmkd_tf.evaluate.systems import System

ALL_PRESETS = "presets"
_MODEL_SUFFIXES = (".keras", ".tflite")


def read_systems(specs: Sequence[str], clips: "Sequence[EvaluationClip]") -> "list[System]":
    """Opens what `--system` names.

    Args:
        specs: `[NAME=]TARGET[@HOW][,TARGET[@HOW]...]` each. A target is a preset, a .keras or
            .tflite file, or a folder of enhanced files; HOW is a back-end, or the delay of a
            folder in samples. Several targets are the seeds of one system. `presets` stands
            for every preset on every arithmetic it has. The name of a preset is that preset,
            beside a folder of that name too, which is `./NAME`; what exists as a path is that
            path, whatever characters it holds.
        clips: Clips to be scored.

    Returns:
        One system per target.

    Raises:
        ValueError: If a target cannot be used, or a name comes twice.
        FileNotFoundError: If there is no such file.
    """
    parsed = [_parse(spec) for spec in _expanded(specs)]
    names = ["noisy", *(name for name, _ in parsed)]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(
            "Every system must have a name of its own, other than noisy. "
            f"Received {', '.join(doubled)} twice. Name them: --system=NAME=TARGET."
        )
    return [
        _open(target, name, seed, clips)
        for name, targets in parsed
        for seed, target in enumerate(targets)
    ]


def first_targets(specs: Sequence[str]) -> dict[str, str]:
    """Returns name -> first target of every system that `--system` names.

    Args:
        specs: As in `read_systems`.
    """
    return {name: targets[0] for name, targets in map(_parse, _expanded(specs))}


def describe_cost(spec_target: str) -> dict[str, Any] | None:
    """Returns what a network costs, for the report; None for a folder.

    Args:
        spec_target: Target as in `read_systems`, with its back-end.

    Returns:
        `parameters`, `macs_per_hop`, `bytes`, `arena_bytes` and `note`; None where unknown.
    """
    from lmkd_tf.evaluate.cost import float_cost, quantized_cost
    from lmkd_tf.models.presets import preset_files

    target, how = _split(spec_target)
    if _is_folder(target):
        return None
    is_file = Path(target).suffix in _MODEL_SUFFIXES
    if _backend_of(target, how) == "keras":
        return float_cost(_load(target))
    return quantized_cost(target if is_file else preset_files(target)["tflite"])


def _expanded(specs: Sequence[str]) -> list[str]:
    from lmkd_tf.models.presets import preset_files, preset_names

    expanded = []
    for spec in specs:
        if spec != ALL_PRESETS:
            expanded.append(spec)
            continue
        for name in preset_names():
            expanded.append(f"{name}@keras")
            if "tflite" in preset_files(name):
                expanded.append(f"{name}@tflm")
    return expanded


def _parse(spec: str) -> tuple[str, list[str]]:
    """Returns name and targets of a system."""
    label, equals, rest = "", "", spec
    if not _exists(spec):  # a path may hold "=" itself
        label, equals, rest = spec.partition("=")
    targets_text = rest if equals else spec
    targets = [targets_text] if _exists(targets_text) else targets_text.split(",")
    return (label if equals else _default_name(targets[0])), targets


def _exists(target: str) -> bool:
    return Path(_split(target)[0]).exists()


def _split(target: str) -> tuple[str, str | None]:
    """Returns what precedes the last `@` and what follows; folders may hold that sign too."""
    from lmkd_tf.models.presets import preset_names

    folder, slash, name = target.rpartition("/")
    stem, at, how = name.rpartition("@")
    path = f"{folder}{slash}{stem}"
    if not at or (Path(target).exists() and path not in preset_names()):
        return target, None
    return path, how


def _is_folder(target: str) -> bool:
    from lmkd_tf.models.presets import preset_names

    return target not in preset_names() and Path(target).is_dir()


def _default_name(spec_target: str) -> str:
    target, how = _split(spec_target)
    if _is_folder(target):
        return Path(target).name
    stem = Path(target).stem if Path(target).suffix in _MODEL_SUFFIXES else target
    return f"{stem} ({_backend_of(target, how)})"


def _backend_of(target: str, how: str | None) -> str:
    from lmkd_tf.models.presets import preset_files

    if how is not None:
        if how not in BACKENDS:
            raise ValueError(
                f"A network runs on one of {', '.join(BACKENDS)}. "
                f"Received {target}@{how}. Write for example {target}@tflm."
            )
        return how
    if Path(target).suffix in _MODEL_SUFFIXES:
        return "keras" if Path(target).suffix == ".keras" else "tflm"
    return "tflm" if "tflite" in preset_files(target) else "keras"


def _open(spec_target: str, name: str, seed: int, clips: "Sequence[EvaluationClip]") -> "System":
    from lmkd_tf.evaluate.systems import folder_system, network_system
    from lmkd_tf.models.presets import preset_files

    target, how = _split(spec_target)
    if _is_folder(target):
        return folder_system(name, target, clips, delay=_delay_of(target, how), seed=seed)
    backend = _backend_of(target, how)
    is_file = Path(target).suffix in _MODEL_SUFFIXES
    preset, model = (None, target) if is_file else (target, None)
    make_backend = choose_backend(preset, model, backend)  # refuses what does not fit
    files = [Path(target)]
    if preset:
        files = [preset_files(preset)["weights" if backend == "keras" else "tflite"]]

    def open_network() -> Callable[[np.ndarray], np.ndarray]:
        from lmkd_tf.evaluate.streaming import StreamingEnhancer

        if backend == "keras":
            return _float_enhancer(_load(target))
        return StreamingEnhancer(make_backend()).enhance

    return network_system(name, open_network, files, backend=backend, seed=seed)


def _load(target: str) -> Any:
    from lmkd_tf.models.enhancer import load_enhancer
    from lmkd_tf.models.presets import from_preset

    is_file = Path(target).suffix in _MODEL_SUFFIXES
    return load_enhancer(target) if is_file else from_preset(target)


def _float_enhancer(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what runs a float network: hop by hop, or whole utterances if it cannot stream."""
    from lmkd_tf.evaluate.backends import keras_backend
    from lmkd_tf.evaluate.streaming import StreamingEnhancer
    from lmkd_tf.models.builder import is_streaming

    if model.architecture and is_streaming(model.architecture):
        return StreamingEnhancer(keras_backend(model)).enhance
    return lambda noisy: np.asarray(model(noisy[None], training=False))[0]


def _delay_of(target: str, how: str | None) -> int | None:
    try:
        return None if how is None else int(how)
    except ValueError as error:
        raise ValueError(
            "The delay of a folder is a whole number of samples at 16 kHz. "
            f"Received {target}@{how}. Write for example {target}@320, or leave it out."
        ) from error
