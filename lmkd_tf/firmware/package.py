# SPDX-License-Identifier: Apache-2.0
"""Assembles the firmware as an Arduino library, whose layout has to be flat."""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lmkd_tf.firmware.emulator import FIRMWARE

# What the core library is made of; every way to package it names the same files.
SOURCES = (
    "src/lmkd.c",
    "src/front_end.c",
    "src/fft.c",
    "src/checksum.c",
    "src/network_aot.c",
    "src/nn_dense.c",
    "src/nn_simple.c",
    "generated/tables.c",
    "generated/model_aot.c",
    "generated/model_image.c",
)
_HEADERS = (
    "src/fft.h",
    "src/front_end.h",
    "src/checksum.h",
    "src/network.h",
    "src/nn.h",
    "src/nn_arithmetic.h",
    "generated/lmkd_config.h",
    "generated/model_aot.h",
    "generated/model_data.h",
    "generated/tables.h",
)
PUBLIC_HEADERS = ("include/lmkd/lmkd.h", "include/lmkd/status.h")


def write_arduino_library(out_dir: str | os.PathLike) -> Path:
    """Writes a folder that the Arduino IDE installs: `library.properties` and `src/`.

    Args:
        out_dir: Folder to make; it must not exist.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder exists.
    """
    folder = Path(out_dir)
    if folder.exists():
        raise FileExistsError(
            "The library must go to a new folder. "
            f"Received {folder}, which exists. Remove it or give another name."
        )
    (folder / "src" / "lmkd").mkdir(parents=True)
    for name in (*SOURCES, *_HEADERS):
        shutil.copy(FIRMWARE / name, folder / "src")
    for name in PUBLIC_HEADERS:
        shutil.copy(FIRMWARE / name, folder / "src" / "lmkd")
    shutil.copy(FIRMWARE / "packaging" / "arduino" / "library.properties", folder)
    (folder / "src" / "lmkd.h").write_text(
        "// SPDX-License-Identifier: Apache-2.0\n"
        "// The one header that the Arduino IDE includes.\n"
        '#include "lmkd/lmkd.h"\n'
    )
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Assembles the library.

    Args:
        arguments: Words of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m lmkd_tf.firmware.package", description=__doc__)
    parser.add_argument("out_dir", type=Path, help="new folder, such as Arduino/libraries/lmkd")
    write_arduino_library(parser.parse_args(arguments).out_dir)


if __name__ == "__main__":
    main()
