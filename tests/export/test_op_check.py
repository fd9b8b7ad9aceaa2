# SPDX-License-Identifier: Apache-2.0
import warnings
from dataclasses import replace

import pytest

from lmkd_tf.export.flatbuffer import Graph, Node, Tensor, read_graph
from lmkd_tf.export.op_check import check_graph


def _tensor(name, dtype="int8", scale=0.1, zero_point=3, shape=(1, 2, 1, 8), **facts):
    return Tensor(name, shape, dtype, scale, zero_point, **{"is_constant": False, **facts})


def _weights(name="kernel", dtype="int8", scale=0.01):
    return _tensor(name, dtype, scale, 0, (8, 1, 1, 16), is_constant=True)


@pytest.fixture
def graph():
    inputs = (_tensor("features", shape=(1, 1, 1, 16)), _tensor("state_0"))
    outputs = (_tensor("mask", scale=1 / 256, zero_point=-128), _tensor("next_state_0"))
    kernel, hidden = _weights(), _tensor("hidden")
    nodes = (
        Node("CONV_2D", (inputs[0], kernel), (hidden,)),
        Node("LOGISTIC", (hidden,), (outputs[0],)),
        Node("STRIDED_SLICE", (inputs[1],), (outputs[1],)),
    )
    return Graph((*inputs, *outputs, kernel, hidden), inputs, outputs, nodes, macs=128)


def _with(graph, name, result=None, source=None):
    """The graph with one more operator."""
    source = source or _tensor("before")
    result = result or _tensor("after")
    node = Node(name, (source,), (result,))
    tensors = (*graph.tensors, source, result)
    return replace(graph, tensors=tensors, nodes=(*graph.nodes, node))


def test_check_graph_accepts_a_quantized_graph(graph):
    check_graph(graph, "int8")


def test_check_graph_accepts_what_the_road_exported(road):
    check_graph(read_graph(road.int8), "int8")
    check_graph(read_graph(road.int16), "int16")


def test_check_graph_accepts_the_operators_of_two_dimensional_students(graph):
    for name in ("TRANSPOSE_CONV", "MUL", "TANH", "FULLY_CONNECTED", "PAD", "RESHAPE", "TRANSPOSE"):
        graph = _with(graph, name)
    check_graph(graph, "int8")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_check_graph_refuses_a_float_tensor_and_names_its_operator(graph, dtype):
    changed = _with(graph, "ADD", result=_tensor("hidden_sum", dtype=dtype))
    with pytest.raises(
        ValueError, match=rf"must not hold float tensors\. Received {dtype} 'hidden_sum' at ADD"
    ):
        check_graph(changed, "int8")


def test_check_graph_refuses_a_hybrid_operator(graph):
    source, result = (_tensor(name, dtype="float32", scale=0.0) for name in ("x", "y"))
    hybrid = Node("FULLY_CONNECTED", (source, _weights()), (result,))
    changed = replace(graph, nodes=(*graph.nodes, hybrid))
    with pytest.raises(
        ValueError,
        match=r"mix float values.*FULLY_CONNECTED 'y' \(float32 with int8 weights\).*Calibrate",
    ):
        check_graph(changed, "int8")


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ("WHILE", "computes loops wrongly"),
        ("CUSTOM", "custom or flex operator"),
        ("VAR_HANDLE", "resource variables cannot be copied"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "CMSIS-NN clears its state"),
        ("DEQUANTIZE", "leaves the integers"),
        ("RELU6", "separate RELU6 wrongly"),
        ("LOG", "no int8 kernel"),
    ],
)
def test_check_graph_refuses_an_operator_with_its_reason_and_tensor(graph, operator, words):
    with pytest.raises(ValueError, match=rf"{operator}: .*{words}.*Received {operator} 'after'"):
        check_graph(_with(graph, operator), "int8")


def test_check_graph_refuses_an_unknown_operator_and_lists_the_known(graph):
    with pytest.raises(
        ValueError, match=r"int8 activations may hold ADD, .*Received GATHER_ND 'after'"
    ):
        check_graph(_with(graph, "GATHER_ND"), "int8")


