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
    or damaged. A stage that was interrupted finds its folder as it left it. What other
    settings made is in `STAGE.before` until the new result is finished, and is taken
    back if its settings come back before.

    Args:
        root: Work directory; created when the first stage starts.
    """

    def __init__(self, root: Path):
        self.root = Path(root)

    def folder(self, stage: str) -> Path:
        """Returns the folder of a stage."""
        return self.root / stage

    def require(self, stage: str, command: str) -> Path:
        """Returns the folder of a finished stage whose files are as it wrote them.

        Raises:
            FileNotFoundError: If the stage has not finished.
            ValueError: If a file of the stage is missing or damaged.
        """
        record = self._record(stage)
        if record is None:
            raise FileNotFoundError(
                f"This stage needs the result of stage {stage!r}. "
                f"Received the work directory {self.root}, which has none. Run {command} first."
            )
        damaged = self._damaged(stage, record)
        if damaged:
            raise ValueError(
                f"The files of stage {stage!r} must be as that stage wrote them. "
                f"Received {self.folder(stage)} with {damaged} missing or damaged. "
                f"Run {command} again."
            )
        return self.folder(stage)

    def is_finished(self, stage: str, settings: Any, inputs: Sequence[str]) -> bool:
        """Tells whether a stage need not run; see `run` for the arguments."""
        record = self._record(stage)
        if record is None or record["fingerprint"] != self._fingerprint(stage, settings, inputs):
            return False
        damaged = self._damaged(stage, record)
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
        _check_own(folder)
        if not self._is_resumable(folder, fingerprint):
            self._make_room(stage, fingerprint)
            if self.is_finished(stage, settings, inputs):
                return folder
        for leftover in folder.rglob(".*"):  # temporary files of a process that was killed
            if leftover.is_file():
                leftover.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _RECORD).unlink(missing_ok=True)
        write_json(folder / _STARTED, {"fingerprint": fingerprint})
        started_s = time.monotonic()
        make(folder)
        files = {
            str(path.relative_to(folder)): sha256_of(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != folder / _STARTED
        }
        record = {
            "fingerprint": fingerprint,
            "seconds": round(time.monotonic() - started_s, 1),
            "settings": settings,
            "files": files,
        }
        write_json(folder / _RECORD, record)
        (folder / _STARTED).unlink()  # last: a folder without both is not the stage's own
        shutil.rmtree(self.folder(_before(stage)), ignore_errors=True)
        return folder

    def seconds(self, stage: str) -> float:
        """Returns how long a finished stage took, in s."""
        return float(read_json(self.folder(stage) / _RECORD)["seconds"])

    def _record(self, stage: str) -> dict[str, Any] | None:
        """Returns what `run` wrote about a finished stage; None if there is no such record."""
        record = _read_dict(self.folder(stage) / _RECORD)
        return record if {"fingerprint", "seconds", "files"} <= record.keys() else None

    def _damaged(self, stage: str, record: dict[str, Any]) -> list[str]:
        folder = self.folder(stage)
        return [
            name
            for name, digest in record["files"].items()
            if not (folder / name).is_file() or sha256_of(folder / name) != digest
        ]

    def _make_room(self, stage: str, fingerprint: str) -> None:
        """Sets what other settings made aside, or takes back what these settings made."""
        folder, before = self.folder(stage), self.folder(_before(stage))
        own = self._fingerprint_of(stage)
        is_kept = own not in (None, fingerprint)  # these settings' own is damaged
        if is_kept and (self._record(stage) or not before.exists()):
            shutil.rmtree(before, ignore_errors=True)
            folder.rename(before)
            logging.warning("%s is made anew. Until that is done, %s has what was.", folder, before)
        elif folder.exists():
            logging.warning("%s is made anew. What was there was damaged or unfinished.", folder)
            shutil.rmtree(folder)
        if self._fingerprint_of(_before(stage)) == fingerprint:
            before.rename(folder)

    def _fingerprint_of(self, stage: str) -> str | None:
        """Returns what a folder was made from, finished or not."""
        folder = self.folder(stage)
        made = self._record(stage) or _read_dict(folder / _STARTED)
        return made.get("fingerprint")

    def _is_resumable(self, folder: Path, fingerprint: str) -> bool:
        return _read_dict(folder / _STARTED).get("fingerprint") == fingerprint

    def _fingerprint(self, stage: str, settings: Any, inputs: Sequence[str]) -> str:
        records = [self._record(name) for name in inputs]
        upstream = [record["files"] for record in records if record is not None]
        text = json.dumps([stage, settings, upstream], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _before(stage: str) -> str:
    """Returns where the result of other settings waits until a stage is finished."""
    return f"{stage}.before"


def _check_own(folder: Path) -> None:
    """Refuses a folder that a stage did not make, so that nothing of the user's is removed."""
    is_own = (folder / _RECORD).exists() or (folder / _STARTED).exists()
    if folder.is_dir() and any(folder.iterdir()) and not is_own:
        raise ValueError(
            "A stage writes into a folder of its own. "
            f"Received {folder}, which holds other files. Choose another --workdir."
        )


def _read_dict(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; empty if there is none or it is damaged."""
    try:
        value = read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
