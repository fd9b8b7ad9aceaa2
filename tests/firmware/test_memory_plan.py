# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

from lmkd_tf.firmware.aot import compile_graph
from lmkd_tf.firmware.graph import read_quantized_graph
from lmkd_tf.firmware.memory_plan import row_major_strides
from tests.firmware.graphs import GraphBuilder, options

MASKS = {f"{m}Mask": 0 for m in ("begin", "end", "ellipsis", "newAxis", "shrinkAxis")}


def read(tmp_path, content):
    path = tmp_path / "graph.tflite"
    path.write_bytes(content)
    return read_quantized_graph(path)


def delay_line(tmp_path):
    """State of four frames, joined with a new one; the newest four are the next state."""
    g = GraphBuilder()
    x, state = g.input([1, 1, 1, 6], 0.05, 1), g.input([1, 4, 1, 6], 0.05, 1)
    joined, new = g.tensor([1, 5, 1, 6], 0.05, 1), g.tensor([1, 4, 1, 6], 0.05, 1)
    g.operator("CONCATENATION", [state, x], [joined], options("Concatenation", axis=1))
    operands = [joined, *map(g.constant, ([0, 1, 0, 0], [1, 5, 1, 6], [1] * 4))]
    g.operator("STRIDED_SLICE", operands, [new], options("StridedSlice", **MASKS))
    return read(tmp_path, g.finish(new)), [(state, new)], (x, state, joined, new)


def test_join_and_slice_along_time_are_views_of_one_buffer(tmp_path):
    graph, states, (x, state, joined, new) = delay_line(tmp_path)
    plan = compile_graph(graph, states).plan
    assert plan.offsets[state] == plan.offsets[joined]
    assert plan.offsets[x] == plan.offsets[joined] + 24
    assert plan.offsets[new] == plan.offsets[joined] + 6
    assert plan.total_bytes == plan.persistent_bytes == 32  # five frames of six, rounded up


def test_state_moves_once_per_hop(tmp_path):
    graph, states, (_, state, _, new) = delay_line(tmp_path)
    plan = compile_graph(graph, states).plan
    assert len(plan.state_copies) == 1
    copy = plan.state_copies[0]
    offsets = plan.offsets
    assert (copy.source, copy.target, copy.num_bytes) == (offsets[new], offsets[state], 24)


def test_tensors_that_live_together_do_not_overlap(project_root):
    graph = read_quantized_graph(project_root / "lmkd_tf" / "presets" / "nano_int8.tflite")
    plan = compile_graph(graph, []).plan
    first_use, last_use = {}, {}
    for operator in graph.operators:
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor in plan.offsets:
                first_use.setdefault(tensor, operator.position)
                last_use[tensor] = operator.position
    inputs = {tensor for op in graph.operators if op.name == "ADD" for tensor in op.inputs}
    for a, b in itertools.combinations(sorted(inputs), 2):
        if first_use[a] > last_use[b] or first_use[b] > last_use[a]:
            continue
        spans = [(plan.offsets[t], plan.offsets[t] + graph.tensors[t].size) for t in (a, b)]
        assert spans[0][1] <= spans[1][0] or spans[1][1] <= spans[0][0]


def test_states_that_change_places_are_refused(tmp_path):
    g = GraphBuilder()
    a, b = g.input([4]), g.input([4])
    graph = read(tmp_path, g.finish(a, b))
    with pytest.raises(ValueError, match=r"exchanged in a circle\. Received 2 states"):
        compile_graph(graph, [(a, b), (b, a)])


def test_chain_of_states_moves_the_oldest_first(tmp_path):
    g = GraphBuilder()
    x, newer, older = g.input([16]), g.input([16]), g.input([16])
    y = g.tensor([16])
    g.operator("ADD", [x, older], [y], options("Add"))
    graph = read(tmp_path, g.finish(x, newer, y))
    plan = compile_graph(graph, [(newer, x), (older, newer)]).plan
    targets = [copy.target for copy in plan.state_copies]
    assert targets == [plan.offsets[older], plan.offsets[newer]]


def test_row_major_strides_of_three_axes():
    assert row_major_strides((2, 3, 4)) == [12, 4, 1]
