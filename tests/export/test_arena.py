# SPDX-License-Identifier: Apache-2.0
import os

import pytest
from tflite_micro import runtime

from lmkd_tf.export import arena
from lmkd_tf.export.arena import measure_arena_bytes
from lmkd_tf.export.manifest import read_manifest

# Alignment and the recording of allocations, which the figure leaves out.
SLACK_BYTES = 1024


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_arena_of_the_manifest_is_enough_and_not_far_from_needed(road, dtype):
    content = getattr(road, dtype).read_bytes()
    needed = read_manifest(getattr(road, dtype)).arena_bytes
    runtime.Interpreter.from_bytes(content, arena_size=needed + SLACK_BYTES)
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_bytes(content, arena_size=needed - SLACK_BYTES)


def test_arena_is_measured_alike_every_time_and_stderr_is_given_back(road):
    before = os.fstat(2)
    assert measure_arena_bytes(road.int8) == read_manifest(road.int8).arena_bytes
    assert os.path.samestat(os.fstat(2), before)


def test_runtime_that_prints_no_figure_is_an_error(road, monkeypatch):
    class Silent:
        class Interpreter:
            @staticmethod
            def from_bytes(content, arena_size):
                return Silent.Interpreter()

            def print_allocations(self):
                os.write(2, b"nothing to see")

    monkeypatch.setattr(arena, "import_tflm", lambda: Silent)
    with pytest.raises(RuntimeError, match=r"must print its arena.*Received 'nothing to see'"):
        measure_arena_bytes(road.int8)
