# SPDX-License-Identifier: Apache-2.0
import io
import stat
import tarfile
import zipfile

import pytest

from lmkd_tf.data.unpack import unpack


@pytest.fixture
def make_zip(tmp_path):
    """Function `(**files) -> path`; a value may be `(content, unix mode)`."""

    def make(files, name="a.zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in files.items():
                info = zipfile.ZipInfo(member)
                info.compress_type = zipfile.ZIP_DEFLATED
                if isinstance(content, tuple):
                    content, mode = content
                    info.external_attr = mode << 16
                archive.writestr(info, content)
        return tmp_path / name

    return make


@pytest.fixture
def make_tar(tmp_path):
    def make(*members):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            for info, content in members:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return tmp_path / "a.tar.gz"

    return make


def assert_nothing_was_unpacked(tmp_path, archive):
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_zip_is_unpacked_whole(tmp_path, make_zip):
    archive = make_zip({"wav/a.wav": b"one", "wav/deep/ü.wav": b"two", "__MACOSX/._a": b"junk"})
    folder = unpack(archive, tmp_path / "out")
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.wav")}
    assert found == {"wav/a.wav": b"one", "wav/deep/ü.wav": b"two"}
    assert not (folder / "__MACOSX").exists()


def test_tar_is_unpacked_whole(tmp_path, make_tar):
    archive = make_tar((tarfile.TarInfo("wav/a.wav"), b"one"))
    assert (unpack(archive, tmp_path / "out") / "wav" / "a.wav").read_bytes() == b"one"


@pytest.mark.parametrize(
    "name", ["/etc/evil", "../evil", "a/../../evil", "..\\evil", "C:\\evil", "C:/evil"]
)
def test_path_that_leads_out_of_the_folder_is_refused(tmp_path, make_zip, name):
    archive = make_zip({"good.wav": b"x", name: b"evil"})
    with pytest.raises(ValueError, match=r"must stay within its folder. Received .*evil"):
        unpack(archive, tmp_path / "out")
    assert_nothing_was_unpacked(tmp_path, archive)
    assert not (tmp_path.parent / "evil").exists()


def test_tar_with_a_parent_path_is_refused(tmp_path, make_tar):
    archive = make_tar((tarfile.TarInfo("../evil"), b"x"))
    with pytest.raises(ValueError, match="stay within its folder"):
        unpack(archive, tmp_path / "out")
    assert_nothing_was_unpacked(tmp_path, archive)


def test_link_in_a_zip_is_refused(tmp_path, make_zip):
    archive = make_zip({"link": (b"/etc/passwd", stat.S_IFLNK | 0o777)})
    with pytest.raises(ValueError, match="'link', a link or device"):
        unpack(archive, tmp_path / "out")
    assert_nothing_was_unpacked(tmp_path, archive)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, make_tar, kind):
    info = tarfile.TarInfo("thing")
    info.type, info.linkname = kind, "/etc/passwd"
    archive = make_tar((info, b""))
    with pytest.raises(ValueError, match="'thing', a link or device"):
        unpack(archive, tmp_path / "out")
    assert_nothing_was_unpacked(tmp_path, archive)


def test_bomb_is_refused_by_its_stated_size(tmp_path, make_zip):
    archive = make_zip({"zeros": b"\0" * 50_000_000})
    assert archive.stat().st_size < 60_000
    with pytest.raises(ValueError, match="with 50000000 bytes once unpacked"):
        unpack(archive, tmp_path / "out")
    assert_nothing_was_unpacked(tmp_path, archive)


def test_bomb_that_lies_about_its_size_is_stopped(tmp_path, make_zip):
    archive = make_zip({"zeros": b"\0" * 50_000_000})
    content = archive.read_bytes()
    # The size stands in the local header and in the directory; both say 1000 bytes now.
    lie = content.replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lie != content
    archive.write_bytes(lie)
    with pytest.raises(ValueError, match="Received"):
        unpack(archive, tmp_path / "out")
    assert_nothing_was_unpacked(tmp_path, archive)


def test_limit_in_bytes_holds(tmp_path, make_zip):
    archive = make_zip({"a": bytes(range(256)) * 10})
    with pytest.raises(ValueError, match="unpack to at most 2000"):
        unpack(archive, tmp_path / "out", max_bytes=2000)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.wav", b"one")
        archive.writestr("a.wav", b"two")
    with pytest.raises(ValueError, match=r"every name once. Received .*'a.wav' twice"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_truncated_archive_is_refused(tmp_path, make_zip, cut):
    archive = make_zip({"a.wav": bytes(range(256)) * 10})
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"whole zip or tar file. Received .*a\.zip"):
        unpack(archive, tmp_path / "out")
    assert_nothing_was_unpacked(tmp_path, archive)


def test_damaged_member_leaves_nothing_and_the_older_folder_untouched(tmp_path, make_zip):
    archive = make_zip({"a.wav": bytes(range(256)) * 100})
    unpack(archive, tmp_path / "out")
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="Received"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "a.wav").read_bytes() == bytes(range(256)) * 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_full_disk_is_said_before_anything_is_written(tmp_path, make_zip, monkeypatch):
    archive = make_zip({"a.wav": bytes(range(256)) * 100})

    class Usage:
        free = 100

    monkeypatch.setattr("lmkd_tf.data.unpack.shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(OSError, match="must have room for what is unpacked: 25600 bytes"):
        unpack(archive, tmp_path / "out")
    assert_nothing_was_unpacked(tmp_path, archive)
