# SPDX-License-Identifier: Apache-2.0
import re

import ai_edge_litert.interpreter as litert
import numpy as np
import pytest

from lmkd_tf.export.interpreter import import_tflm
from lmkd_tf.export.operators import OPERATORS, REFUSED, tflite_steps
from lmkd_tf.firmware.graph import read_quantized_graph
from lmkd_tf.firmware.lowering import _KERNELS
from tests.firmware.operator_cases import CASES

NUM_DRAWS = 20


def _largest_difference(content):
    """Steps between TFLite's reference kernels and TFLM over random inputs."""
    resolver = litert.OpResolverType.BUILTIN_REF
    reference = litert.Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    reference.allocate_tensors()
    tflm = import_tflm().Interpreter.from_bytes(content, arena_size=2**20)
    rng, largest = np.random.default_rng(0), 0
    for _ in range(NUM_DRAWS):
        for position, detail in enumerate(reference.get_input_details()):
            values = rng.integers(-128, 128, detail["shape"]).astype(np.int8)
            reference.set_tensor(detail["index"], values)
            tflm.set_input(values, position)
        reference.invoke()
        tflm.invoke()
        for position, detail in enumerate(reference.get_output_details()):
            first = reference.get_tensor(detail["index"]).astype(int)
            second = tflm.get_output(position).astype(int).reshape(first.shape)
            largest = max(largest, int(np.abs(first - second).max()))
    return largest


@pytest.mark.parametrize("name", CASES)
def test_reference_kernels_and_tflm_differ_by_what_the_table_says(name, tmp_path):
    content = CASES[name]()
    (tmp_path / "case.tflite").write_bytes(content)
    graph = read_quantized_graph(tmp_path / "case.tflite")
    operators = [operator.name for operator in graph.operators]
    assert _largest_difference(content) <= tflite_steps(operators, "int8")


def test_a_dense_layer_does_differ_by_a_step():
    assert _largest_difference(CASES["dense_rows"]()) == 1


def test_firmware_has_a_kernel_for_every_operator_of_the_table():
    assert set(_KERNELS) == set(OPERATORS)


def test_porting_guide_lists_every_operator(project_root):
    text = (project_root / "docs" / "porting.md").read_text()
    listed = text.split("Operators: ")[1].split("The generator refuses")[0]
    assert set(re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", listed)) == set(OPERATORS)


def test_every_operator_has_a_case(tmp_path):
    covered = {"EXPAND_DIMS", "SQUEEZE"}  # views as RESHAPE is
    for name, make in CASES.items():
        (tmp_path / f"{name}.tflite").write_bytes(make())
        graph = read_quantized_graph(tmp_path / f"{name}.tflite")
        covered |= {operator.name for operator in graph.operators}
    assert covered == set(OPERATORS)


def test_no_operator_is_allowed_and_refused():
    assert not set(OPERATORS) & set(REFUSED)


def test_steps_of_a_graph_are_those_of_its_worst_operator():
    assert tflite_steps(["CONV_2D", "ADD"], "int8") == 0
    assert tflite_steps(["CONV_2D", "FULLY_CONNECTED"], "int8") == 1
    assert tflite_steps(["MUL"], "int8") == 0
    assert tflite_steps(["MUL"], "int16") == 1
