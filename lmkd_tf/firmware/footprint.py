# SPDX-License-Identifier: Apache-2.0
"""Measures flash, memory, stack and instructions per hop of the firmware, core by core.

Usage:
  python -m lmkd_tf.firmware.footprint [--check] [--cores=m4f,m55]
  python -m lmkd_tf.firmware.footprint [--check] --students=small,base

Builds the firmware, runs `benchmark` in QEMU and prints two tables. Without --check it
writes microcontroller/footprint.json; with it, a figure that grew by more than the
tolerance is an error. Emulators count instructions, not cycles. `--students` does the same for
presets that the firmware is not generated from, on a Cortex-M4F, in microcontroller/students.json.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import run as run_process
from typing import Any

from lmkd_tf.config.files import read_json, sha256_of, write_json
from lmkd_tf.firmware.emulator import CORES, FIRMWARE, build, build_counter, emulate
from lmkd_tf.firmware.generate import DEFAULT_MANIFEST, generate

TABLE = FIRMWARE / "footprint.json"
STUDENTS = FIRMWARE / "students.json"
_STUDENT_CORE = "m4f"
# Growth that is an error. Another compiler moves figures by more; CI has the one of the table.
TOLERANCE = 0.02
_NUM_HOPS = 40
STAGES = ("network", "transforms", "features", "mask and overlap-add", "frame loop")
_STAGE_OF_OBJECT = {
    "nn_dense.c.obj": "network",
    "nn_simple.c.obj": "network",
    "model_aot.c.obj": "network",
    "network_aot.c.obj": "network",
    "fft.c.obj": "transforms",
    "fft_cmsis.c.obj": "transforms",
    "front_end.c.obj": "features",
    "lmkd.c.obj": "frame loop",
}
_STAGE_OF_FUNCTION = {
    # State of the network, and hops of samples.
    "memmove": "network",
    "memcpy": "network",
    "lmkd_band_gains": "mask and overlap-add",
    "lmkd_apply_gains": "mask and overlap-add",
    "lmkd_overlap_add": "mask and overlap-add",
    "prv_bin_gain": "mask and overlap-add",
}
_DATA_OBJECTS = {"model_image.c.obj": "model_bytes", "tables.c.obj": "tables_bytes"}


def measure(core: str) -> dict[str, Any]:
    """Builds the firmware for a core and measures it.

    Args:
        core: One of `CORES`.

    Returns:
        Bytes of code, model, tables, data, bss, instance and stack, and instructions per
        hop by stage.

    Raises:
        RuntimeError: If a tool fails.
    """
    return _measure_build(build(f"cortex-{core}"))


def measure_student(manifest_path: str | Path) -> dict[str, Any]:
    """Generates and builds the firmware of another student for a Cortex-M4F and measures it.

    Args:
        manifest_path: Manifest of an int8 model that lies beside it.

    Returns:
        Figures as those of `measure`, and `manifest_sha256`.

    Raises:
        RuntimeError: If a tool fails.
        ValueError: If the model holds what the firmware lacks.
    """
    with tempfile.TemporaryDirectory() as name:
        generated = Path(name) / "generated"
        generate(manifest_path, generated)
        settings = {"LMKD_GENERATED_DIR": generated}
        folder = build(f"cortex-{_STUDENT_CORE}", Path(name) / "build", settings, ("benchmark",))
        return {"manifest_sha256": sha256_of(manifest_path), **_measure_build(folder)}


def _measure_build(folder: Path) -> dict[str, Any]:
    sizes = section_sizes(folder / "liblmkd.a")
    facts = _benchmark_facts(emulate(folder, "benchmark", [str(_NUM_HOPS)])[0])
    stages = _count_stages(folder)
    return {
        **sizes,
        "instance_bytes": facts["memory_bytes"],
        "init_stack_bytes": facts["init_stack_bytes"],
        "hop_stack_bytes": facts["hop_stack_bytes"],
        "largest_frame_bytes": largest_frame(folder),
        "instructions_per_hop": {**stages, "total": sum(stages.values())},
    }


def measured_instructions(manifest_path: str | Path) -> int | None:
    """Returns the instructions per hop of the firmware of a network on a Cortex-M4F.

    Args:
        manifest_path: Manifest of a quantized network.

    Returns:
        Instructions of a whole hop in `microcontroller/footprint.json` or `students.json`; None
        where there are no such tables, or where this network was not measured.
    """
    digest = sha256_of(manifest_path)
    students = read_json(STUDENTS).values() if STUDENTS.is_file() else ()
    for figures in students:
        if figures["manifest_sha256"] == digest:
            return figures["instructions_per_hop"]["total"]
    source = FIRMWARE / "generated" / "lmkd_config.h"
    if not (TABLE.is_file() and source.is_file()):
        return None  # an installed package has no firmware beside it
    is_same = digest in source.read_text("utf-8")
    return read_json(TABLE)[_STUDENT_CORE]["instructions_per_hop"]["total"] if is_same else None


def section_sizes(library: Path) -> dict[str, int]:
    """Returns the bytes of a library: code, model, tables, data and bss."""
    done = run_process(["arm-none-eabi-size", library], capture_output=True, text=True, check=True)
    kinds = ("code", "model", "tables", "data", "bss")
    sizes = {f"{kind}_bytes": 0 for kind in kinds}
    for line in done.stdout.splitlines()[1:]:
        text, data, bss, _, _, name, *_ = line.split()
        sizes[_DATA_OBJECTS.get(name, "code_bytes")] += int(text)
        sizes["data_bytes"] += int(data)
        sizes["bss_bytes"] += int(bss)
    return sizes


def largest_frame(folder: Path) -> int:
    """Returns the bytes of the largest stack frame of one function, from `-fstack-usage`.

    Args:
        folder: Folder of a build with gcc.
    """
    lines = [
        line.split()
        for file in (folder / "CMakeFiles" / "lmkd.dir").rglob("*.su")
        for line in file.read_text().splitlines()
    ]
    return max(int(words[-2]) for words in lines)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names the figures that grew by more than the tolerance, texts that differ, what is missing.

    Args:
        found: Figures of one core, nested.
        wanted: What the table says.

    Returns:
        One line per figure.

    Example:
        >>> differences({"code_bytes": 110}, {"code_bytes": 100})
        ['code_bytes is 110, the table says 100']
    """
    lines = []
    for name, limit in wanted.items():
        value = found.get(name)
        if isinstance(limit, str):
            lines += [] if value == limit else [f"{name} is {value}, the table says {limit}"]
        elif isinstance(limit, Mapping):
            lines += [f"{name}.{line}" for line in differences(value or {}, limit)]
        elif value is None or value > limit * (1.0 + TOLERANCE):
            lines.append(f"{name} is {value}, the table says {limit}")
    return lines


