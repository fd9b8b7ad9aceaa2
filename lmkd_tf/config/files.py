# SPDX-License-Identifier: Apache-2.0
"""Writes artefacts whole or not at all."""

import contextlib
import hashlib
import json
import numbers
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` when the block succeeds.

    The temporary file lies in the same folder and keeps every suffix, because
    several writers choose their format by it. An exception (a full disk,
    Ctrl-C) removes the temporary file and leaves an older `path` untouched.

    Args:
        path: File to write; its folder is created.

    Yields:
        Path to write to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}.{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to `path` atomically as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` to `path` atomically as indented JSON; NaN and infinity become null."""
    # Python would write NaN and Infinity, which are no JSON: jq and browsers refuse them.
    finite = json.loads(json.dumps(value, default=_plain), parse_constant=lambda _: None)
    write_text(path, json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> float | str:
    """Returns what JSON holds of a value that it does not know: numbers of NumPy, paths."""
    is_fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    return float(value) if is_fraction else str(value)


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not valid JSON.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(
            f"A JSON file is needed here. Received {source}, which does not exist. "
            "Check the path or run the stage that writes it."
        )
    try:
        return json.loads(source.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The file must hold valid JSON. Received {source}, which is damaged ({error}). "
            "Delete it and run the stage that writes it again."
        ) from error


def sha256_of(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
