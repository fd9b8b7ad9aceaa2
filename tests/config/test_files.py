# SPDX-License-Identifier: Apache-2.0
import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from lmkd_tf.config.files import (
    atomic_path,
    read_json,
    sha256_of,
    write_bytes,
    write_json,
    write_text,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(target, error):
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error


def test_atomic_path_moves_what_was_written_to_the_target(tmp_path):
    with atomic_path(tmp_path / "model.keras") as temporary:
        temporary.write_text("new")
    assert names_in(tmp_path) == ["model.keras"]
    assert (tmp_path / "model.keras").read_text() == "new"


def test_atomic_path_creates_the_folder(tmp_path):
    with atomic_path(tmp_path / "a" / "b" / "report.html") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a" / "b" / "report.html").is_file()


def test_atomic_path_yields_a_path_in_the_same_folder_with_every_suffix(tmp_path):
    with atomic_path(tmp_path / "core.weights.h5") as temporary:
        temporary.touch()
        assert temporary.parent == tmp_path
        assert temporary.suffixes[-2:] == [".weights", ".h5"]


def test_atomic_path_leaves_the_target_alone_until_the_block_ends(tmp_path):
    target = tmp_path / "table.json"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_path_after_an_exception_keeps_the_old_file_and_no_temporary_one(tmp_path, error):
    target = tmp_path / "model.keras"
    target.write_text("old")
    with pytest.raises(error):
        write_half(target, error)
    assert names_in(tmp_path) == ["model.keras"]
    assert target.read_text() == "old"


def test_atomic_path_without_a_written_file_says_so_and_keeps_the_old_one(tmp_path):
    target = tmp_path / "model.keras"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old"


def test_two_writers_of_one_file_have_different_temporary_files(tmp_path):
    with atomic_path(tmp_path / "x") as first, atomic_path(tmp_path / "x") as second:
        assert first != second
        first.touch()
        second.touch()


def test_write_on_a_full_disk_keeps_the_old_file_and_no_half_of_the_new_one(tmp_path, monkeypatch):
    target = tmp_path / "history.json"
    write_json(target, {"epoch": 1})

    def fill_disk(path, content):
        with open(path, "wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        write_json(target, {"epoch": 2})
    assert names_in(tmp_path) == ["history.json"]
    assert read_json(target) == {"epoch": 1}


def test_write_json_of_what_json_cannot_hold_writes_nothing(tmp_path):
    circle: list = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        write_json(tmp_path / "x.json", circle)
    assert names_in(tmp_path) == []


def test_write_json_is_read_back_by_any_json_reader(tmp_path):
    value = {"name": "Größe λ", "snr_db": [-5.0, None], "path": "a/b"}
    write_json(tmp_path / "x.json", {**value, "path": Path("a/b")})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == value
    assert read_json(tmp_path / "x.json") == value


def test_write_json_turns_what_is_not_finite_into_null_at_any_depth(tmp_path):
    def refuse(constant):
        raise AssertionError(f"no JSON: {constant}")

    inner = {"level_dbfs": float("nan"), "layers": [("conv", float("inf")), ("mask", 1.5)]}
    value = {"files": [inner], "numpy": [np.float32("-inf"), np.float64("nan"), np.float32(0.5)]}
    write_json(tmp_path / "x.json", value)
    read = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert read["files"] == [{"level_dbfs": None, "layers": [["conv", None], ["mask", 1.5]]}]
    assert read["numpy"] == [None, None, 0.5]


def test_write_text_writes_utf8_and_write_bytes_the_bytes(tmp_path):
    write_text(tmp_path / "a.txt", "λ\n")
    write_bytes(tmp_path / "b.bin", b"\x00\r\n\xff")
    assert (tmp_path / "a.txt").read_bytes() == b"\xce\xbb\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\r\n\xff"


def test_read_json_of_a_missing_file_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"needed here\. Received .*gone\.json, which does"):
        read_json(tmp_path / "gone.json")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00"])
def test_read_json_of_a_damaged_file_names_it_and_the_remedy(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.json, which is damaged .* Delete it"):
        read_json(tmp_path / "bad.json")


def test_sha256_of_a_file_longer_than_one_block_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # 1.28 MB
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()
