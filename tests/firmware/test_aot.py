# SPDX-License-Identifier: Apache-2.0
import binascii
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lmkd_tf.export.interpreter import StepModel
from lmkd_tf.firmware import aot
from lmkd_tf.firmware.emulator import CORES, build, emulate
from lmkd_tf.firmware.graph import read_quantized_graph
from tests.firmware.conftest import STRICT
from tests.firmware.graphs import GraphBuilder, options
from tests.firmware.operator_cases import CASES, convolution
from tests.firmware.operator_program import write_operator_program

KERNELS = ("nn_dense.c", "nn_simple.c")
DUMP_IMAGE = """
#include <stdio.h>
#include "model_aot.h"
int main(void) {
    return fwrite(lmkd_model_image, 1, sizeof lmkd_model_image, stdout) != LMKD_IMAGE_BYTES;
}
"""


@pytest.fixture(scope="session")
def operator_program(tmp_path_factory) -> Path:
    """Folder with a program that compares every operator case with TFLM."""
    folder = tmp_path_factory.mktemp("operators")
    write_operator_program(folder)
    return folder


@pytest.fixture
def build_operator_program(operator_program, tmp_path):
    """Function from a CMake preset to the folder with the built program."""

    def build_(preset: str) -> Path:
        definitions = {"LMKD_OPERATOR_DIR": operator_program}
        return build(preset, tmp_path / "build", definitions, ["test_operators"])

    return build_


def assert_every_case_passed(output: str) -> None:
    results = dict(line.split() for line in output.splitlines())
    assert sorted(results) == sorted(CASES)
    assert [name for name, num_wrong in results.items() if num_wrong != "0"] == []


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_every_operator_in_c_equals_tflm_bit_for_bit(
    compiler, build_operator_program, require_tool
):
    require_tool(compiler, compiler)
    program = build_operator_program(f"host-{compiler}") / "test_operators"
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert_every_case_passed(done.stdout)


@pytest.mark.parametrize("core", CORES)
def test_every_operator_on_a_core_equals_tflm_bit_for_bit(
    core, build_operator_program, require_tool
):
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    require_tool("qemu-system-arm", "qemu-system-arm")
    output, _ = emulate(build_operator_program(f"cortex-{core}"), "test_operators")
    assert_every_case_passed(output)


def test_generated_network_equals_tflm_over_a_stream(shipped_export, run_c, tmp_path, project_root):
    out_dir = tmp_path / "out"
    files = aot.write_aot(shipped_export, out_dir)
    features = np.cumsum(np.random.default_rng(5).integers(-9, 10, (400, 144)), axis=0)
    features = np.clip(features, -128, 127).astype(np.int8)
    model = StepModel(shipped_export.parent / "nano_int8.tflite", "tflm")
    expected = np.stack([model.step_quantized(frame) for frame in features])
    values = ",".join(map(str, features.ravel().tolist()))
    program = f"""
#include <stdio.h>
#include <string.h>
#include "model_aot.h"
static const int8_t features[400 * 144] = {{{values}}};
static _Alignas(16) int8_t memory[LMKD_AOT_MEMORY_BYTES];
int main(void) {{
    const int8_t *image = (const int8_t *)lmkd_model_image + LMKD_IMAGE_HEADER_BYTES;
    lmkd_aot_reset(memory);
    for (int t = 0; t < 400; t++) {{
        memcpy(memory + LMKD_AOT_FEATURES_OFFSET, features + 144 * t, 144);
        lmkd_aot_invoke(memory, image);
        fwrite(memory + LMKD_AOT_MASK_OFFSET, 1, 144, stdout);
    }}
    return 0;
}}
"""
    source = project_root / "microcontroller" / "src"
    (out_dir / "nn.h").write_bytes((source / "nn.h").read_bytes())
    output = run_c(program, files[1], files[2], *(source / name for name in KERNELS))
    masks = np.frombuffer(output, np.int8).reshape(400, 144)
    np.testing.assert_array_equal(masks, expected)
    assert len(np.unique(masks)) > 50


