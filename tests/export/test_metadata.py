# SPDX-License-Identifier: Apache-2.0
import json

import ai_edge_litert.interpreter as litert
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from lmkd_tf.export.flatbuffer import read_graph
from lmkd_tf.export.interpreter import import_tflm
from lmkd_tf.export.manifest import read_manifest
from lmkd_tf.export.metadata import METADATA_NAME, embed_metadata, read_metadata
from lmkd_tf.models.presets import preset_files

RECORD = {"name": "nano", "states": [{"input": "state_0", "output": "next_state_0", "bytes": 4}]}


@pytest.fixture
def preset_bytes():
    return preset_files("nano")["tflite"].read_bytes()


def _outputs(content):
    interpreter = import_tflm().Interpreter.from_bytes(content, arena_size=2**20)
    rng = np.random.default_rng(0)
    positions = range(1 + len(read_manifest(preset_files("nano")["tflite"]).states))
    for position in positions:
        shape = interpreter.get_input_details(position)["shape"]
        interpreter.set_input(rng.integers(-128, 128, shape).astype(np.int8), position)
    interpreter.invoke()
    return [interpreter.get_output(position) for position in positions]


def test_record_goes_in_and_comes_out(preset_bytes, tmp_path):
    path = tmp_path / "nano.tflite"
    path.write_bytes(embed_metadata(preset_bytes, RECORD))
    assert read_metadata(path) == {"version": 1, **RECORD}


def test_file_with_a_record_computes_what_it_did_in_both_runtimes(preset_bytes, tmp_path):
    content = embed_metadata(preset_bytes, RECORD)
    for before, after in zip(_outputs(preset_bytes), _outputs(content), strict=True):
        np.testing.assert_array_equal(before, after)
    details = [
        litert.Interpreter(model_content=c).get_tensor_details() for c in (preset_bytes, content)
    ]
    keep = ("name", "shape", "dtype", "quantization")
    plain = [[{k: str(d[k]) for k in keep} for d in group] for group in details]
    assert plain[0] == plain[1]


def test_every_constant_of_the_file_is_aligned_as_the_schema_promises(preset_bytes):
    def misaligned(content):
        model = schema.Model.GetRootAs(content, 0)
        buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
        starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
        return [start % 16 for start in starts if start % 16]

    content = embed_metadata(preset_bytes, RECORD)
    assert misaligned(content) == []
    unaligned = schema.ModelT.InitFromPackedBuf(content, 0)
    import flatbuffers

    builder = flatbuffers.Builder(4096)
    builder.Finish(unaligned.Pack(builder), b"TFL3")
    assert misaligned(bytes(builder.Output())) != []  # what the converter's own packing gives


def test_writing_a_record_twice_keeps_the_last_and_nothing_else(preset_bytes, tmp_path):
    once = embed_metadata(preset_bytes, {"name": "new"})
    twice = embed_metadata(embed_metadata(preset_bytes, {"name": "old"}), {"name": "new"})
    for name, content in (("once", once), ("twice", twice)):
        (tmp_path / name).write_bytes(content)
        assert read_metadata(tmp_path / name)["name"] == "new"
    names = [n for n in read_graph(tmp_path / "twice").metadata if n == METADATA_NAME]
    assert len(names) == 1


def test_same_record_gives_the_same_bytes(preset_bytes):
    reordered = dict(reversed(RECORD.items()))
    assert embed_metadata(preset_bytes, RECORD) == embed_metadata(preset_bytes, reordered)


def test_file_of_another_tool_is_refused(preset_bytes, tmp_path):
    model = schema.ModelT.InitFromPackedBuf(preset_bytes, 0)
    model.metadata = []
    import flatbuffers

    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "other.tflite").write_bytes(bytes(builder.Output()))
    with pytest.raises(ValueError, match=r"must hold the record.*which another tool made"):
        read_metadata(tmp_path / "other.tflite")


@pytest.mark.parametrize("text", [b"{", b"[]", b"3", b"{}"])
def test_record_that_is_damaged_is_refused(preset_bytes, tmp_path, text):
    content = embed_metadata(preset_bytes, RECORD)
    whole = json.dumps({"version": 1, **RECORD}, sort_keys=True).encode()
    assert content.count(whole) == 1
    (tmp_path / "damaged.tflite").write_bytes(content.replace(whole, text.ljust(len(whole))))
    with pytest.raises(ValueError, match="must hold the record of this package's export"):
        read_metadata(tmp_path / "damaged.tflite")


def test_record_of_a_newer_version_is_refused(preset_bytes, tmp_path):
    content = embed_metadata(preset_bytes, {"version": 99})
    (tmp_path / "newer.tflite").write_bytes(content)
    with pytest.raises(ValueError, match=r"version 1 or older.*with version 99. Install a newer"):
        read_metadata(tmp_path / "newer.tflite")
