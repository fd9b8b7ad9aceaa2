# SPDX-License-Identifier: Apache-2.0
"""A work directory whose finished stages are reused."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from lmkd_tf.config.files import read_json, sha256_of, write_json

_RECORD = "stage.json"
_STARTED = "started.json"


class Workspace:
    """Runs stages in folders of a work directory and remembers what they depend on.

    A stage is finished when its `stage.json` exists. It is run again when its
    settings or one of its inputs changed, or when a file that it wrote is missing
    or damaged. A stage that was interrupted finds its folder as it left it.

    Args:
        root: Work directory; created when the first stage starts.
    """

    def __init__(self, root: Path):
        self.root = Path(root)

    def folder(self, stage: str) -> Path:
        """Returns the folder of a stage."""
        return self.root / stage

    def require(self, stage: str, command: str) -> Path:
        """Returns the folder of a finished stage.

        Raises:
            FileNotFoundError: If the stage has not finished.
        """
        if not (self.folder(stage) / _RECORD).is_file():
            raise FileNotFoundError(
                f"This stage needs the result of stage {stage!r}. "
                f"Received the work directory {self.root}, which has none. Run {command} first."
            )
        return self.folder(stage)

    def is_finished(self, stage: str, settings: Any, inputs: Sequence[str]) -> bool:
        """Tells whether a stage need not run; see `run` for the arguments."""
        folder = self.folder(stage)
        if not (folder / _RECORD).is_file():
            return False
        try:
            record = read_json(folder / _RECORD)
        except ValueError:
            return False
        if record.get("fingerprint") != self._fingerprint(stage, settings, inputs):
            return False
        damaged = [
            name
            for name, digest in record["files"].items()
            if not (folder / name).is_file() or sha256_of(folder / name) != digest
        ]
        if damaged:
            logging.warning("Stage %s runs again: %s missing or damaged.", stage, damaged)
        return not damaged

    def run(
        self,
        stage: str,
        settings: Any,
        inputs: Sequence[str],
        make: Callable[[Path], None],
    ) -> Path:
        """Runs a stage unless it is finished.

        Args:
            stage: Name of the stage and of its folder.
            settings: Everything the result depends on, as plain values.
            inputs: Stages whose results are read.
            make: Writes the results into the folder it is given.

        Returns:
            Folder of the stage.
        """
        folder = self.folder(stage)
        if self.is_finished(stage, settings, inputs):
            return folder
        fingerprint = self._fingerprint(stage, settings, inputs)
        if not self._is_resumable(folder, fingerprint):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _RECORD).unlink(missing_ok=True)
        write_json(folder / _STARTED, {"fingerprint": fingerprint})
        started_s = time.monotonic()
        make(folder)
        (folder / _STARTED).unlink()
        files = {
            str(path.relative_to(folder)): sha256_of(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        record = {
            "fingerprint": fingerprint,
            "seconds": round(time.monotonic() - started_s, 1),
            "settings": settings,
            "files": files,
        }
        write_json(folder / _RECORD, record)
        return folder

    def seconds(self, stage: str) -> float:
        """Returns how long a finished stage took, in s."""
        return float(read_json(self.folder(stage) / _RECORD)["seconds"])

    def _is_resumable(self, folder: Path, fingerprint: str) -> bool:
        try:
            return read_json(folder / _STARTED)["fingerprint"] == fingerprint
        except (FileNotFoundError, ValueError, KeyError):
            return False

    def _fingerprint(self, stage: str, settings: Any, inputs: Sequence[str]) -> str:
        upstream = [
            read_json(self.folder(name) / _RECORD)["files"]
            for name in inputs
            if (self.folder(name) / _RECORD).is_file()
        ]
        text = json.dumps([stage, settings, upstream], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()
