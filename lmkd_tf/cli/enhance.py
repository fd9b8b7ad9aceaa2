# SPDX-License-Identifier: Apache-2.0
"""Removes noise from speech recordings.

Usage:
  lmkd-enhance INPUT OUTPUT [--preset=NAME | --model=FILE] [--backend=keras|tflite|tflm|firmware]
      [--attenuation_limit_db=DB]

INPUT is a wav, flac or ogg file of any sample rate and number of channels, and
OUTPUT the wav file to write; it has the rate, channels and length of the input.
INPUT may be a folder: its audio files are written to the folder OUTPUT under the
same names, as wav. The network hears up to 8 kHz; nothing above is kept.

Examples:
  lmkd-enhance noisy.flac enhanced.wav
  lmkd-enhance recordings/ enhanced/ --overwrite
  lmkd-enhance noisy.wav enhanced.wav --model=student_int8.tflite --backend=tflm
"""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lmkd_tf.cli.common import run_program

if TYPE_CHECKING:
    from lmkd_tf.evaluate.enhance import FolderResult
    from lmkd_tf.evaluate.streaming import Backend

DEFAULT_PRESET = "base"  # the best int8 one in PESQ-WB on the test split and elsewhere
DEVICE_PRESET = "nano"  # the one that the firmware is generated from
# As in `lmkd_tf.evaluate.backends`, which would load TensorFlow for --help.
BACKENDS = ("keras", "tflite", "tflm", "firmware")
FLAGS = ("preset", "model", "backend", "overwrite", "attenuation_limit_db")


def main(arguments: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> int:
    """Runs the program.

    Args:
        arguments: Name of the program, input and output.
        values: Parsed flags.

    Returns:
        0, or 1 if some files of a folder failed.

    Raises:
        ValueError: If the arguments or the recording are not usable.
        FileNotFoundError: If there is no such input or model.
    """
    if len(arguments) != 3:
        raise ValueError(
            "This program needs INPUT and OUTPUT. "
            f"Received {list(arguments[1:])}. See lmkd-enhance --help."
        )
    source, target = Path(arguments[1]), Path(arguments[2])
    make_backend = choose_backend(values.preset, values.model, values.backend)
    settings = {
        "overwrite": values.overwrite,
        "attenuation_limit_db": values.attenuation_limit_db,
    }
    if source.is_dir():
        return _enhance_folder(source, target, make_backend, settings)
    _enhance_file(source, target, make_backend, settings)
    return 0


def choose_backend(
    preset: str | None, model: str | None, backend: str | None
) -> "Callable[[], Backend]":
    """Chooses the network and what runs it.

    Args:
        preset: Name of a network that ships with the package, or None.
        model: Model file, or None; with neither, the default preset is used.
        backend: One of `BACKENDS`; None for TFLM, or Keras for a `.keras` file.

    Returns:
        Function that makes a back-end, one per channel.

    Raises:
        ValueError: If both are given, or the preset has no file for the back-end.
    """
    from lmkd_tf.evaluate.backends import keras_backend, open_backend
    from lmkd_tf.models.presets import from_preset, preset_files

    if preset and model:
        raise ValueError(
            "A network is chosen by --preset or by --model. "
            f"Received --preset={preset} and --model={model}. Leave one out."
        )
    is_float = model is not None and Path(model).suffix == ".keras"
    kind = backend or ("keras" if is_float else "tflm")
    if model:
        return lambda: open_backend(kind, model)
    name = preset or default_preset(kind)
    files = preset_files(name)
    if kind == "keras":
        load_network = functools.cache(from_preset)
        return lambda: keras_backend(load_network(name))
    if "tflite" not in files:
        raise ValueError(
            f"The back-end {kind} needs a quantized network. "
            f"Received the preset {name!r}, which is float only. {_remedy(name, files['record'])}"
        )
    return lambda: open_backend(kind, files["tflite"])


def _remedy(name: str, record: Path) -> str:
    """Says what to do with a float-only preset: CMGAN cannot run hop by hop either."""
    from lmkd_tf.config.files import read_json
    from lmkd_tf.models.builder import is_streaming

    if is_streaming(read_json(record)["architecture"]):
        return "Use --backend=keras."
    return (
        f"It cannot stream: compare it with lmkd-evaluate --system={name}@keras, or call "
        f"lmkd_tf.models.from_preset({name!r}) on whole recordings."
    )


def default_preset(backend: str | None) -> str:
    """Returns the preset that runs on a back-end where none is named."""
    return DEVICE_PRESET if backend == "firmware" else DEFAULT_PRESET


def define_system_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags that choose a network and what runs it."""
    flags.DEFINE_string(
        "preset",
        None,
        f"Network that ships with the package (default {DEFAULT_PRESET}; {DEVICE_PRESET} for the "
        "firmware back-end).",
        flag_values=values,
    )
    flags.DEFINE_string(
        "model", None, "Network of your own: a .keras or .tflite file.", flag_values=values
    )
    flags.DEFINE_enum(
        "backend",
        None,
        BACKENDS,
        "What runs it: Keras, TFLite's reference kernels, TFLite Micro, or the C firmware "
        "compiled for this machine. "
        "Default: keras for a .keras file, else tflm.",
        flag_values=values,
    )


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of this program."""
    define_system_flags(values)
    flags.DEFINE_bool("overwrite", False, "Replace outputs that exist already.", flag_values=values)
    flags.DEFINE_float(
        "attenuation_limit_db",
        0.0,
        "Most that any band is attenuated, in dB, such as 12 or 20; 0 leaves it to the network.",
        flag_values=values,
    )


def run() -> None:
    """Entry point of the console script."""
    define_flags()
    run_program(main, __doc__ or "", FLAGS)


def _enhance_file(
    source: Path, target: Path, make_backend: "Callable[[], Backend]", settings: dict[str, Any]
) -> None:
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.evaluate.enhance import enhance_file

    with Progress(f"Enhance {source.name}") as progress:
        report = _speed_meter(progress, shows_name=False)
        enhance_file(source, target, make_backend, on_progress=report, **settings)
    sys.stdout.write(f"{target}: {progress.note}\n")


def _enhance_folder(
    source: Path, target: Path, make_backend: "Callable[[], Backend]", settings: dict[str, Any]
) -> int:
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.evaluate.enhance import enhance_folder

    with Progress(f"Enhance {source.name}") as progress:
        report = _speed_meter(progress, shows_name=True)
        result = enhance_folder(source, target, make_backend, on_progress=report, **settings)
    _show_result(result, target)
    return 1 if result.failed else 0


def _show_result(result: "FolderResult", target: Path) -> None:
    counts = [f"{len(result.written)} files written"]
    if result.skipped:
        counts.append(f"{len(result.skipped)} without audio left out")
    sys.stdout.write(f"{target}: {', '.join(counts)}\n")
    if result.failed:
        sys.stderr.write(f"{len(result.failed)} files failed:\n")
        for path, reason in result.failed:
            sys.stderr.write(f"  {path}: {reason}\n")


def _speed_meter(progress: Any, shows_name: bool) -> Callable[[float, float, str], None]:
    def report(done_seconds: float, total_seconds: float, name: str) -> None:
        progress.total = total_seconds
        speed = done_seconds / max(progress.elapsed_seconds, 1e-6)
        prefix = f"{name}, " if shows_name else ""
        progress.update(done_seconds, f"{prefix}{speed:.1f} times real time")

    return report


if __name__ == "__main__":
    run()
