# SPDX-License-Identifier: Apache-2.0
"""Generates C from an int8 `.tflite`: no interpreter, no flatbuffer, a fixed memory plan."""

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmkd_tf.config.files import write_text
from lmkd_tf.firmware.graph import QuantizedGraph, read_quantized_graph
from lmkd_tf.firmware.headers import generated_notice, guarded_header, read_manifest
from lmkd_tf.firmware.lowering import Call, Lowering
from lmkd_tf.firmware.memory_plan import MemoryPlan, plan_memory

IMAGE_MAGIC = 0x444B4D4C  # "LMKD" in memory
IMAGE_VERSION = 1
HEADER_BYTES = 64
_CHECKED_FROM = 16  # the checksum covers what stands after it
_WORDS_PER_LINE = 8


@dataclass(frozen=True)
class AotModel:
    """A model as C.

    Args:
        plan: Where its tensors lie.
        code: Structures and functions, without includes.
        constants: Weights, factors and tables that the code reads.
    """

    plan: MemoryPlan
    code: str
    constants: bytes


def compile_graph(
    graph: QuantizedGraph, states: Sequence[tuple[int, int]], prefix: str = "lmkd_aot"
) -> AotModel:
    """Turns a graph into C functions that equal TFLM's reference kernels bit for bit.

    Args:
        graph: Fully quantized int8 graph.
        states: Pairs of an input and the output that becomes that input at the next
            hop, as tensor indices.
        prefix: What the names of the two functions start with: `PREFIX_reset(memory)`
            and `PREFIX_invoke(memory, image)`.

    Returns:
        The model.

    Raises:
        ValueError: If the graph holds an operator, a type or a shape without a kernel.
    """
    lowering = Lowering(graph)
    plan = plan_memory(graph, states, lowering.slices, lowering.scratch_bytes)
    calls = [
        lowering.lower(
            operator,
            lambda tensor: f"memory + {plan.offsets[tensor]}",
            f"memory + {plan.scratch.get(operator.position, 0)}",
        )
        for operator in graph.operators
    ]
    code = _functions(graph, states, plan, calls, prefix)
    return AotModel(plan, code, bytes(lowering.image.content))


def write_aot(
    manifest_path: str | os.PathLike, out_dir: str | os.PathLike, source: str | None = None
) -> list[Path]:
    """Writes `model_aot.h`, `model_aot.c` and `model_image.c`.

    Args:
        manifest_path: `<stem>.manifest.json`; the model lies beside it.
        out_dir: Folder to write to; created where it is missing.
        source: Path to state in the files; by default the name of the manifest.

    Returns:
        Paths of the three files.

    Raises:
        FileNotFoundError: If the manifest or the model is missing.
        ValueError: If the model holds what the kernels lack.
    """
    manifest_path, out_dir = Path(manifest_path), Path(out_dir)
    manifest = read_manifest(manifest_path)
    graph = read_quantized_graph(manifest_path.parent / manifest["model"]["file"])
    positions = _positions(graph, manifest)
    states = [(positions[s["input"]], positions[s["output"]]) for s in manifest["states"]]
    model = compile_graph(graph, states)
    notice = generated_notice(manifest_path, source)
    image = _with_header(model, manifest)
    texts = {
        "model_aot.h": _header(model, positions, len(image), notice),
        "model_aot.c": (
            f'{notice}#include "model_aot.h"\n\n#include <string.h>\n\n#include "nn.h"\n\n'
            f"{model.code}"
        ),
        "model_image.c": _image_source(image, notice),
    }
    for name, text in texts.items():
        write_text(out_dir / name, text)
    return [out_dir / name for name in texts]


def plan_checksum(model: AotModel) -> int:
    """Returns a number that changes with the generated code, so that an image finds its own."""
    return zlib.crc32(model.code.encode())


def _positions(graph: QuantizedGraph, manifest: dict[str, Any]) -> dict[str, int]:
    """Tensor index of each input and output by its name in the manifest."""
    tensors = manifest["tensors"]
    pairs = [
        *zip(tensors["inputs"], graph.inputs, strict=True),
        *zip(tensors["outputs"], graph.outputs, strict=True),
    ]
    return {tensor["name"]: index for tensor, index in pairs}


