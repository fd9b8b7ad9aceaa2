# SPDX-License-Identifier: Apache-2.0
"""Makes a preset of the package from a work directory (for maintainers).

Usage:
  python -m lmkd_tf.cli.preset --workdir=FOLDER --role=student [--start=FOLDER]
                               [--before=RECORD] [--output=lmkd_tf/presets]

Writes the trained network of a role (`teacher`, `network` or `student`) as float16 weights with
its training record, and for a student the int8 step graph with its manifest. `--start` is the
work directory whose `network` the student went on from; its training goes into the record.
Where that went on from an earlier preset, `--before` is the record of that one.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from lmkd_tf.cli.common import run_program
from lmkd_tf.config.files import atomic_path, read_json, sha256_of, write_json

_STAGES_OF = {
    "teacher": ("teacher",),
    "network": ("network",),
    "student": ("student", "pruned", "quantized", "export"),
}


def main(arguments: list[str]) -> None:
    """Runs the program."""
    from lmkd_tf.cli.workspace import Workspace
    from lmkd_tf.models.enhancer import load_enhancer

    del arguments
    role, output = flags.FLAGS.role, Path(flags.FLAGS.output)
    workspace, stages = Workspace(Path(flags.FLAGS.workdir)), _STAGES_OF[role]
    folders = [workspace.require(stage, "lmkd-train or lmkd-quickstart") for stage in stages]
    record = read_json(folders[0] / "record.json")
    if role == "teacher" and record["config"]["teacher_preset"]:
        raise ValueError(
            "A preset is made from a network that was trained. "
            f"Received {workspace.root}, which loaded its teacher. Use --role=student."
        )
    # A path of this machine says nothing elsewhere; the settings hold the file's digest.
    for start in ("student_start", "network_start"):
        record["config"][start] = Path(record["config"].get(start, "")).name
    record["command"] = public_command(record.get("command", ""))
    network = record["config"][role]
    name = network["architecture"]
    write_weights(load_enhancer(folders[0] / f"{role}.keras"), output / f"{name}.npz")
    size = {k: v for k, v in network.items() if k != "architecture" and v is not None}
    training = {stage: _training_of(workspace, stage) for stage in stages}
    if flags.FLAGS.start:
        training = {"network": _start_of(training["student"], Path(flags.FLAGS.start)), **training}
    if flags.FLAGS.before:
        training = {"before": read_json(flags.FLAGS.before)["training"], **training}
    entry = {"name": name, "architecture": name, "size": size, "stft": record["config"]["stft"]}
    digest = sha256_of(output / f"{name}.npz")
    write_json(
        output / f"{name}.json",
        {**entry, "weights_sha256": digest, "training": training, "record": record},
    )
    if role == "student":
        _copy_export(workspace.folder("export"), output)


def _training_of(workspace: Any, stage: str) -> dict[str, Any]:
    from lmkd_tf.cli.training import read_history

    folder = workspace.folder(stage)
    record = read_json(folder / "record.json")
    run = {k: record.get(k) for k in ("command", "git_commit", "machine", "versions")}
    run["command"] = public_command(run["command"] or "")
    return {
        "seconds": workspace.seconds(stage),
        "run": run,
        "settings": read_json(folder / "stage.json")["settings"],
        "last_epoch": {k: v[-1] for k, v in read_history(folder).items()},
    }


def public_command(command: str) -> str:
    """Returns a command as a user would type it: no folders of this machine, no `train.py`.

    Example:
        >>> public_command("lmkd-train --data=/x/corpus --override=network_start=/a/b.keras")
        'lmkd-train --data=corpus --override=network_start=b.keras'
    """
    command = re.sub(r"(^|[=,\s'\"])/(?:[^=,\s'\"]*/)?", r"\1", command)
    return re.sub(r"^(\w+)\.py\b", r"lmkd-\1", command)  # python -m lmkd_tf.cli.train


def _start_of(student: dict[str, Any], workdir: Path) -> dict[str, Any]:
    """Returns the training of the network that a student started from."""
    from lmkd_tf.cli.workspace import Workspace

    workspace = Workspace(workdir)
    folder = workspace.require("network", "lmkd-train --network")
    if student["settings"].get("student_start") != sha256_of(folder / "network.keras"):
        raise ValueError(
            "`--start` must hold the network that the student started from. "
            f"Received {workdir} with another one. Give the folder that `student_start` was in."
        )
    return _training_of(workspace, "network")


def _copy_export(folder: Path, output: Path) -> None:
    from lmkd_tf.export.manifest import manifest_path

    exported = next(folder.glob("*_int8.tflite"))
    for path in (exported, manifest_path(exported)):
        shutil.copyfile(path, output / path.name)


def write_weights(model: Any, path: Path) -> None:
    """Writes the weights of a network's core as float16."""
    values = {str(i): w.astype(np.float16) for i, w in enumerate(model.core.get_weights())}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **values)


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("workdir", None, "Work directory with the stages of the role finished.")
    flags.DEFINE_enum("role", "student", list(_STAGES_OF), "What to make a preset of.")
    flags.DEFINE_string("start", "", "Work directory of the network the student started from.")
    flags.DEFINE_string("before", "", "Record of the preset that the network started from.")
    flags.DEFINE_string("output", "lmkd_tf/presets", "Folder of the presets.")
    flags.mark_flag_as_required("workdir")
    run_program(main, __doc__ or "", ("workdir", "role", "start", "before", "output"))


if __name__ == "__main__":
    run()