def test_check_graph_refuses_bodies_of_loops(graph):
    with pytest.raises(ValueError, match=r"must be one graph.*Received a file with 3"):
        check_graph(replace(graph, num_graphs=3), "int8")


def test_check_graph_refuses_a_variable_tensor(graph):
    changed = _with(graph, "ADD", result=_tensor("memory", is_variable=True))
    with pytest.raises(ValueError, match=r"state in inputs and outputs.*variable 'memory'"):
        check_graph(changed, "int8")


def test_check_graph_refuses_an_open_shape_and_another_batch(graph):
    with pytest.raises(ValueError, match=r"must be fixed, its batch 1.*'after' of open shape"):
        check_graph(_with(graph, "ADD", result=_tensor("after", is_static=False)), "int8")
    inputs = (graph.inputs[0], _tensor("state_0", shape=(2, 2, 1, 8)))
    with pytest.raises(ValueError, match=r"'state_0' of shape \(2, 2, 1, 8\)"):
        check_graph(replace(graph, inputs=inputs), "int8")


def test_check_graph_refuses_inputs_of_another_type(graph):
    with pytest.raises(ValueError, match=r"Inputs and outputs must be int16.*int8 'features'"):
        check_graph(graph, "int16")


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_check_graph_refuses_a_tensor_without_a_range(graph, scale):
    changed = _with(graph, "MUL", result=_tensor("gated", scale=scale))
    with pytest.raises(ValueError, match=r"must have a range.*'gated' at MUL.*dead channels"):
        check_graph(changed, "int8")


def test_check_graph_refuses_a_channel_of_a_kernel_without_a_range(graph):
    kernel = replace(_weights(), scales=(0.01, 0.0))
    node = replace(graph.nodes[0], inputs=(graph.inputs[0], kernel))
    with pytest.raises(ValueError, match=r"must have a range.*'kernel' at CONV_2D"):
        check_graph(replace(graph, nodes=(node, *graph.nodes[1:])), "int8")


def test_check_graph_refuses_the_bias_of_a_dead_channel(graph):
    bias = replace(_weights("bias", "int32"), is_saturated=True)
    node = replace(graph.nodes[0], inputs=(*graph.nodes[0].inputs, bias))
    with pytest.raises(ValueError, match=r"fit in 32 bits.*'bias' at CONV_2D.*prune less"):
        check_graph(replace(graph, nodes=(node, *graph.nodes[1:])), "int8")


def test_check_graph_refuses_a_change_of_type_within_the_graph(graph):
    changed = _with(graph, "QUANTIZE", result=_tensor("wide", dtype="int16"))
    with pytest.raises(ValueError, match=r"must be int8 throughout.*int16 'wide' at QUANTIZE"):
        check_graph(changed, "int8")


def test_check_graph_allows_a_change_of_step_within_the_type(graph):
    check_graph(_with(graph, "QUANTIZE", result=_tensor("finer", scale=0.02)), "int8")


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
    with pytest.raises(ValueError, match=r"same scale going in and coming out.*'state_0'"):
        check_graph(replace(graph, outputs=outputs), "int8")


def test_check_graph_refuses_a_recurrent_float_graph_of_the_converter(tmp_path):
    import keras
    import tensorflow as tf

    cell = keras.layers.GRU(4, name="gru")
    model = keras.Sequential([keras.layers.Input((3, 4), batch_size=1), cell])
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    (tmp_path / "gru.tflite").write_bytes(content)
    graph = read_graph(tmp_path / "gru.tflite")
    assert graph.num_graphs > 1
    with pytest.raises(ValueError, match=r"must not hold WHILE: .*Received WHILE '.+'\. Write"):
        check_graph(graph, "int8")


def test_check_graph_refuses_the_converters_dynamic_range_graph(tmp_path, seeded):
    import keras
    import tensorflow as tf

    layers = [keras.layers.Input((64,), batch_size=1, name="features"), keras.layers.Dense(64)]
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Sequential(layers))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tmp_path / "hybrid.tflite").write_bytes(converter.convert())
    with pytest.raises(ValueError, match=r"FULLY_CONNECTED '.+' \(float32 with int8 weights\)"):
        check_graph(read_graph(tmp_path / "hybrid.tflite"), "int8")
