# SPDX-License-Identifier: Apache-2.0
import hashlib
import subprocess
from math import prod

import ai_edge_litert.interpreter as litert
import keras
import numpy as np
import pytest
import tf_keras

from lmkd_tf.cli.stages import core_builder
from lmkd_tf.config.files import read_json
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.export import tflite
from lmkd_tf.export.calibration import Calibration
from lmkd_tf.export.flatbuffer import read_graph
from lmkd_tf.export.manifest import manifest_path, read_manifest
from lmkd_tf.export.metadata import read_metadata
from lmkd_tf.export.operators import OPERATORS
from lmkd_tf.export.phone import to_phone
from lmkd_tf.export.tflite import to_tflite
from lmkd_tf.metrics.cost import macs_per_frame
from lmkd_tf.models.builder import ARCHITECTURES, build, build_core, is_streaming
from lmkd_tf.models.enhancer import SpeechEnhancer

DTYPES = ("int8", "int16")
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
    assert operators - {"DELEGATE"} <= set(OPERATORS)
    assert set(read_graph(getattr(road, dtype)).operators) <= set(OPERATORS)


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
        return to_tflite(
            weights,
            tmp_path / "out" / "nano.tflite",
            architecture="tcn",
            size=size,
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


def test_converter_that_does_not_end_is_an_error_and_leaves_nothing(
    export_with, monkeypatch, tmp_path
):
    monkeypatch.setattr(tflite, "_CONVERSION_SECONDS", 0.5)
    with pytest.raises(RuntimeError, match=r"must finish within 0\.5 s\. Received no result"):
        export_with("exec sleep 20")
    assert list((tmp_path / "out").iterdir()) == []


SIZE = {"num_bands": 12, "channels": 8, "dilations": (1, 2)}
NETWORK = {"architecture": "tcn", "size": SIZE, "stft": StftConfig()}


@pytest.fixture
def core(seeded):
    return build_core("tcn", **SIZE)


@pytest.fixture
def calibration():
    rng = np.random.default_rng(0)
    frames = np.cumsum(rng.normal(0, 0.1, (150, 12)), axis=0).clip(-1.0, 0.6)
    return Calibration(frames.astype(np.float32), seed=3, files=("a.flac", "b.flac"))


def test_same_student_and_calibration_give_the_same_bytes(core, calibration, tmp_path):
    files = []
    for name in ("first", "second"):
        path = tmp_path / name / "student.tflite"
        to_tflite(core, path, **NETWORK, calibration=calibration)
        manifest = {**read_json(manifest_path(path)), "git_commit": None}
        files.append((path.read_bytes(), manifest))
    assert files[0] == files[1]


def test_exported_file_says_what_it_is_and_what_it_was_calibrated_on(core, calibration, tmp_path):
    path = tmp_path / "student.tflite"
    manifest = to_tflite(core, path, **NETWORK, calibration=calibration, dtype="int16")
    record = read_metadata(path)
    assert record["network"]["architecture"] == "tcn"
    assert record["stft"]["hop_length"] == 256
    assert record["states"] == manifest.states
    assert record["created_from"] == manifest.created_from
    assert record["calibration"] == manifest.calibration["sha256"]
    assert manifest.calibration["seed"] == 3
    assert manifest.calibration["files"] == ["a.flac", "b.flac"]
    assert not manifest.has_c_kernels  # int16 runs in TFLite Micro only
    assert read_manifest(path) == manifest


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_file_for_phones_computes_the_masks_of_the_float_step(core, tmp_path, weights):
    path = tmp_path / "phone.tflite"
    to_phone(core, path, architecture="tcn", size=SIZE, weights=weights)
    assert path.stat().st_size < 4 * core.count_params() + 20000
    interpreter = litert.Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    rng = np.random.default_rng(0)
    features = rng.normal(0, 0.3, (1, 30, 1, 12)).astype(np.float32)
    wanted = np.asarray(core(features, training=False))[0, :, 0]
    states = {
        name: np.zeros(detail["shape"], np.float32)
        for name, detail in runner.get_input_details().items()
        if name != "features"
    }
    masks = []
    for frame in features[0]:
        result = runner(features=frame[None, None], **states)
        masks.append(result["mask"].ravel())
        states = {name: result[f"next_{name}"] for name in states}
    assert np.abs(np.stack(masks) - wanted).max() < (2e-3 if weights == "float16" else 5e-2)


def test_type_of_weights_for_phones_must_be_known(core, tmp_path):
    with pytest.raises(ValueError, match=r"`weights` must be one of float16, int8.*'int4'"):
        to_phone(core, tmp_path / "x.tflite", architecture="tcn", size=SIZE, weights="int4")


def test_weights_that_are_not_finite_are_refused_by_name(core, calibration, tmp_path):
    kernel, *rest = core.get_layer("pointwise_1").get_weights()
    kernel[0, 0, 3, 3] = np.nan
    core.get_layer("pointwise_1").set_weights([kernel, *rest])
    with pytest.raises(ValueError, match=r"must be finite\. Received NaN.*pointwise_1/kernel"):
        to_tflite(core, tmp_path / "x.tflite", **NETWORK, calibration=calibration)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "size", "words"),
    [
        ("tcn", {**SIZE, "dilations": (2, 1)}, r"'context_0' is .*'padding': \[\[4, 0\]"),
        ("tcn", {**SIZE, "dilations": (1,)}, r"is None instead of|instead of None"),
        ("gru", {"num_bands": 12, "channels": 8}, "makes with `size`"),
    ],
)
def test_core_of_another_architecture_or_size_is_refused(
    core, calibration, tmp_path, architecture, size, words
):
    other = build_core(architecture, **size)
    for given in (other, SpeechEnhancer(other)):
        with pytest.raises(ValueError, match=words):
            to_tflite(given, tmp_path / "x.tflite", **NETWORK, calibration=calibration)
        with pytest.raises(ValueError, match=words):
            to_phone(given, tmp_path / "x", architecture="tcn", size=SIZE, weights="int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if is_streaming(n)])
def test_core_of_either_namespace_is_what_the_builder_makes(name):
    for namespace in (keras, tf_keras):
        tflite.check_core(build_core(name, namespace=namespace), name, {})


def test_every_size_of_the_network_is_recorded_and_the_enhancer_taken(core, calibration, tmp_path):
    path, size = tmp_path / "student.tflite", {"num_bands": 12, "channels": 8}
    enhancer = build("tcn", num_bands=12, channels=8)
    manifest = to_tflite(
        enhancer, path, architecture="tcn", size=size, stft=StftConfig(), calibration=calibration
    )
    wanted = {**size, "dilations": [1, 2, 4, 8, 1, 2, 4, 8]}
    assert manifest.network == {"architecture": "tcn", "size": wanted}
    assert read_metadata(path)["network"] == manifest.network


def test_student_type_and_calibration_must_fit(core, calibration, tmp_path):
    path, weights = tmp_path / "x.tflite", tmp_path / "some.weights.h5"
    with pytest.raises(FileNotFoundError, match=r"Trained weights are needed.*lmkd-compress"):
        to_tflite(weights, path, **NETWORK)
    weights.write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"has the ranges of int8\. Received the type 'int16'"):
        to_tflite(weights, path, **NETWORK, dtype="int16")
    with pytest.raises(ValueError, match=r"needs a calibration.*Received Functional"):
        to_tflite(core, path, **NETWORK)
    with pytest.raises(ValueError, match=r"has its own\. Received .* calibration=True"):
        to_tflite(weights, path, **NETWORK, calibration=calibration)
    with pytest.raises(ValueError, match=r"`dtype` must be one of.*'int4'"):
        to_tflite(core, path, **NETWORK, calibration=calibration, dtype="int4")
    with pytest.raises(ValueError, match=r"bands of the network\. Received 12, .* has 16"):
        to_tflite(
            build_core("tcn", **{**SIZE, "num_bands": 16}),
            path,
            **NETWORK,
            calibration=calibration,
        )
    assert not path.exists()