def test_image_names_its_model_and_has_its_checksum(shipped_export, run_c, tmp_path):
    files = aot.write_aot(shipped_export, tmp_path / "out")
    image = run_c(DUMP_IMAGE, files[2])
    words = np.frombuffer(image, np.uint32)
    assert image[:4] == b"LMKD"
    assert words[2] == len(image)
    assert words[3] == binascii.crc32(image[16:])
    assert image[16:48].hex() in shipped_export.read_text()


def test_a_second_run_writes_the_same_bytes(shipped_export, tmp_path):
    first = [f.read_bytes() for f in aot.write_aot(shipped_export, tmp_path / "one")]
    assert [f.read_bytes() for f in aot.write_aot(shipped_export, tmp_path / "two")] == first


def test_code_of_another_plan_has_another_checksum(tmp_path):
    models = []
    for name in ("conv_3x3_same", "conv_stride"):
        path = tmp_path / "graph.tflite"
        path.write_bytes(CASES[name]())
        models.append(aot.compile_graph(read_quantized_graph(path), []))
    assert aot.plan_checksum(models[0]) != aot.plan_checksum(models[1])


def compile_bytes(tmp_path, content):
    path = tmp_path / "graph.tflite"
    path.write_bytes(content)
    return aot.compile_graph(read_quantized_graph(path), [])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("RELU6", "right behind a convolution, which absorbs it"),
        ("SOFTMAX", "Build the student from other layers"),
        ("DEQUANTIZE", "Give every layer a range"),
    ],
)
def test_operator_without_a_kernel_is_refused_by_name(name, remedy, tmp_path):
    g = GraphBuilder()
    x, y = g.input([4]), g.tensor([4])
    g.operator(name, [x], [y])
    with pytest.raises(ValueError, match=rf"Received {name} at operator 0\. .*{remedy}"):
        compile_bytes(tmp_path, g.finish(y))


def test_tensor_of_another_type_is_refused_by_name(tmp_path):
    g = GraphBuilder()
    x, y = g.input([4]), g.tensor([4])
    g.graph.tensors[y].type = 7  # INT16 in the schema
    g.operator("QUANTIZE", [x], [y])
    with pytest.raises(ValueError, match=r"must be int8\. Received int16 in 't1' at QUANTIZE"):
        compile_bytes(tmp_path, g.finish(y))


def test_sum_that_could_overflow_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must fit in 31 bits\. Received up to"):
        compile_bytes(tmp_path, convolution((1, 1, 400), (1, 1), 4, output_scale=1e-7))


def test_constant_of_another_type_is_refused(tmp_path):
    g = GraphBuilder()
    x, y = g.input([4]), g.tensor([4])
    wide = g.tensor([4], 0.05, data=np.arange(4, dtype=np.int32))
    g.operator("ADD", [x, wide], [y], options("Add"))
    with pytest.raises(ValueError, match=r"must be int8\. Received int32 in 't2' at ADD"):
        compile_bytes(tmp_path, g.finish(y))


def test_weights_with_a_zero_point_are_refused(tmp_path):
    g = GraphBuilder()
    x, y = g.input([1, 4]), g.tensor([1, 2])
    weights = g.tensor([2, 4], 0.01, 3, data=np.ones((2, 4), np.int8))
    g.operator("FULLY_CONNECTED", [x, weights, g.bias(2)], [y], options("FullyConnected"))
    with pytest.raises(ValueError, match=r"zero point of 0\. Received int8, zero point 3"):
        compile_bytes(tmp_path, g.finish(y))


def test_batch_of_two_is_refused(tmp_path):
    g = GraphBuilder()
    x = g.input([2, 3, 3, 2])
    y = g.tensor([2, 3, 3, 4])
    o = options("Conv2D", strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    g.operator("CONV_2D", [x, g.weights([4, 1, 1, 2], 0), g.bias(4)], [y], o)
    with pytest.raises(ValueError, match=r"batch of one and no groups\. Received an input \(2,"):
        compile_bytes(tmp_path, g.finish(y))


def test_damaged_file_is_refused(tmp_path):
    path = tmp_path / "graph.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    with pytest.raises(ValueError, match=r"must hold a \.tflite model"):
        read_quantized_graph(path)


def test_strict_flags_are_those_of_the_firmware(project_root):
    cmake = (project_root / "microcontroller" / "CMakeLists.txt").read_text()
    assert [f for f in STRICT.split() if f.startswith("-W") and f not in cmake] == []
