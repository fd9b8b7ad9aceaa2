# SPDX-License-Identifier: Apache-2.0
"""Downloads large files: resumed where they broke off, checked, and whole or not there."""

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OnProgress = Callable[[int, int], None]

_BLOCK_BYTES = 2**18
_TIMEOUT_S = 60.0
_MAX_FRUITLESS_TRIES = 5
_FIRST_PAUSE_S = 1.0
# Room that is left on the disk.
_SPARE_BYTES = 2**20


@dataclass(frozen=True)
class RemoteFile:
    """Names a file on a server and what it must be.

    Args:
        name: File name to store it under.
        urls: Where it is, the same file behind each; tried in turn.
        md5: MD5 of its content, as its publisher states it.
        num_bytes: Exact size in bytes; None where it is not known.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    num_bytes: int | None = None

    def describe(self) -> str:
        """Returns name, size and checksum as one line."""
        size = f"{self.num_bytes:,} bytes" if self.num_bytes else "size told by the server"
        return f"{self.name}: {size}, MD5 {self.md5}"


def fetch(
    remote: RemoteFile,
    folder: str | Path,
    *,
    on_progress: OnProgress | None = None,
    first_pause_s: float = _FIRST_PAUSE_S,
) -> Path:
    """Downloads a file unless it is there, going on where an earlier try broke off.

    What has arrived is kept as `NAME.part`. The file gets its name only when size and
    checksum are right; a wrong one is deleted, since no further byte would mend it.

    Args:
        remote: What to download.
        folder: Folder for it.
        on_progress: Called with (bytes here, bytes in all).
        first_pause_s: Pause before the second try in s, doubled for each further one.

    Returns:
        Path of the file.

    Raises:
        OSError: If the server cannot be reached, or the disk is full; the part is kept.
        ValueError: If the content is not what it must be.
    """
    target = Path(folder) / remote.name
    if target.is_file() and _md5_of(target) == remote.md5:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    _receive_all(remote, part, on_progress or (lambda done, total: None), first_pause_s)
    _check(remote, part)
    os.replace(part, target)
    return target


def _receive_all(
    remote: RemoteFile, part: Path, on_progress: OnProgress, first_pause_s: float
) -> None:
    """Tries until all has arrived; gives up after some tries that brought nothing."""
    fruitless = attempt = 0
    while True:
        before = _size_of(part)
        url = remote.urls[attempt % len(remote.urls)]
        attempt += 1
        try:
            _receive(url, remote, part, on_progress)
            return
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        except TimeoutError:
            reason = f"no answer for {_TIMEOUT_S:g} s"
        fruitless = 0 if _size_of(part) > before else fruitless + 1
        if fruitless >= _MAX_FRUITLESS_TRIES:
            raise OSError(
                f"The server must deliver {remote.name}. Received {reason} from {url}, "
                f"{_MAX_FRUITLESS_TRIES} times in a row. Try again later: "
                f"{_size_of(part)} bytes are kept in {part}."
            )
        time.sleep(first_pause_s * 2**fruitless if fruitless else first_pause_s)


def _receive(url: str, remote: RemoteFile, part: Path, on_progress: OnProgress) -> None:
    """Receives what is missing by one request.

    Raises:
        ConnectionError: If the connection ended too early.
    """
    done = _size_of(part)
    if remote.num_bytes and done == remote.num_bytes:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "lmkd-tf"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            return  # all of it is here, says the server; the checksum will tell
        raise
    with response:
        is_resumed = response.status == http.client.PARTIAL_CONTENT
        done = done if is_resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else (remote.num_bytes or 0)
        _check_size(remote, total)
        _check_room(part, total - done)
        with part.open("ab" if is_resumed else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                done += len(block)
                on_progress(done, total)
    if done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _check_size(remote: RemoteFile, total: int) -> None:
    if remote.num_bytes and total and total != remote.num_bytes:
        raise ValueError(
            f"{remote.name} must have {remote.num_bytes} bytes. "
            f"Received the offer of {total} from the server. "
            "It is another file: fetch it by hand from the page of the corpus."
        )


def _check_room(part: Path, missing_bytes: int) -> None:
    free_bytes = shutil.disk_usage(part.parent).free
    if missing_bytes + _SPARE_BYTES > free_bytes:
        raise OSError(
            f"The disk must have room for the download: {missing_bytes} more bytes. "
            f"Received {part.parent} with {free_bytes} bytes free. Free some space; "
            "what has arrived is kept."
        )


def _check(remote: RemoteFile, part: Path) -> None:
    digest = _md5_of(part)
    if digest != remote.md5:
        num_bytes = _size_of(part)
        part.unlink()
        raise ValueError(
            f"{remote.name} must have MD5 {remote.md5}. "
            f"Received {num_bytes} bytes with MD5 {digest}, and deleted them. "
            "Download it again; if that repeats, the file on the server has changed."
        )


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _md5_of(path: Path) -> str:
    """Returns the MD5 that publishers state; it finds damage, not malice."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
