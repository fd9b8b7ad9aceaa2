# SPDX-License-Identifier: Apache-2.0
"""Trained networks that ship with the package."""

import importlib.resources
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.config.files import read_json, sha256_of
from lmkd_tf.config.schema import StftConfig


def preset_names() -> list[str]:
    """Returns the names of the networks that ship with the package."""
    return sorted(
        path.name.removesuffix(".json")
        for path in _folder().glob("*.json")
        if not path.name.endswith(".manifest.json")
    )


def preset_files(name: str) -> dict[str, Path]:
    """Returns the files of a preset.

    Args:
        name: Name of the preset.

    Returns:
        `record` (training record), `weights` (float16) and, for a student,
        `tflite` (int8 step graph) with its `manifest`.

    Raises:
        ValueError: If there is no such preset.
    """
    if name not in preset_names():
        raise ValueError(
            f"A preset must ship with the package. Received {name!r}. "
            f"Use one of: {', '.join(preset_names()) or '(none installed)'}."
        )
    folder = _folder()
    files = {"record": folder / f"{name}.json", "weights": folder / f"{name}.npz"}
    if (folder / f"{name}_int8.tflite").is_file():
        files["tflite"] = folder / f"{name}_int8.tflite"
        files["manifest"] = folder / f"{name}_int8.manifest.json"
    return files


def from_preset(name: str) -> Any:
    """Loads a trained float network.

    Args:
        name: Name of the preset, such as `"nano"` or `"base"`.

    Returns:
        `SpeechEnhancer` from noisy `(B, N)` to enhanced `(B, N)`.

    Raises:
        ValueError: If there is no such preset or its file does not fit.
    """
    from lmkd_tf.models.builder import build

    files = preset_files(name)
    record = read_json(files["record"])
    if sha256_of(files["weights"]) != record["weights_sha256"]:
        raise ValueError(
            "The weights of a preset must be those of its record. "
            f"Received {files['weights']}, which is damaged. Install the package again."
        )
    model = build(record["architecture"], stft=StftConfig(**record["stft"]), **record["size"])
    with np.load(files["weights"]) as stored:
        values = [stored[str(index)].astype(np.float32) for index in range(len(stored.files))]
    model.core.set_weights(values)
    return model


def _folder() -> Path:
    return Path(str(importlib.resources.files("lmkd_tf"))) / "presets"
