# SPDX-License-Identifier: Apache-2.0
"""What a network costs: parameters, work and bytes, for the report."""

from pathlib import Path
from typing import Any

from lmkd_tf.export.manifest import manifest_path, read_manifest
from lmkd_tf.firmware.footprint import measured_instructions
from lmkd_tf.metrics.cost import count_parameters, macs_per_frame
from lmkd_tf.models.builder import is_streaming


def float_cost(model: Any) -> dict[str, Any]:
    """Describes a float network; its bytes are those of the weights in float32.

    Args:
        model: `SpeechEnhancer`.
    """
    parameters = count_parameters(model.core)
    # Attention over the whole utterance has no work per hop of its own.
    is_hop_by_hop = model.architecture is None or is_streaming(model.architecture)
    return {
        "parameters": parameters,
        "macs_per_hop": macs_per_frame(model.core) if is_hop_by_hop else None,
        "bytes": 4 * parameters,
        "arena_bytes": None,
        "note": "float32; bytes of the weights alone",
    }


def quantized_cost(model_path: str | Path) -> dict[str, Any]:
    """Describes a quantized network; its bytes are those of the file.

    Its instructions are those of the firmware, for a whole hop on a Cortex-M4F, if they were
    measured with this network.

    Args:
        model_path: `.tflite` file with its manifest beside it.

    Raises:
        FileNotFoundError: If there is no manifest.
    """
    manifest = read_manifest(model_path)
    return {
        "parameters": manifest.parameters,
        "macs_per_hop": manifest.macs_per_hop,
        "bytes": Path(model_path).stat().st_size,
        "arena_bytes": manifest.arena_bytes,
        "instructions_per_hop": measured_instructions(manifest_path(model_path)),
        "note": "TFLite Micro; bytes of the file",
    }
