# SPDX-License-Identifier: Apache-2.0
"""Builds the firmware for a Cortex-M with CMake and runs its programs in QEMU."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

FIRMWARE = Path(__file__).resolve().parents[2] / "microcontroller"
CORES = ("m3", "m4f", "m7", "m33", "m55")
_RUN_SECONDS = 300


def build(
    preset: str,
    folder: Path | None = None,
    definitions: Mapping[str, object] | None = None,
    targets: Sequence[str] = (),
) -> Path:
    """Configures and builds the firmware with a preset of `CMakePresets.json`.

    Args:
        preset: Name such as `"host"` or `"cortex-m4f"`.
        folder: Folder to build in; by default the one of the preset.
        definitions: CMake settings beside those of the preset.
        targets: What to build; by default everything.

    Returns:
        The folder.

    Raises:
        RuntimeError: If CMake or the compiler fails, with the end of its output.
    """
    folder = folder or FIRMWARE / "build" / preset
    settings = [f"-D{name}={value}" for name, value in (definitions or {}).items()]
    _run(["cmake", "--preset", preset, "-B", str(folder), *settings])
    wanted = ["--target", *targets] if targets else []
    _run(["cmake", "--build", str(folder), "--parallel", "2", *wanted])
    return folder


def build_counter(folder: Path) -> Path:
    """Compiles the instruction counter, a plugin of QEMU.

    Args:
        folder: Folder to write to.

    Returns:
        The shared object.

    Raises:
        RuntimeError: If it does not compile.
    """
    plugin = folder / "qemu_count.so"
    source = FIRMWARE / "tools" / "qemu_count.c"
    _run(["cc", "-shared", "-fPIC", "-O2", str(source), "-o", str(plugin)])
    return plugin


def emulate(
    folder: Path, program: str, arguments: Sequence[str] = (), counter: Path | None = None
) -> tuple[str, dict[str, int]]:
    """Runs a program of a build for a Cortex-M in QEMU.

    Args:
        folder: Folder of the build.
        program: Name of the program, without its suffix.
        arguments: Arguments of the program; they must not hold spaces or commas.
        counter: Plugin of `build_counter`, to count instructions.

    Returns:
        Standard output, and instructions by function (empty without a counter).

    Raises:
        RuntimeError: If the program ends with another status than 0.
    """
    command = (folder / "emulator.txt").read_text().split(";")
    kernel = command.index("-kernel")
    options = command[:kernel]
    semihosting = options.index("-semihosting-config") + 1
    options[semihosting] += "".join(f",arg={word}" for word in (program, *arguments))
    counts = folder / f"{program}.counts"
    if counter:
        options += ["-plugin", f"{counter},out={counts}"]
    output = _run([*options, "-kernel", str(folder / f"{program}.elf")])
    return output, _read_counts(counts) if counter else {}


def _read_counts(path: Path) -> dict[str, int]:
    lines = (line.split(maxsplit=1) for line in path.read_text().splitlines())
    return {name: int(count) for count, name in lines}


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, cwd=FIRMWARE, capture_output=True, text=True, check=False, timeout=_RUN_SECONDS
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise RuntimeError(
            f"{Path(command[0]).name} must end with status 0. "
            f"Received status {done.returncode}:\n{tail}\nRead the lines above."
        )
    return done.stdout
