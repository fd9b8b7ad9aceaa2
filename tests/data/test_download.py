# SPDX-License-Identifier: Apache-2.0
import hashlib

import pytest

from lmkd_tf.data import download
from lmkd_tf.data.download import RemoteFile, fetch
from tests.data.server import serve_site

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes


@pytest.fixture
def site():
    with serve_site({"/a.zip": CONTENT, "/other.zip": CONTENT[::-1]}) as site:
        yield site


def remote_of(site, content=CONTENT, **changes):
    facts = {
        "name": "a.zip",
        "urls": (f"{site.url}/a.zip",),
        "md5": hashlib.md5(content).hexdigest(),
        "num_bytes": len(content),
    }
    return RemoteFile(**(facts | changes))


def get(remote, folder, **options):
    return fetch(remote, folder, first_pause_s=0.01, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_arrives_whole_with_its_progress(site, tmp_path):
    seen = []
    path = get(remote_of(site), tmp_path, on_progress=lambda *numbers: seen.append(numbers))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert names(tmp_path) == ["a.zip"]


def test_file_that_is_there_is_not_fetched_again(site, tmp_path):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    get(remote_of(site), tmp_path)
    assert site.requests == []


def test_dropped_connection_is_resumed_where_it_broke_off(site, tmp_path):
    site.breaks_after = [300_000, 100_000]
    assert get(remote_of(site), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in site.requests] == [None, "bytes=300000-", "bytes=400000-"]


def test_part_of_an_earlier_run_is_resumed(site, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:5000])
    assert get(remote_of(site), tmp_path).read_bytes() == CONTENT
    assert site.requests == [("/a.zip", "bytes=5000-")]


@pytest.mark.parametrize("num_bytes", [len(CONTENT), None])
def test_part_that_is_complete_needs_no_further_byte(site, tmp_path, num_bytes):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    path = get(remote_of(site, num_bytes=num_bytes), tmp_path)
    assert path.read_bytes() == CONTENT


def test_server_without_ranges_starts_over(site, tmp_path):
    site.has_ranges = False
    site.breaks_after = [300_000]
    assert get(remote_of(site), tmp_path).read_bytes() == CONTENT


def test_second_mirror_is_tried_when_the_first_fails(site, tmp_path):
    remote = remote_of(site, urls=(f"{site.url}/gone.zip", f"{site.url}/a.zip"))
    assert get(remote, tmp_path).read_bytes() == CONTENT


def test_error_of_the_server_is_passed_over_and_tried_again(site, tmp_path):
    site.errors = [503, 500]
    assert get(remote_of(site), tmp_path).read_bytes() == CONTENT


def test_server_that_never_answers_well_is_named_and_the_part_kept(site, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:5000])
    site.errors = [503] * 20
    with pytest.raises(
        OSError, match=r"must deliver a.zip. Received HTTP 503 .*5000 bytes are kept"
    ):
        get(remote_of(site), tmp_path)
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[:5000]


def test_server_that_cannot_be_reached_is_named(tmp_path):
    remote = RemoteFile("a.zip", ("http://127.0.0.1:9/a.zip",), "0" * 32)
    with pytest.raises(OSError, match=r"must deliver a.zip. Received .*refused"):
        get(remote, tmp_path)


def test_wrong_checksum_is_refused_and_leaves_nothing(site, tmp_path):
    remote = remote_of(site, urls=(f"{site.url}/other.zip",))
    with pytest.raises(ValueError, match=r"must have MD5 .*Received 1024000 bytes with MD5"):
        get(remote, tmp_path)
    assert names(tmp_path) == []


def test_older_file_stays_until_the_new_one_is_whole(site, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"an older edition")
    with pytest.raises(ValueError, match="must have MD5"):
        get(remote_of(site, urls=(f"{site.url}/other.zip",)), tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == b"an older edition"


def test_offer_of_another_size_is_refused_at_once(site, tmp_path):
    with pytest.raises(ValueError, match=r"must have 999 bytes. Received the offer of 1024000"):
        get(remote_of(site, num_bytes=999), tmp_path)


def test_full_disk_is_said_before_the_download(site, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(OSError, match="must have room for the download: 1024000 more bytes"):
        get(remote_of(site), tmp_path)
    assert len(site.requests) == 1


def test_disk_that_fills_up_meanwhile_keeps_what_has_arrived(site, tmp_path):
    def fill(done, total):
        if done > 500_000:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        get(remote_of(site), tmp_path, on_progress=fill)
    kept = (tmp_path / "a.zip.part").stat().st_size
    assert 500_000 < kept < len(CONTENT)
    assert get(remote_of(site), tmp_path).read_bytes() == CONTENT
    assert site.requests[-1][1] == f"bytes={kept}-"
