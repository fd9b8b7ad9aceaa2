# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.export.flatbuffer import read_graph
from tests.firmware.graphs import GraphBuilder, options


def test_read_graph_names_inputs_and_outputs_as_the_builder_does(road):
    graph = read_graph(road.int8)
    states = [f"state_{index}" for index in range(len(road.config.student.dilations))]
    assert {tensor.name for tensor in graph.inputs} == {"features", *states}
    assert {tensor.name for tensor in graph.outputs} == {"mask", *(f"next_{n}" for n in states)}
    features = next(tensor for tensor in graph.inputs if tensor.name == "features")
    assert features.shape == (1, 1, 1, road.config.student.num_bands)
    assert not features.is_constant


def test_read_graph_counts_operators(road):
    counts = read_graph(road.int8).operator_counts
    num_blocks = len(road.config.student.dilations)
    assert counts["CONV_2D"] == num_blocks + 2
    assert counts["DEPTHWISE_CONV_2D"] == counts["ADD"] == num_blocks
    assert list(counts) == sorted(counts)


def test_read_graph_of_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.tflite.*run lmkd-export first"):
        read_graph(tmp_path / "absent.tflite")


@pytest.mark.parametrize("content", [b"", b"abc", b"RIFF....WAVEfmt ", b"\0" * 100])
def test_read_graph_refuses_a_foreign_file(tmp_path, content):
    (tmp_path / "other.tflite").write_bytes(content)
    with pytest.raises(ValueError, match=r"must hold a \.tflite model.*which is not one"):
        read_graph(tmp_path / "other.tflite")


@pytest.mark.parametrize("kept", [8, 30, 200, 1000])
def test_read_graph_refuses_a_truncated_file(exported, kept):
    exported.write_bytes(exported.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"must hold a \.tflite model.*which is damaged"):
        read_graph(exported)


def test_read_graph_refuses_noise_behind_the_magic_number(exported):
    noise = np.random.default_rng(0).bytes(4000)
    exported.write_bytes(b"\x1c\0\0\0TFL3" + noise)
    with pytest.raises(ValueError, match=r"must hold a \.tflite model"):
        read_graph(exported)


@pytest.mark.parametrize(
    ("value", "is_saturated"), [(2**31 - 1, True), (-(2**31), True), (7, False)]
)
def test_read_graph_notices_a_saturated_bias(tmp_path, value, is_saturated):
    g = GraphBuilder()
    x, w = g.input([1, 8]), g.weights([4, 8], 0)
    bias = g.tensor([4], 1e-4, data=np.array([1, value, 2, 3], np.int32))
    y = g.tensor([1, 4])
    g.operator("FULLY_CONNECTED", [x, w, bias], [y], options("FullyConnected"))
    (tmp_path / "dense.tflite").write_bytes(g.finish(y))
    (node,) = read_graph(tmp_path / "dense.tflite").nodes
    assert [tensor.is_saturated for tensor in node.inputs] == [False, False, is_saturated]
