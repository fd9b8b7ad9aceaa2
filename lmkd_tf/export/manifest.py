# SPDX-License-Identifier: Apache-2.0
"""The record beside a `.tflite` file: everything firmware needs to know about it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmkd_tf.config.files import read_json, sha256_of, write_json
from lmkd_tf.config.schema import StftConfig

# 1: before 2026-11, without `version` and the entries from `network` on; still read.
MANIFEST_VERSION = 2


@dataclass(frozen=True)
class Manifest:
    """Facts about one exported student; see `write_manifest` for their source.

    Args:
        name: Name of the student.
        model: `file`, `bytes`, `sha256`, `dtype` of the activations.
        stft: Fields of `StftConfig`, in samples and Hz.
        num_bands: Bands E that features and mask have.
        num_bins: Bins F of the spectrum.
        features: `floor_db`, `center_db`, `scale_db` of the feature law.
        parameters: Weights and biases in the file.
        macs_per_hop: Multiply-accumulate operations per hop.
        tensors: `inputs` and `outputs`: name, shape, dtype, scale, zero point.
        states: `input`, `output`, `bytes` of every state.
        operators: `name` and `count` of every operator.
        arena_bytes: Arena to reserve for TFLM: what it needs on the host, an upper bound for
            Cortex-M, and a margin.
        runtime: Version of TFLM for which golden vectors are valid.
        versions: Versions of the packages that made the file.
        git_commit: Commit of this project, or None.
        created_from: SHA-256 of the trained weights.
        network: `architecture` and `size` of the builder.
        calibration: Frames, seed, files and SHA-256 of what post-training ranges were taken
            from; empty after quantization-aware training.
        arena: Smallest arena and what fills it, see `lmkd_tf.export.arena.Arena`.
        tflite_steps: Largest difference of TFLite's reference kernels from TFLM at one operator,
            in steps; 0 if both give the same bits.
        has_c_kernels: Whether the generated C can run it: its activations are int8.
        version: Version of this record.
    """

    name: str
    model: dict[str, Any]
    stft: dict[str, int]
    num_bands: int
    num_bins: int
    features: dict[str, float]
    parameters: int
    macs_per_hop: int
    tensors: dict[str, list[dict[str, Any]]]
    states: list[dict[str, Any]]
    operators: list[dict[str, Any]]
    arena_bytes: int
    runtime: dict[str, str | None]
    versions: dict[str, str | None]
    git_commit: str | None
    created_from: str
    network: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    arena: dict[str, Any] = field(default_factory=dict)
    tflite_steps: int = 0
    has_c_kernels: bool = True
    version: int = 1

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Input tensors in the order of the interpreter."""
        return self.tensors["inputs"]

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """Output tensors in the order of the interpreter."""
        return self.tensors["outputs"]

    @property
    def stft_config(self) -> StftConfig:
        """Frame of the transform."""
        return StftConfig(**self.stft)


def manifest_path(model_path: str | Path) -> Path:
    """Returns where the manifest of a `.tflite` file lies."""
    path = Path(model_path)
    return path.with_name(f"{path.stem}.manifest.json")


def write_manifest(model_path: str | Path, manifest: Manifest) -> Path:
    """Writes the manifest beside its model and returns its path."""
    path = manifest_path(model_path)
    write_json(path, asdict(manifest))
    return path


def read_manifest(model_path: str | Path) -> Manifest:
    """Reads the manifest of a `.tflite` file and checks that it belongs to it.

    Raises:
        FileNotFoundError: If the model or its manifest is missing.
        ValueError: If the manifest is damaged or belongs to another file.
    """
    path = Path(model_path)
    if not path.is_file():
        raise FileNotFoundError(
            f"A .tflite model is needed. Received {path}, which does not exist. "
            "Check the path or run lmkd-export first."
        )
    record = read_json(manifest_path(path))
    if isinstance(record, dict) and _version(record) > MANIFEST_VERSION:
        raise ValueError(
            f"A manifest must be of version {MANIFEST_VERSION} or older. "
            f"Received {manifest_path(path)} of version {record['version']}. "
            "Install a newer lmkd-tf."
        )
    try:
        manifest = Manifest(**record)
        expected = str(manifest.model["sha256"])
    except (TypeError, KeyError) as error:
        raise ValueError(
            "A manifest must have the entries of this version of the package. "
            f"Received {manifest_path(path)} ({error}). Export the student again."
        ) from error
    digest = sha256_of(path)
    if expected != digest:
        raise ValueError(
            "A model and its manifest must belong together. "
            f"Received {path} with SHA-256 {digest[:12]}..., the manifest says "
            f"{expected[:12]}.... Export the student again."
        )
    return manifest


def _version(record: dict[str, Any]) -> int:
    version = record.get("version", 1)
    return version if isinstance(version, int) else 1
