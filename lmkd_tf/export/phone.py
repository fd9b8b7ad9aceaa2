# SPDX-License-Identifier: Apache-2.0
"""The step graph for phones: float activations, weights in float16 or int8."""

import tempfile
from pathlib import Path
from typing import Any

from lmkd_tf.config.files import write_bytes
from lmkd_tf.export.tflite import check_core, convert_in_child, write_core
from lmkd_tf.models.enhancer import SpeechEnhancer

_RANGES = {"float16": "float16", "int8": "weights"}


def to_phone(
    core: Any, output: str | Path, *, architecture: str, size: dict[str, Any], weights: str
) -> None:
    """Exports a float student for LiteRT, which a microcontroller does not run.

    Args:
        core: Trained core, or the `SpeechEnhancer` around it.
        output: `.tflite` file to write.
        architecture: Name in `lmkd_tf.models.ARCHITECTURES`.
        size: Size arguments of the network.
        weights: Type of the weights in the file, `"float16"` or `"int8"`.

    Raises:
        RuntimeError: If the converter fails, crashes or does not end.
        ValueError: If the type is unknown, the core is not of that architecture and size, or a
            weight is not finite.
    """
    if weights not in _RANGES:
        raise ValueError(
            f"`weights` must be one of {', '.join(_RANGES)}. Received {weights!r}. Use 'float16'."
        )
    core = core.core if isinstance(core, SpeechEnhancer) else core
    check_core(core, architecture, size)
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch) / "core.npz"
        write_core(core, stored)
        request = {"ranges": _RANGES[weights], "weights": str(stored)}
        content = convert_in_child({**request, "architecture": architecture, "size": size})
    write_bytes(output, content)
