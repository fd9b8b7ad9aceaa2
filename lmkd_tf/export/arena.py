# SPDX-License-Identifier: Apache-2.0
"""Arena bytes as the TFLM interpreter reports them, never a guess."""

import os
import re
import tempfile
from pathlib import Path

from lmkd_tf.export.interpreter import import_tflm


def measure_arena_bytes(model_path: str | Path) -> int:
    """Allocates a model in TFLM on the host and reads what it used.

    The interpreter only prints the figure, to the process's standard error, so
    that is redirected for a moment. Structures of the 64-bit host are larger than
    those of a Cortex-M: the figure is an upper bound.

    Args:
        model_path: `.tflite` file.

    Returns:
        Arena size in bytes.

    Raises:
        ImportError: If TFLM is not installed.
        RuntimeError: If the interpreter printed no figure.
    """
    content = Path(model_path).read_bytes()
    interpreter = import_tflm().Interpreter.from_bytes(content, arena_size=4 * 1024 * 1024)
    with tempfile.TemporaryFile() as capture:
        saved = os.dup(2)
        os.dup2(capture.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        capture.seek(0)
        text = capture.read().decode(errors="replace")
    found = re.search(r"Arena allocation total (\d+) bytes", text)
    if not found:
        raise RuntimeError(
            "TFLM must print its arena allocation. "
            f"Received {text[:200]!r}. Install the pinned version of tflite-micro."
        )
    return int(found.group(1))
