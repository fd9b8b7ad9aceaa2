# SPDX-License-Identifier: Apache-2.0
"""Scores of clips on disk, one line each, so that an interrupted run goes on where it stopped."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.config.files import write_text
from lmkd_tf.data.pipeline import EvaluationClip


def source_digest() -> str:
    """Returns a digest of this package's modules, which a commit does not tell from edited ones."""
    package = Path(__file__).parents[1]
    modules = sorted(package.rglob("*.py"))
    texts = [f"{path.relative_to(package)}\n".encode() + path.read_bytes() for path in modules]
    return hashlib.sha256(b"".join(texts)).hexdigest()


class RowStore:
    """Keeps rows under keys.

    Args:
        path: File to read and to append to; a line that a killed process left unfinished is
            taken out.
        context: What all rows depend on, such as versions, as plain values.
    """

    def __init__(self, path: str | Path, context: Any):
        self._path, self._context = Path(path), context
        self._rows: dict[str, dict[str, Any]] = {}
        lines = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        whole = [line for line in lines if self._take(line)]
        if len(whole) < len(lines):
            write_text(self._path, "".join(f"{line}\n" for line in whole))

    def key(self, system: Any, clip: EvaluationClip) -> str:
        """Returns the key of a system's row for a clip.

        Args:
            system: What the enhanced signal depends on, as plain values.
            clip: Clip with its signals.
        """
        digest = hashlib.sha256(json.dumps([self._context, system], sort_keys=True).encode())
        for signal in (clip.noisy, clip.speech):
            digest.update(np.ascontiguousarray(signal, np.float32).tobytes())
        return digest.hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """Returns the row under a key, or None."""
        return self._rows.get(key)

    def put(self, key: str, row: dict[str, Any]) -> None:
        """Appends a row; it is on disk when this returns."""
        self._rows[key] = row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": key, "row": row}) + "\n")

    def _take(self, line: str) -> bool:
        try:
            entry = json.loads(line)
            self._rows[entry["key"]] = entry["row"]
        except (json.JSONDecodeError, TypeError, KeyError):
            return False
        return True
