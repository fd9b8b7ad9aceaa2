# SPDX-License-Identifier: Apache-2.0
"""Unpacks archives of others: nothing outside the folder, no links, no bombs."""

import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from lmkd_tf.data.packed import replace_folder

OnProgress = Callable[[int, int], None]

_BLOCK_BYTES = 2**18
# Audio as PCM packs to about half; text to a tenth.
_MAX_RATIO = 100
_RATIO_FREE_BYTES = 2**20
_DEFAULT_MAX_BYTES = 2**40
_MAX_MEMBERS = 1_000_000
# RuntimeError: members that are encrypted or compressed in an unknown way.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError)


@dataclass(frozen=True)
class _Member:
    """One file of an archive: its name, its stated size, and how to open it."""

    name: str
    num_bytes: int
    is_regular: bool
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    max_bytes: int = _DEFAULT_MAX_BYTES,
    on_progress: OnProgress | None = None,
) -> Path:
    """Unpacks a zip or tar archive into a folder, all of it or nothing.

    Every name is checked before the first byte is written. What an archive says about
    sizes is not trusted: the limit holds for the bytes that come out.

    Args:
        archive: Archive, by its content a zip or tar file.
        folder: Folder to make; an existing one is replaced when all is unpacked.
        max_bytes: Most bytes that may come out.
        on_progress: Called with (files done, files in all).

    Returns:
        The folder.

    Raises:
        ValueError: If the archive is damaged, holds a path that leads out of the folder,
            a link, a device or two files of one name, or unpacks to far more than it is.
        OSError: If the disk is full; nothing is left behind.
    """
    source, target = Path(archive), Path(folder).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial-{uuid.uuid4().hex[:8]}"
    limit = min(max_bytes, _MAX_RATIO * source.stat().st_size + _RATIO_FREE_BYTES)
    try:
        partial.mkdir()
        with _open_members(source) as members:
            _check_names(source, members)
            _check_total(source, sum(m.num_bytes for m in members), limit, target.parent)
            _write_all(source, members, partial, limit, on_progress)
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


@contextmanager
def _open_members(source: Path) -> Iterator[list[_Member]]:
    """Yields the members of an archive but for folders."""
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                yield [_zip_member(archive, info) for info in archive.infolist() if _is_file(info)]
        else:
            with tarfile.open(source) as archive:
                yield [_tar_member(archive, info) for info in archive if not info.isdir()]
    except (*_DAMAGE, EOFError) as error:
        raise ValueError(
            "An archive must be a whole zip or tar file. "
            f"Received {source}: {error}. Download it again."
        ) from error


def _is_file(info: zipfile.ZipInfo) -> bool:
    return not info.is_dir() and not info.filename.startswith("__MACOSX/")


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    is_regular = stat.S_IFMT(mode) in (0, stat.S_IFREG)
    return _Member(info.filename, info.file_size, is_regular, lambda: archive.open(info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    return _Member(info.name, info.size, info.isreg(), lambda: archive.extractfile(info))


def _check_names(source: Path, members: list[_Member]) -> None:
    if not 0 < len(members) <= _MAX_MEMBERS:
        raise _refusal(source, f"{len(members)} files", f"hold 1 to {_MAX_MEMBERS} files")
    seen: set[str] = set()
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        is_inside = not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
        if not is_inside:
            raise _refusal(source, f"the path {member.name!r}", "stay within its folder")
        if not member.is_regular:
            raise _refusal(source, f"{member.name!r}, a link or device", "hold plain files only")
        if path.as_posix() in seen:
            raise _refusal(source, f"{member.name!r} twice", "hold every name once")
        seen.add(path.as_posix())


def _check_total(source: Path, num_bytes: int, limit: int, folder: Path) -> None:
    if num_bytes > limit:
        raise _refusal(source, f"{num_bytes} bytes once unpacked", f"unpack to at most {limit}")
    free_bytes = shutil.disk_usage(folder).free
    if num_bytes > free_bytes:
        raise OSError(
            f"The disk must have room for what is unpacked: {num_bytes} bytes. "
            f"Received {folder} with {free_bytes} bytes free. Free some space and try again."
        )


def _write_all(
    source: Path,
    members: Iterable[_Member],
    folder: Path,
    limit: int,
    on_progress: OnProgress | None,
) -> None:
    listed = list(members)
    left = limit
    for done, member in enumerate(listed, 1):
        path = folder / PurePosixPath(member.name.replace("\\", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = member.open()
        if stream is None:
            raise _refusal(source, f"{member.name!r}, which is no file", "hold plain files only")
        with stream, path.open("xb") as file:
            while block := stream.read(_BLOCK_BYTES):
                left -= len(block)
                if left < 0:
                    raise _refusal(source, "more than it states", f"unpack to at most {limit}")
                file.write(block)
        if on_progress is not None:
            on_progress(done, len(listed))


def _refusal(source: Path, received: str, rule: str) -> ValueError:
    return ValueError(
        f"An archive must {rule}. Received {source} with {received}. "
        "Nothing was unpacked; get the archive from its publisher."
    )