def format_tables(cores: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the two tables as markdown.

    Args:
        cores: Figures of `measure` by core.
    """
    names = list(cores)
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    first = next(iter(cores.values()))
    for key in first:
        if key not in ("instructions_per_hop", "manifest_sha256"):
            cells = [f"{cores[name][key]:,}" for name in names]
            lines.append(f"| {key.replace('_', ' ')} | {' | '.join(cells)} |")
    lines += ["", f"| instructions per hop | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for stage in (*STAGES, "total"):
        cells = [f"{cores[name]['instructions_per_hop'][stage]:,}" for name in names]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _benchmark_facts(output: str) -> dict[str, int]:
    pairs = (line.split() for line in output.splitlines() if line.strip())
    return {name: int(value) for name, value in pairs}


def _count_stages(folder: Path) -> dict[str, int]:
    """Instructions per hop by stage: a long run less a short one, so that the start cancels."""
    counter = build_counter(folder)
    counts = [
        emulate(folder, "benchmark", [str(num_hops)], counter)[1]
        for num_hops in (_NUM_HOPS, 2 * _NUM_HOPS)
    ]
    stage_of = _stage_of_symbols(folder / "liblmkd.a")
    stages: dict[str, int] = dict.fromkeys(STAGES, 0)
    for name, count in counts[1].items():
        stage = stage_of.get(name)
        if stage:
            stages[stage] += count - counts[0].get(name, 0)
    return {stage: round(count / _NUM_HOPS) for stage, count in stages.items()}


def _stage_of_symbols(library: Path) -> dict[str, str]:
    done = run_process(["arm-none-eabi-nm", library], capture_output=True, text=True, check=True)
    stages, stage = {}, None
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) == 1:
            stage = _STAGE_OF_OBJECT.get(words[0].rstrip(":"))
        elif len(words) == 3 and words[1] in "tT" and stage:
            stages[words[2]] = stage
    return {**stages, **_STAGE_OF_FUNCTION}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes or checks the table.

    Args:
        arguments: Words of the command line; by default those of the process.

    Raises:
        SystemExit: With `--check`, if a figure grew.
    """
    parser = argparse.ArgumentParser(prog="python -m lmkd_tf.firmware.footprint")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--cores", default=",".join(CORES), help="cores to measure")
    parser.add_argument("--students", default="", help="presets to measure on an M4F instead")
    options = parser.parse_args(arguments)
    if options.students:
        path, names = STUDENTS, options.students.split(",")
        manifests = {
            name: DEFAULT_MANIFEST.with_name(f"{name}_int8.manifest.json") for name in names
        }
        found = {name: measure_student(manifest) for name, manifest in manifests.items()}
    else:
        path, found = TABLE, {core: measure(core) for core in options.cores.split(",")}
    sys.stdout.write(format_tables(found))
    if not options.check:
        write_json(path, found)
        return
    table = read_json(path)
    lines = [f"{name}: {line}" for name in found for line in differences(found[name], table[name])]
    if lines:
        parser.error(
            f"The firmware must not grow past {path.name}. Received {'; '.join(lines)}. "
            "Make it smaller, or run ./x firmware and explain the growth in the commit."
        )


if __name__ == "__main__":
    main()
