# SPDX-License-Identifier: Apache-2.0
"""From trained weights to a checked one-hop `.tflite` with its manifest."""

import json
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
from lmkd_tf.export.arena import measure_arena
from lmkd_tf.export.calibration import Calibration
from lmkd_tf.export.flatbuffer import Graph, Tensor, read_graph
from lmkd_tf.export.manifest import MANIFEST_VERSION, Manifest, write_manifest
from lmkd_tf.export.metadata import embed_metadata
from lmkd_tf.export.op_check import check_graph
from lmkd_tf.export.operators import tflite_steps
from lmkd_tf.models.builder import build_core, whole_size
from lmkd_tf.models.enhancer import SpeechEnhancer

_CONVERSION_SECONDS = 1800  # half a minute on an idle machine
DTYPES = ("int8", "int16")
# Of the configuration of a layer: what changes its output.
_SETTINGS = (
    "activation", "cropping", "dilation_rate", "epsilon", "filters", "kernel_size", "max_value",
    "negative_slope", "padding", "rate", "strides", "target_shape", "threshold", "units",
    "use_bias",
)  # fmt: skip


def to_tflite(
    student: Any,
    output: str | Path,
    *,
    architecture: str,
    size: dict[str, Any],
    stft: StftConfig,
    dtype: str = "int8",
    calibration: Calibration | None = None,
) -> Manifest:
    """Exports a student as a step graph: static shapes, batch 1, named state in and out.

    The same student and calibration give the same bytes.

    Args:
        student: Path of the `.weights.h5` of the core that `quantize` returned and training
            went through, or a float core, or the `SpeechEnhancer` around it, to be quantized after
            training.
        output: `.tflite` file to write, its manifest goes beside it.
        architecture: Name in `lmkd_tf.models.ARCHITECTURES`.
        size: Size arguments of the network.
        stft: Frame of the transform.
        dtype: Type of the activations, `"int8"` or `"int16"`; weights are int8.
        calibration: Real frames for a float core; None for a quantization-aware one, whose
            ranges were trained.

    Returns:
        Manifest of the exported file.

    Raises:
        FileNotFoundError: If there is no file of weights.
        RuntimeError: If the converter fails or crashes.
        ValueError: If student, type and calibration do not fit, the student is not of that
            architecture and size, a weight is not finite, or the graph is not one that a
            microcontroller runs exactly.
    """
    student = student.core if isinstance(student, SpeechEnhancer) else student
    _check_request(student, dtype, calibration)
    request = {"dtype": dtype, "architecture": architecture, "size": size}
    with tempfile.TemporaryDirectory() as scratch:
        if calibration is None:
            request |= {"ranges": "trained", "weights": str(Path(student).resolve())}
        else:
            calibration.check_bands(int(student.input_shape[-1]))
            check_core(student, architecture, size)
            weights, frames = Path(scratch) / "core.npz", Path(scratch) / "frames.npy"
            write_core(student, weights)
            np.save(frames, calibration.features.astype(np.float32))
            request |= {"ranges": "calibrated", "weights": str(weights)}
            request |= {"calibration": str(frames)}
        record = calibration.record if calibration else {}
        return _export(Path(output), request, stft, record)


def check_core(core: Any, architecture: str, size: dict[str, Any]) -> None:
    """Refuses a core that is not what the builder makes: its weights alone might fit.

    Args:
        core: Core of either namespace.
        architecture: Name in `lmkd_tf.models.ARCHITECTURES`.
        size: Size arguments of the network.

    Raises:
        ValueError: If a layer is missing, added or set up otherwise, naming it.
    """
    found, wanted = (_layer_settings(c) for c in (core, build_core(architecture, **size)))
    missing = sorted(found.keys() ^ wanted.keys())
    other = missing or [name for name in wanted if _differ(found[name], wanted[name])]
    if other:
        name = other[0]
        raise ValueError(
            f"A core must be what build_core({architecture!r}, ...) makes with `size`. "
            f"Received one whose layer {name!r} is {found.get(name)} instead of "
            f"{wanted.get(name)} with {size}. Pass the architecture and size it was built with."
        )


def _layer_settings(core: Any) -> dict[str, Any]:
    """What the layers compute, by name, and the same in both namespaces."""
    settings = {}
    for layer in core.layers:
        config = layer.get_config()
        own = {name: config[name] for name in _SETTINGS if name in config}
        settings[layer.name] = json.loads(
            json.dumps({"class": type(layer).__name__, **own}, default=float)
        )
    return settings


def _differ(first: dict[str, Any], second: dict[str, Any]) -> bool:
    # The two namespaces do not write the same entries.
    return any(first[name] != second[name] for name in first.keys() & second.keys())


def write_core(core: Any, path: Path) -> None:
    """Writes the weights of a float core for the converter's process.

    Args:
        core: Core of either namespace.
        path: `.npz` file to write.

    Raises:
        ValueError: If a weight is not finite.
    """
    values = core.get_weights()
    for variable, value in zip(core.weights, values, strict=True):
        if not np.isfinite(value).all():
            raise ValueError(
                "Every weight of a student must be finite. "
                f"Received NaN or infinity in {getattr(variable, 'path', variable.name)}. "
                "Train it again from an earlier checkpoint."
            )
    np.savez(path, **{str(index): value for index, value in enumerate(values)})


