# SPDX-License-Identifier: Apache-2.0
"""A made-up exported model: generating C needs its bytes and manifest, not a real graph."""

import copy
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STRICT = "-std=c11 -Wall -Wextra -Werror -Wshadow -Wconversion -Wdouble-promotion -Wundef -pedantic"


def tensor(
    name: str, shape: list[int], dtype: str, scale: float, zero_point: int
) -> dict[str, Any]:
    """One entry of `tensors` in a manifest."""
    facts = {"dtype": dtype, "scale": scale, "zero_point": zero_point}
    return {"name": name, "shape": shape, **facts}


MANIFEST: dict[str, Any] = {
    "name": "dummy",
    "model": {"file": "dummy.tflite", "dtype": "int8"},
    "stft": {"sample_rate_hz": 16000, "window_length": 512, "hop_length": 256, "fft_length": 512},
    "num_bands": 64,
    "num_bins": 257,
    "features": {"floor_db": -60.0, "center_db": -10.0, "scale_db": 50.0},
    "parameters": 1234,
    "macs_per_hop": 5678,
    "tensors": {
        "inputs": [
            tensor("features", [1, 1, 1, 64], "int8", 0.1, -3),
            tensor("state_0", [1, 2, 1, 8], "int8", 0.25, 7),
            tensor("state_1", [1, 4, 1, 8], "int16", 1e-5, 0),
        ],
        "outputs": [
            tensor("state_1_next", [1, 4, 1, 8], "int16", 1e-5, 0),
            tensor("mask", [1, 1, 1, 64], "int8", 0.00390625, -128),
            tensor("state_0_next", [1, 2, 1, 8], "int8", 0.25, 7),
        ],
    },
    "states": [
        {"input": "state_0", "output": "state_0_next", "bytes": 16},
        {"input": "state_1", "output": "state_1_next", "bytes": 64},
    ],
    "operators": [{"name": "CONV_2D", "count": 3}],
    "arena_bytes": 11472,
    "runtime": {"tflite_micro": "0"},
}


@pytest.fixture
def manifest() -> dict[str, Any]:
    return copy.deepcopy(MANIFEST)


@pytest.fixture
def write_export(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Function that writes a random model and the given manifest; returns the manifest's path."""

    def write(manifest: dict[str, Any]) -> Path:
        content = np.random.default_rng(3).bytes(1001)  # odd, so the last line is not full
        content = content[:4] + b"TFL3" + content[8:]
        facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["model"] = {**facts, **manifest["model"]}
        (tmp_path / "dummy.tflite").write_bytes(content)
        path = tmp_path / "dummy.manifest.json"
        path.write_text(json.dumps(manifest))
        return path

    return write


@pytest.fixture
def shipped_export(tmp_path: Path, project_root: Path) -> Path:
    """Manifest of a copy of the shipped int8 preset, its model beside it."""
    for name in ("nano_int8.tflite", "nano_int8.manifest.json"):
        shutil.copy(project_root / "lmkd_tf" / "presets" / name, tmp_path)
    return tmp_path / "nano_int8.manifest.json"


@pytest.fixture
def run_c(tmp_path: Path, require_tool) -> Callable[..., bytes]:
    """Function that compiles a program with generated sources, runs it and returns its output."""

    def run(program: str, *sources: Path) -> bytes:
        main = tmp_path / "main.c"
        main.write_text(program)
        command = [require_tool("gcc", "gcc"), *STRICT.split(), f"-I{sources[0].parent}"]
        command += [str(main), *map(str, sources), "-o", str(tmp_path / "program")]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr
        return subprocess.run([tmp_path / "program"], capture_output=True, check=True).stdout

    return run
