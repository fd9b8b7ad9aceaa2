# SPDX-License-Identifier: Apache-2.0
import hashlib
import subprocess
from math import prod

import ai_edge_litert.interpreter as litert
import numpy as np
import pytest

from lmkd_tf.cli.stages import core_builder
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.export import tflite
from lmkd_tf.export.flatbuffer import read_graph
from lmkd_tf.export.manifest import read_manifest
from lmkd_tf.metrics.cost import macs_per_frame

DTYPES = ("int8", "int16")
# What TFLite Micro and the reference kernels compute alike; the list of the export is under test.
KNOWN_EXACT = {"ADD", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "LOGISTIC"}
KNOWN_EXACT |= {"QUANTIZE", "RESHAPE", "STRIDED_SLICE"}
DUMP_MODEL = """
#include <stdio.h>
#include "model_data.h"
int main(void) {
    return fwrite(lmkd_model_data, 1, sizeof lmkd_model_data, stdout) != LMKD_MODEL_BYTES;
}
"""


def _open(path):
    resolver = litert.OpResolverType.BUILTIN_REF
    interpreter = litert.Interpreter(str(path), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    return interpreter


@pytest.mark.parametrize("dtype", DTYPES)
def test_exported_graph_has_no_float_tensor_and_only_exact_operators(road, dtype):
    interpreter = _open(getattr(road, dtype))
    types = {np.dtype(tensor["dtype"]) for tensor in interpreter.get_tensor_details()}
    assert not any(np.issubdtype(kind, np.floating) for kind in types)
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert operators - {"DELEGATE"} <= KNOWN_EXACT
    assert set(read_graph(getattr(road, dtype)).operators) <= KNOWN_EXACT


@pytest.mark.parametrize("dtype", DTYPES)
def test_exported_inputs_and_outputs_have_the_type_of_the_activations(road, dtype):
    interpreter = _open(getattr(road, dtype))
    ends = interpreter.get_input_details() + interpreter.get_output_details()
    assert {np.dtype(tensor["dtype"]) for tensor in ends} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_is_the_same_quantity_going_in_and_coming_out(road, dtype):
    manifest = read_manifest(getattr(road, dtype))
    inputs = {tensor["name"]: tensor for tensor in manifest.inputs}
    outputs = {tensor["name"]: tensor for tensor in manifest.outputs}
    assert len(manifest.states) == len(road.config.student.dilations)
    for state in manifest.states:
        before, after = inputs[state["input"]], outputs[state["output"]]
        assert before["shape"] == after["shape"]
        assert before["zero_point"] == after["zero_point"]
        # Post-training calibration (int16) rounds; training (int8) does not.
        assert after["scale"] == pytest.approx(before["scale"], rel=1e-5 if dtype == "int16" else 0)
        assert state["bytes"] == prod(before["shape"]) * np.dtype(dtype).itemsize


@pytest.mark.parametrize("dtype", DTYPES)
def test_manifest_counts_the_work_and_parameters_of_the_network(road, dtype):
    manifest = read_manifest(getattr(road, dtype))
    bands, width = road.config.student.num_bands, road.config.student.channels
    blocks = len(road.config.student.dilations)
    macs = bands * width + blocks * (3 * width + width * width) + width * bands
    biases = width + blocks * 2 * width + bands  # folded batch normalization, one per channel
    assert manifest.macs_per_hop == macs
    assert manifest.macs_per_hop == macs_per_frame(core_builder(road.config.student)())
    assert manifest.parameters == macs + biases


@pytest.mark.parametrize("dtype", DTYPES)
def test_manifest_describes_the_file_beside_it(road, dtype):
    path = getattr(road, dtype)
    manifest, content = read_manifest(path), path.read_bytes()
    assert manifest.name == path.stem
    assert manifest.model == {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "dtype": dtype,
    }
    assert manifest.stft_config == StftConfig()
    assert (manifest.num_bands, manifest.num_bins) == (road.config.student.num_bands, 257)
    assert sum(operator["count"] for operator in manifest.operators) == len(
        read_graph(path).operators
    )
    assert manifest.runtime["tflite_micro"] is not None


def test_int8_manifest_names_the_trained_weights_it_came_from(road):
    weights = road.workdir / "quantized" / "quantized.weights.h5"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert read_manifest(road.int8).created_from == digest


def test_c_array_of_the_road_compiles_and_equals_the_file(road, require_tool, tmp_path):
    (tmp_path / "main.c").write_text(DUMP_MODEL)
    generated = road.workdir / "export" / "c"
    sources = [tmp_path / "main.c", generated / "model_data.c"]
    command = [require_tool("gcc", "gcc"), "-std=c11", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{generated}", *map(str, sources), "-o", str(tmp_path / "dump")]
    subprocess.run(command, check=True)
    dumped = subprocess.run([tmp_path / "dump"], capture_output=True, check=True).stdout
    assert dumped == road.int8.read_bytes()


@pytest.fixture
def export_with(monkeypatch, tmp_path):
    """Function that exports with a shell script in place of the converter's interpreter."""

    def export(script):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(tflite.sys, "executable", str(program))
        weights = tmp_path / "some.weights.h5"
        weights.write_bytes(b"weights")
        size = {"num_bands": 12, "channels": 8, "dilations": (1,)}
        (tmp_path / "out").mkdir(exist_ok=True)
        return tflite.export_int8(
            tmp_path / "out" / "nano.tflite",
            architecture="tcn",
            size=size,
            weights=weights,
            stft=StftConfig(),
        )

    return export


def test_crash_of_the_converter_is_an_error_and_leaves_nothing(export_with, tmp_path):
    with pytest.raises(RuntimeError, match=r"must finish with status 0\. Received status -11"):
        export_with("kill -SEGV $$")
    assert list((tmp_path / "out").iterdir()) == []


def test_failure_of_the_converter_keeps_its_last_lines_and_an_older_file(export_with, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "nano.tflite").write_bytes(b"older")
    with pytest.raises(RuntimeError, match=r"status 3.*\nno such operator\nBuild the student"):
        export_with("echo no such operator >&2; exit 3")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["nano.tflite"]
    assert (tmp_path / "out" / "nano.tflite").read_bytes() == b"older"


def test_converter_that_writes_nothing_is_an_error(export_with):
    with pytest.raises(RuntimeError, match="Received status 0"):
        export_with("exit 0")


def test_converter_that_writes_no_model_leaves_nothing(export_with, tmp_path):
    # The request file is the third argument, the graph is expected beside it.
    with pytest.raises(ValueError, match=r"must hold a \.tflite model"):
        export_with('echo nonsense > "$(dirname "$3")/graph.tflite"')
    assert list((tmp_path / "out").iterdir()) == []
