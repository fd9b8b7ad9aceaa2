# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from lmkd_tf.export.flatbuffer import Graph, Tensor, read_graph
from lmkd_tf.export.op_check import check_graph


def _tensor(name, dtype="int8", scale=0.1, zero_point=3, shape=(1, 2, 1, 8)):
    return Tensor(name, shape, dtype, scale, zero_point, is_constant=False)


@pytest.fixture
def graph():
    inputs = (_tensor("features", shape=(1, 1, 1, 16)), _tensor("state_0"))
    outputs = (_tensor("mask", scale=1 / 256, zero_point=-128), _tensor("next_state_0"))
    return Graph((*inputs, *outputs), inputs, outputs, ("CONV_2D", "LOGISTIC"), macs=128)


def test_check_graph_accepts_a_quantized_graph(graph):
    check_graph(graph, "int8")


def test_check_graph_accepts_what_the_road_exported(road):
    check_graph(read_graph(road.int8), "int8")
    check_graph(read_graph(road.int16), "int16")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_check_graph_refuses_a_float_tensor(graph, dtype):
    tensors = (*graph.tensors, _tensor("hidden", dtype=dtype))
    with pytest.raises(ValueError, match=r"must not hold float tensors\. Received \['hidden'\]"):
        check_graph(replace(graph, tensors=tensors), "int8")


@pytest.mark.parametrize("operator", ["WHILE", "CUSTOM", "FULLY_CONNECTED", "CALL_ONCE"])
def test_check_graph_refuses_an_operator_that_is_not_exact(graph, operator):
    operators = (*graph.operators, operator)
    with pytest.raises(ValueError, match=rf"only operators that TFLM runs.*{operator}"):
        check_graph(replace(graph, operators=operators), "int8")


def test_check_graph_refuses_inputs_of_another_type(graph):
    with pytest.raises(ValueError, match=r"Inputs and outputs must be int16.*'features'"):
        check_graph(graph, "int16")


@pytest.mark.parametrize(
    "after",
    [
        _tensor("next_state_0", scale=0.1001),
        _tensor("next_state_0", zero_point=4),
        _tensor("next_state_0", shape=(1, 4, 1, 8)),
        _tensor("something"),
    ],
)
def test_check_graph_refuses_a_state_that_changes_on_its_way(graph, after):
    outputs = (graph.outputs[0], after)
    with pytest.raises(ValueError, match=r"same scale going in and coming out.*\['state_0'\]"):
        check_graph(replace(graph, outputs=outputs), "int8")


def test_check_graph_refuses_a_recurrent_float_graph_of_the_converter(tmp_path):
    import keras
    import tensorflow as tf

    cell = keras.layers.GRU(4, name="gru")
    model = keras.Sequential([keras.layers.Input((3, 4), batch_size=1), cell])
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    (tmp_path / "gru.tflite").write_bytes(content)
    graph = read_graph(tmp_path / "gru.tflite")
    assert "WHILE" in graph.operators
    with pytest.raises(ValueError, match="must not hold float tensors"):
        check_graph(graph, "int8")
