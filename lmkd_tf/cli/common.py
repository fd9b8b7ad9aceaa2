# SPDX-License-Identifier: Apache-2.0
"""What the training programs share: flags, the road, errors in one line."""

import errno
import functools
import importlib
import importlib.util
import logging as std_logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

_PACKAGE = Path(__file__).resolve().parents[1]
# Mistakes of the user and of the machine; --verbosity=1 shows the traceback.
USER_ERRORS = (ValueError, TypeError, RuntimeError, ImportError, OSError, FloatingPointError)
TRAINING_FLAGS = ("config", "workdir", "data", "override")


def define_flags(config: str, workdir: str | None, data: str | None) -> None:
    """Defines the flags of a training program.

    Args:
        config: Default configuration, a name in `configs/` or a path.
        workdir: Default work directory, or None if it must be given.
        data: Default data folder, or None if it must be given.
    """
    flags.DEFINE_string("config", config, "Configuration: a file, or a name in configs/.")
    flags.DEFINE_string("workdir", workdir, "Folder for the results, one folder per stage.")
    flags.DEFINE_string("data", data, "Corpus of any layout that lmkd-data inspect knows.")
    flags.DEFINE_multi_string(
        "override", [], "Setting to change, such as --override=distill.mixup_alpha=0.4."
    )


def define_backend_flag() -> None:
    """Defines `--backend`; `start_backend` acts on it."""
    default = "jax" if os.environ.get("KERAS_BACKEND") == "jax" else "tensorflow"
    flags.DEFINE_enum(
        "backend", default, ["tensorflow", "jax"], "Backend of Keras; jax needs no TensorFlow."
    )


def start_backend() -> None:
    """Loads the backend that `--backend` names.

    Raises:
        ImportError: If it is not installed.
    """
    name = flags.FLAGS.backend
    if importlib.util.find_spec(name) is None:
        raise ImportError(
            f"Training needs the package {name}. It is not installed here. "
            f"Run pip install {'lmkd-tf[jax]' if name == 'jax' else 'lmkd-tf'!r}, "
            "or choose another --backend."
        )
    os.environ["KERAS_BACKEND"] = name  # before Keras is imported
    if name == "tensorflow":
        import_tensorflow_quietly()
    else:  # it tells of every accelerator that it does not find
        std_logging.getLogger("jax._src.xla_bridge").setLevel(std_logging.WARNING)


def config_path(name: str) -> Path:
    """Returns the path of a configuration given by path or by its name in `configs/`."""
    path = Path(name)
    if path.suffix == ".py" or path.is_file():  # a folder of that name is no configuration
        return path
    installed = _PACKAGE / "configs"  # where setup.py puts them
    return (installed if installed.is_dir() else _PACKAGE.parent / "configs") / f"{name}.py"


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


def run_program(
    main: Callable[[list[str]], int | None],
    text: str,
    flag_names: Sequence[str],
    *,
    needs_tensorflow: bool = True,
) -> None:
    """Runs a program; a user's mistake ends in one line on stderr and status 1.

    Args:
        main: Takes the arguments that are not flags; returns an exit status or None.
        text: What the program does and how it is called, for `--help`.
        flag_names: Flags that `--help` lists.
        needs_tensorflow: Whether to import TensorFlow first.
    """
    # absl looks for both in the module that was started, which is pip's stub here.
    sys.modules["__main__"].__doc__ = "\n" + text
    for name in flag_names:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(functools.partial(_run_guarded, main, needs_tensorflow))


def _run_guarded(
    main: Callable[[list[str]], int | None], needs_tensorflow: bool, arguments: list[str]
) -> None:
    program = Path(sys.argv[0]).name
    try:
        if needs_tensorflow:
            import_tensorflow_quietly()
        status = main(arguments) or 0
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted; run it again to go on.\n")
        status = 130
    except USER_ERRORS as error:
        logging.debug("Traceback:", exc_info=True)
        is_full = getattr(error, "errno", None) == errno.ENOSPC
        remedy = " Free space and run it again; what was finished is kept." if is_full else ""
        sys.stderr.write(f"{program}: {error}{remedy}\n")
        status = 1
    sys.exit(status)


def check_packages() -> None:
    """Refuses to start a long run that would end for want of a package.

    Raises:
        ImportError: If packages of the extras are missing, naming all of them.
    """
    needed = {"tflite_micro": "micro", "ai_edge_litert": "micro"}
    needed |= dict.fromkeys(("pesq", "pystoi", "speechmos", "onnxruntime"), "eval")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({needed[name] for name in missing}))
        raise ImportError(
            "The whole road needs the packages of its extras. "
            f"Received an installation without {', '.join(missing)}. "
            f"Run pip install 'lmkd-tf[{extras}]' (tflite-micro exists for Linux x86-64 only)."
        )


def run_stages(stage_names: tuple[str, ...], settings: Sequence[str] = ()) -> None:
    """Runs stages of the road as the flags say, with progress.

    Args:
        stage_names: Stages, in order.
        settings: Overrides that come before those of the flags.
    """
    from lmkd_tf.cli.progress import Progress, ProgressCallback
    from lmkd_tf.cli.road import Listener, Road
    from lmkd_tf.config.loader import load

    values = flags.FLAGS
    config = load(config_path(values.config), [*settings, *values.override])
    is_distilling = stage_names != ("network",)
    road = Road(config, Path(values.workdir), Path(values.data), is_distilling=is_distilling)
    for name in stage_names:
        if road.is_finished(name):
            sys.stdout.write(f"{name}: finished before, reused\n")
            continue
        with Progress("recordings") as progress:
            road.audio.load_all(progress.update_of)
        with Progress(name) as progress:
            callback = ProgressCallback(progress, _seconds_per_batch(config, name))
            folder = road.run(name, Listener((callback,)))
        sys.stdout.write(f"{name}: {folder}\n")
        if callback.real_time_factor:
            sys.stdout.write(f"{name}: trained at {callback.real_time_factor:.0f} x real time\n")


def _seconds_per_batch(config: Any, stage: str) -> float:
    """Returns how much noisy audio a training step of a stage sees, in s."""
    names = {"teacher": "teacher_training", "student": "distillation_training"}
    train = getattr(config, names.get(stage, f"{stage}_training"), None)
    return 2.0 * train.batch_size * config.data.crop_seconds if train else 0.0
