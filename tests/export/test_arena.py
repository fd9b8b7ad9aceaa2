# SPDX-License-Identifier: Apache-2.0
import os

import pytest
from tflite_micro import runtime

from lmkd_tf.export import arena
from lmkd_tf.export.arena import MARGIN, measure_arena
from lmkd_tf.export.manifest import read_manifest
from lmkd_tf.models.presets import preset_files


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_smallest_arena_allocates_and_one_step_less_does_not(road, dtype):
    content = getattr(road, dtype).read_bytes()
    manifest = read_manifest(getattr(road, dtype))
    needed = manifest.arena["needed_bytes"]
    runtime.Interpreter.from_bytes(content, arena_size=needed)
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_bytes(content, arena_size=needed - 16)
    assert needed * (1.0 + MARGIN) <= manifest.arena_bytes < needed * (1.0 + MARGIN) + 16


def test_parts_of_the_arena_add_up_to_what_lives_as_long_as_the_interpreter():
    # Of `nano` the interpreter's own 1.2 kB, which it does not list, are more than a tenth.
    found = measure_arena(preset_files("small")["tflite"])
    lasting_bytes = found.head_bytes + found.tail_bytes
    # What is needed for a moment while memory is allocated comes on top.
    assert lasting_bytes <= found.needed_bytes < 1.1 * lasting_bytes
    assert 0.9 * found.tail_bytes < sum(found.parts.values()) <= found.tail_bytes


def test_arena_is_measured_alike_every_time_and_stderr_is_given_back(capfd):
    before = os.fstat(2)
    path = preset_files("nano")["tflite"]
    assert measure_arena(path) == measure_arena(path)
    assert os.path.samestat(os.fstat(2), before)
    assert capfd.readouterr().err == ""


def test_runtime_that_prints_no_figure_is_an_error(monkeypatch):
    class Silent:
        class Interpreter:
            @staticmethod
            def from_bytes(content, arena_size):
                return Silent.Interpreter()

            def print_allocations(self):
                os.write(2, b"nothing to see")

    monkeypatch.setattr(arena, "import_tflm", lambda: Silent)
    with pytest.raises(RuntimeError, match=r"must print its arena.*Received 'nothing to see'"):
        measure_arena(preset_files("nano")["tflite"])
