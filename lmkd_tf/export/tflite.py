# SPDX-License-Identifier: Apache-2.0
"""From trained weights to a checked one-hop `.tflite` with its manifest."""

import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.config.files import atomic_path, sha256_of, write_json
from lmkd_tf.config.loader import git_commit, package_versions
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.features import FEATURE_CENTER_DB, FEATURE_FLOOR_DB, FEATURE_SCALE_DB
from lmkd_tf.export.arena import measure_arena_bytes
from lmkd_tf.export.flatbuffer import Graph, Tensor, read_graph
from lmkd_tf.export.manifest import Manifest, write_manifest
from lmkd_tf.export.op_check import check_graph

_CONVERSION_SECONDS = 600


def export_int8(
    output: str | Path,
    *,
    architecture: str,
    size: dict[str, Any],
    weights: str | Path,
    stft: StftConfig,
) -> Manifest:
    """Exports a quantization-aware student as a full-int8 step graph.

    Args:
        output: `.tflite` file to write, its manifest goes beside it.
        architecture: Name in `lmkd_tf.models.ARCHITECTURES`.
        size: Size arguments of the network.
        weights: `.weights.h5` of the core returned by `quantize`.
        stft: Frame of the transform.

    Returns:
        Manifest of the exported file.

    Raises:
        RuntimeError: If the converter fails or crashes.
        ValueError: If the graph is not one that a microcontroller runs exactly.
    """
    request = {"dtype": "int8", "weights": str(Path(weights).resolve())}
    return _export(Path(output), architecture, size, request, stft)


def export_int16(
    output: str | Path,
    *,
    architecture: str,
    size: dict[str, Any],
    core: Any,
    calibration: np.ndarray,
    stft: StftConfig,
) -> Manifest:
    """Exports a float student with int8 weights and int16 activations.

    Args:
        output: `.tflite` file to write, its manifest goes beside it.
        architecture: Name in `lmkd_tf.models.ARCHITECTURES`.
        size: Size arguments of the network.
        core: Trained core in float.
        calibration: Features of consecutive real frames, float32, `(T, E)`.
        stft: Frame of the transform.

    Returns:
        Manifest of the exported file.

    Raises:
        RuntimeError: If the converter fails or crashes.
        ValueError: If the graph is not one that a microcontroller runs exactly.
    """
    with tempfile.TemporaryDirectory() as scratch:
        weights, frames = Path(scratch) / "core.npz", Path(scratch) / "frames.npy"
        np.savez(weights, **{str(i): value for i, value in enumerate(core.get_weights())})
        np.save(frames, calibration)
        request = {"dtype": "int16", "weights": str(weights), "calibration": str(frames)}
        return _export(Path(output), architecture, size, request, stft)


def _export(
    output: Path, architecture: str, size: dict, request: dict, stft: StftConfig
) -> Manifest:
    request = {**request, "architecture": architecture, "size": size}
    created_from = sha256_of(request["weights"])
    with atomic_path(output) as temporary:
        temporary.write_bytes(_convert_in_child(request))
        graph = read_graph(temporary)
        check_graph(graph, request["dtype"])
        manifest = _describe(output, temporary, graph, stft, created_from)
    write_manifest(output, manifest)
    return manifest


def _convert_in_child(request: dict[str, Any]) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        request_path, converted = Path(scratch) / "request.json", Path(scratch) / "graph.tflite"
        write_json(request_path, {**request, "output": str(converted)})
        command = [sys.executable, "-m", "lmkd_tf.export.convert", str(request_path)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CONVERSION_SECONDS, check=False
        )
        if done.returncode == 0 and converted.is_file():
            return converted.read_bytes()
    tail = "\n".join(done.stderr.strip().splitlines()[-8:])
    raise RuntimeError(
        "The converter must finish with status 0. "
        f"Received status {done.returncode} (a negative one is a crash):\n{tail}\n"
        "Build the student from the layers in docs/streaming.md."
    )


def _describe(
    output: Path, written: Path, graph: Graph, stft: StftConfig, created_from: str
) -> Manifest:
    by_name = {tensor.name: tensor for tensor in graph.inputs}
    states = [tensor for tensor in graph.inputs if tensor.name != "features"]
    versions = package_versions()
    return Manifest(
        name=output.stem,
        model={
            "file": output.name,
            "bytes": written.stat().st_size,
            "sha256": sha256_of(written),
            "dtype": by_name["features"].dtype,
        },
        stft=asdict(stft),
        num_bands=by_name["features"].shape[-1],
        num_bins=stft.num_bins,
        features={
            "floor_db": FEATURE_FLOOR_DB,
            "center_db": FEATURE_CENTER_DB,
            "scale_db": FEATURE_SCALE_DB,
        },
        parameters=graph.num_parameters,
        macs_per_hop=graph.macs,
        tensors={
            "inputs": [_tensor_record(tensor) for tensor in graph.inputs],
            "outputs": [_tensor_record(tensor) for tensor in graph.outputs],
        },
        states=[_state_record(tensor) for tensor in states],
        operators=[{"name": n, "count": c} for n, c in graph.operator_counts.items()],
        arena_bytes=measure_arena_bytes(written),
        runtime={"tflite_micro": versions.get("tflite-micro")},
        versions=versions,
        git_commit=git_commit(),
        created_from=created_from,
    )


def _tensor_record(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }


def _state_record(tensor: Tensor) -> dict[str, Any]:
    num_bytes = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
    return {"input": tensor.name, "output": f"next_{tensor.name}", "bytes": num_bytes}