def _check_request(student: Any, dtype: str, calibration: Calibration | None) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {DTYPES}. Received {dtype!r}. Use 'int8'.")
    is_file = isinstance(student, str | Path)
    if is_file and dtype != "int8":
        raise ValueError(
            "A quantization-aware student has the ranges of int8. "
            f"Received the type {dtype!r}. Export the float core with a calibration instead."
        )
    if is_file == (calibration is not None):
        raise ValueError(
            "A float core needs a calibration and a quantization-aware student has its own. "
            f"Received {type(student).__name__} with calibration={calibration is not None}. "
            "Pass the .weights.h5 of quantization-aware training, or a core and real frames."
        )
    if is_file and not Path(student).is_file():
        raise FileNotFoundError(
            f"Trained weights are needed. Received {student}, which does not exist. "
            "Check the path or run lmkd-compress first."
        )


def _export(
    output: Path, request: dict[str, Any], stft: StftConfig, calibration: dict[str, Any]
) -> Manifest:
    # As JSON has it, so that a manifest read back equals the one that was returned.
    size = json.loads(json.dumps(whole_size(request["architecture"], **request["size"])))
    network = {"architecture": request["architecture"], "size": size}
    facts = {
        "network": network,
        "calibration": calibration,
        "created_from": sha256_of(request["weights"]),
        "dtype": request["dtype"],
    }
    with atomic_path(output) as temporary:
        temporary.write_bytes(convert_in_child(request))
        graph = read_graph(temporary)
        check_graph(graph, request["dtype"])
        content = embed_metadata(temporary.read_bytes(), _metadata(output, graph, stft, facts))
        temporary.write_bytes(content)
        manifest = _describe(output, temporary, graph, stft, facts)
    write_manifest(output, manifest)
    return manifest


def convert_in_child(request: dict[str, Any]) -> bytes:
    """Runs the converter in a process of its own, because some graphs crash it.

    Args:
        request: See `lmkd_tf.export.convert.main`; `output` is added here.

    Returns:
        The converted graph.

    Raises:
        RuntimeError: If the converter fails, crashes or does not end.
    """
    with tempfile.TemporaryDirectory() as scratch:
        request_path, converted = Path(scratch) / "request.json", Path(scratch) / "graph.tflite"
        write_json(request_path, {**request, "output": str(converted)})
        command = [sys.executable, "-m", "lmkd_tf.export.convert", str(request_path)]
        done = _finished(command)
        if done.returncode == 0 and converted.is_file():
            return converted.read_bytes()
    tail = "\n".join(done.stderr.strip().splitlines()[-8:])
    raise RuntimeError(
        "The converter must finish with status 0. "
        f"Received status {done.returncode} (a negative one is a crash):\n{tail}\n"
        "Build the student from the layers in docs/streaming.md."
    )


def _finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_CONVERSION_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(
            f"The converter must finish within {_CONVERSION_SECONDS} s. "
            "Received no result by then, so it was ended. "
            "Try again on an idle machine, or build a smaller student."
        ) from error


def _metadata(
    output: Path, graph: Graph, stft: StftConfig, facts: dict[str, Any]
) -> dict[str, Any]:
    """What the file says about itself; nothing in it depends on the day or the machine."""
    return {
        "name": output.stem,
        "created_from": facts["created_from"],
        "network": facts["network"],
        "stft": asdict(stft),
        "num_bands": _features_of(graph).shape[-1],
        "features": _feature_law(),
        "states": [_state_record(tensor) for tensor in _states_of(graph)],
        "calibration": facts["calibration"].get("sha256"),
    }


def _describe(
    output: Path, written: Path, graph: Graph, stft: StftConfig, facts: dict[str, Any]
) -> Manifest:
    versions, arena = package_versions(), measure_arena(written)
    return Manifest(
        name=output.stem,
        model={
            "file": output.name,
            "bytes": written.stat().st_size,
            "sha256": sha256_of(written),
            "dtype": facts["dtype"],
        },
        stft=asdict(stft),
        num_bands=_features_of(graph).shape[-1],
        num_bins=stft.num_bins,
        features=_feature_law(),
        parameters=graph.num_parameters,
        macs_per_hop=graph.macs,
        tensors={
            "inputs": [_tensor_record(tensor) for tensor in graph.inputs],
            "outputs": [_tensor_record(tensor) for tensor in graph.outputs],
        },
        states=[_state_record(tensor) for tensor in _states_of(graph)],
        operators=[{"name": n, "count": c} for n, c in graph.operator_counts.items()],
        arena_bytes=arena.num_bytes,
        runtime={"tflite_micro": versions.get("tflite-micro")},
        versions=versions,
        git_commit=git_commit(),
        created_from=facts["created_from"],
        network=facts["network"],
        calibration=facts["calibration"],
        arena=asdict(arena),
        tflite_steps=tflite_steps(graph.operators, facts["dtype"]),
        has_c_kernels=facts["dtype"] == "int8",
        version=MANIFEST_VERSION,
    )


def _features_of(graph: Graph) -> Tensor:
    found = [tensor for tensor in graph.inputs if tensor.name == "features"]
    if not found:
        raise ValueError(
            "A step graph must have an input 'features'. "
            f"Received inputs {[tensor.name for tensor in graph.inputs]}. "
            "Name the layers as docs/streaming.md says."
        )
    return found[0]


def _states_of(graph: Graph) -> list[Tensor]:
    return [tensor for tensor in graph.inputs if tensor.name != "features"]


def _feature_law() -> dict[str, float]:
    return {
        "floor_db": FEATURE_FLOOR_DB,
        "center_db": FEATURE_CENTER_DB,
        "scale_db": FEATURE_SCALE_DB,
    }


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