def _functions(
    graph: QuantizedGraph,
    states: Sequence[tuple[int, int]],
    plan: MemoryPlan,
    calls: Sequence[Call],
    prefix: str,
) -> str:
    declarations = "".join(
        f"// {call.position}: {call.comment}\n{call.declaration}\n"
        for call in calls
        if call.declaration
    )
    body = "".join(
        f"    // {call.position}: {call.comment}\n"
        + "".join(f"    {statement}\n" for statement in call.statements)
        for call in calls
        if call.statements
    )
    resets = "".join(
        f"    memset(memory + {plan.offsets[old]}, {graph.tensors[old].zero_point}, "
        f"{graph.tensors[old].size});\n"
        for old, _ in states
    )
    moves = "".join(
        f"    memmove(memory + {copy.target}, memory + {copy.source}, {copy.num_bytes});\n"
        for copy in plan.state_copies
    )
    image = "image" if "image" in body else "image_unused"
    unused = "" if image == "image" else f"    (void){image};\n"
    return (
        f"{declarations}void {prefix}_reset(int8_t *memory) {{\n"
        f"{resets or '    (void)memory;' + chr(10)}}}\n\n"
        f"void {prefix}_invoke(int8_t *memory, const int8_t *{image}) {{\n"
        f"{unused}{body}{'    // State of the next hop.' + chr(10) if moves else ''}{moves}}}\n"
    )


def _with_header(model: AotModel, manifest: dict[str, Any]) -> bytes:
    """Puts the header before the constants: what the image is, for whom, and its checksum."""
    facts = struct.pack(
        "<32s4I",
        bytes.fromhex(manifest["model"]["sha256"]),
        plan_checksum(model),
        manifest["stft"]["hop_length"],
        manifest["num_bands"],
        manifest["num_bins"],
    )
    checked = facts + model.constants + bytes(-len(model.constants) % 4)
    num_bytes = _CHECKED_FROM + len(checked)
    front = struct.pack("<4I", IMAGE_MAGIC, IMAGE_VERSION, num_bytes, zlib.crc32(checked))
    return front + checked


def _header(model: AotModel, positions: dict[str, int], num_bytes: int, notice: str) -> str:
    offsets = {name: model.plan.offsets[index] for name, index in positions.items()}
    body = (
        "// Working memory of one instance: the front part holds the state from hop to hop.\n"
        f"#define LMKD_AOT_MEMORY_BYTES {model.plan.total_bytes}u\n"
        f"#define LMKD_AOT_STATE_BYTES {model.plan.persistent_bytes}u\n"
        "// Places in that memory: write the features before, read the mask after each hop.\n"
        f"#define LMKD_AOT_FEATURES_OFFSET {offsets['features']}\n"
        f"#define LMKD_AOT_MASK_OFFSET {offsets['mask']}\n\n"
        "// Constants of the model behind a header: magic, version, bytes, CRC-32 of the rest,\n"
        "// SHA-256 of the .tflite, checksum of the code in model_aot.c, hop, bands, bins.\n"
        f"#define LMKD_IMAGE_MAGIC 0x{IMAGE_MAGIC:08x}u\n"
        f"#define LMKD_IMAGE_VERSION {IMAGE_VERSION}u\n"
        f"#define LMKD_IMAGE_HEADER_BYTES {HEADER_BYTES}u\n"
        f"#define LMKD_IMAGE_BYTES {num_bytes}u\n"
        f"#define LMKD_AOT_PLAN 0x{plan_checksum(model):08x}u\n"
        "extern const uint32_t lmkd_model_image[LMKD_IMAGE_BYTES / 4u];\n\n"
        "// Sets every state to its quantized zero.\n"
        "void lmkd_aot_reset(int8_t *memory);\n"
        "// Runs one hop; `image` points behind the header.\n"
        "void lmkd_aot_invoke(int8_t *memory, const int8_t *image);\n"
    )
    return guarded_header("LMKD_MODEL_AOT_H", notice, body, includes=["stdint.h"])


def _image_source(image: bytes, notice: str) -> str:
    words = [f"0x{word:08x}," for (word,) in struct.iter_unpack("<I", image)]
    lines = [
        "    " + " ".join(words[start : start + _WORDS_PER_LINE])
        for start in range(0, len(words), _WORDS_PER_LINE)
    ]
    return (
        f'{notice}#include <stdalign.h>\n\n#include "model_aot.h"\n\n'
        "alignas(16) const uint32_t lmkd_model_image[LMKD_IMAGE_BYTES / 4u] = {\n"
        + "\n".join(lines)
        + "\n};\n"
    )
