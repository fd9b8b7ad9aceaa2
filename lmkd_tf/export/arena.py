# SPDX-License-Identifier: Apache-2.0
"""Arena bytes as the TFLM interpreter needs them, never a guess."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmkd_tf.export.interpreter import import_tflm

_LARGEST_BYTES = 4 * 1024 * 1024
_STEP_BYTES = 16  # alignment of everything in the arena
# Kernels of another library ask for other scratch; the margin is what a build may start from.
MARGIN = 0.05


@dataclass(frozen=True)
class Arena:
    """Memory of one model in TFLM on the host.

    Structures of the 64-bit host are larger than those of a Cortex-M: an upper bound.

    Args:
        num_bytes: Size to reserve: what is needed and the margin.
        needed_bytes: Smallest arena in which the model allocates.
        head_bytes: Part of it for tensors and scratch, shared over time.
        tail_bytes: Part of it for what lives as long as the interpreter.
        parts: Bytes of the tail by what they hold, as the recording allocator says.
    """

    num_bytes: int
    needed_bytes: int
    head_bytes: int
    tail_bytes: int
    parts: dict[str, int]


def measure_arena(model_path: str | Path) -> Arena:
    """Finds the smallest arena by bisection and reads what fills it.

    Args:
        model_path: `.tflite` file.

    Returns:
        Its sizes.

    Raises:
        ImportError: If TFLM is not installed.
        RuntimeError: If the model does not allocate at all, or the interpreter printed no
            figure.
    """
    content = Path(model_path).read_bytes()
    text = _printed_allocations(content)
    totals = {
        name: _figure(text, rf"Arena allocation {name} (\d+) bytes")
        for name in ("total", "head", "tail")
    }
    needed = _smallest(Path(model_path), totals["total"])
    parts = re.findall(r"'([^']+)' used (\d+) bytes", text)
    return Arena(
        num_bytes=_rounded(needed * (1.0 + MARGIN)),
        needed_bytes=needed,
        head_bytes=totals["head"],
        tail_bytes=totals["tail"],
        parts={name: int(value) for name, value in parts},
    )


def _smallest(path: Path, hint: int) -> int:
    """Bisects between an arena that is too small and one that is enough.

    In a process of its own: TFLM dereferences null in some arenas that are too small. A size at
    which that process dies does not allocate.
    """
    low, high = 0, _rounded(hint)
    while True:
        command = [sys.executable, "-m", "lmkd_tf.export.arena", str(path), str(low), str(high)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        words = [line.split() for line in done.stdout.splitlines()]
        sizes = {word: [int(size) for kind, size in words if kind == word] for word in _WORDS}
        low = max([low, *sizes["fails"]])
        if done.returncode == 0 and sizes["fits"]:
            return min(sizes["fits"])
        high = min([high, *sizes["fits"]])
        tried = sizes["tries"][-1] if sizes["tries"] else high
        low, high = max(low, tried), max(high, tried + _STEP_BYTES)
        if not sizes["fits"]:
            high *= 2
        if high > _LARGEST_BYTES:
            raise RuntimeError(
                f"A model must allocate in {_LARGEST_BYTES} bytes. "
                f"Received one that TFLM does not allocate: {done.stderr[-300:]!r}. "
                "Make the student smaller."
            )


_WORDS = ("tries", "fits", "fails")


def main(arguments: Sequence[str]) -> None:
    """Bisects and prints every size before and after it is tried.

    Args:
        arguments: Path of the model, a size that is too small, a size that may be enough.
    """
    content, (low, high) = Path(arguments[0]).read_bytes(), map(int, arguments[1:])

    def fits(num_bytes: int) -> bool:
        sys.stdout.write(f"tries {num_bytes}\n")
        sys.stdout.flush()
        is_enough = _allocates(content, num_bytes)
        sys.stdout.write(f"{'fits' if is_enough else 'fails'} {num_bytes}\n")
        return is_enough

    if not fits(high):
        return
    while high - low > _STEP_BYTES:
        middle = low + (high - low) // (2 * _STEP_BYTES) * _STEP_BYTES
        low, high = (low, middle) if fits(middle) else (middle, high)


def _rounded(num_bytes: float) -> int:
    return -(-int(num_bytes) // _STEP_BYTES) * _STEP_BYTES


def _allocates(content: bytes, num_bytes: int) -> bool:
    try:
        import_tflm().Interpreter.from_bytes(content, arena_size=num_bytes)
    except RuntimeError:
        return False
    return True


def _printed_allocations(content: bytes) -> str:
    interpreter = import_tflm().Interpreter.from_bytes(content, arena_size=_LARGEST_BYTES)
    with _captured_stderr() as capture:
        interpreter.print_allocations()
        capture.seek(0)
        return capture.read().decode(errors="replace")


def _figure(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    if not found:
        raise RuntimeError(
            "TFLM must print its arena allocation. "
            f"Received {text[:200]!r}. Install the pinned version of tflite-micro."
        )
    return int(found.group(1))


@contextmanager
def _captured_stderr() -> Iterator[Any]:
    """The interpreter prints to the process's standard error; it goes to a file meanwhile."""
    with tempfile.TemporaryFile() as capture:
        saved = os.dup(2)
        os.dup2(capture.fileno(), 2)
        try:
            yield capture
        finally:
            os.dup2(saved, 2)
            os.close(saved)


if __name__ == "__main__":
    main(sys.argv[1:])
