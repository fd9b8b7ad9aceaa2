# SPDX-License-Identifier: Apache-2.0
"""What the training programs share: flags, the road, errors in one line."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

_PROJECT_ROOT = Path(__file__).resolve().parents[2]
# Mistakes of the user and of the machine; anything else is ours and shows a traceback.
USER_ERRORS = (ValueError, TypeError, FileNotFoundError, ImportError, OSError)


def define_flags(config: str, workdir: str | None, data: str | None) -> None:
    """Defines the flags of a training program.

    Args:
        config: Default configuration, a name in `configs/` or a path.
        workdir: Default work directory, or None if it must be given.
        data: Default data folder, or None if it must be given.
    """
    flags.DEFINE_string("config", config, "Configuration: a file, or a name in configs/.")
    flags.DEFINE_string("workdir", workdir, "Folder for the results, one folder per stage.")
    flags.DEFINE_string("data", data, "Folder with speech/ and noise/, each with manifest.csv.")
    flags.DEFINE_multi_string(
        "override", [], "Setting to change, such as --override=distill.mixup_alpha=0.4."
    )


def config_path(name: str) -> Path:
    """Returns the path of a configuration given by path or by its name in `configs/`."""
    path = Path(name)
    is_name = path.suffix != ".py" and not path.exists()
    return _PROJECT_ROOT / "configs" / f"{name}.py" if is_name else path


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow with its start-up lines kept off the terminal.

    They are written by C++ code straight to the process's standard error before
    any setting is read, so that is redirected for the length of the import.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def run_program(main: Callable[[list[str]], int | None]) -> None:
    """Runs a program; a user's mistake ends in one line on stderr and status 1.

    Args:
        main: Takes the arguments that are not flags; returns an exit status or None.
    """

    def guarded(arguments: list[str]) -> None:
        program = Path(sys.argv[0]).name
        try:
            import_tensorflow_quietly()
            status = main(arguments) or 0
        except KeyboardInterrupt:
            sys.stderr.write(f"{program}: interrupted; run it again to go on.\n")
            status = 130
        except USER_ERRORS as error:
            sys.stderr.write(f"{program}: {error}\n")
            status = 1
        sys.exit(status)

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(guarded)


def run_stages(stage_names: tuple[str, ...]) -> None:
    """Runs stages of the road as the flags say, with progress."""
    from lmkd_tf.cli.progress import Progress, ProgressCallback
    from lmkd_tf.cli.road import Listener, Road
    from lmkd_tf.config.loader import load

    values = flags.FLAGS
    config = load(config_path(values.config), values.override)
    road = Road(config, Path(values.workdir), Path(values.data))
    for name in stage_names:
        if road.is_finished(name):
            sys.stdout.write(f"{name}: finished before, reused\n")
            continue
        with Progress("recordings") as progress:
            road.audio.load_all(progress.update_of)
        with Progress(name) as progress:
            listener = Listener((ProgressCallback(progress),))
            folder = road.run(name, listener)
        sys.stdout.write(f"{name}: {folder}\n")
