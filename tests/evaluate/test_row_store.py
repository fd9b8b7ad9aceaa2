# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np

from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.evaluate import row_store
from lmkd_tf.evaluate.row_store import RowStore, source_digest

CLIP = EvaluationClip("a", np.ones(4, np.float32), np.zeros(4, np.float32), 0.0, "rain")


def test_rows_are_there_after_the_process_has_gone(tmp_path):
    store = RowStore(tmp_path / "new" / "rows.jsonl", ["1.0"])
    store.put(store.key({"a": 1}, CLIP), {"pesq_wb": 1.5})
    again = RowStore(tmp_path / "new" / "rows.jsonl", ["1.0"])
    assert again.get(again.key({"a": 1}, CLIP)) == {"pesq_wb": 1.5}


def test_key_depends_on_context_system_and_signals_and_on_nothing_else(tmp_path):
    store = RowStore(tmp_path / "rows.jsonl", ["1.0"])
    other = RowStore(tmp_path / "rows.jsonl", ["1.1"])
    key = store.key({"a": 1}, CLIP)
    assert key == store.key({"a": 1}, replace(CLIP, name="b", snr_db=5.0))
    assert key != other.key({"a": 1}, CLIP)
    assert key != store.key({"a": 2}, CLIP)
    assert key != store.key({"a": 1}, replace(CLIP, noisy=CLIP.speech))
    assert key != store.key({"a": 1}, replace(CLIP, speech=CLIP.noisy))


def test_line_that_a_killed_process_left_unfinished_is_taken_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    store = RowStore(path, [])
    store.put("k", {"pesq_wb": 1.5})
    path.write_text(path.read_text() + '{"key": "l", "ro')
    again = RowStore(path, [])
    again.put("m", {"pesq_wb": 2.0})
    last = RowStore(path, [])
    assert [last.get(key) for key in "klm"] == [{"pesq_wb": 1.5}, None, {"pesq_wb": 2.0}]
    assert path.read_text().count("\n") == 2


def test_digest_of_the_source_changes_with_a_module(tmp_path, monkeypatch):
    """Two states of a checkout that differ from one commit have one name there, `-dirty`."""
    module = tmp_path / "evaluate" / "row_store.py"
    module.parent.mkdir()
    module.write_text("x = 1")
    monkeypatch.setattr(row_store, "__file__", str(module))
    before = source_digest()
    assert before == source_digest()
    module.write_text("x = 2")
    assert before != source_digest()
