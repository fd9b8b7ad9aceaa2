# SPDX-License-Identifier: Apache-2.0
"""Writes a C program that runs every operator case and compares it with what TFLM computed."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from lmkd_tf.firmware.aot import AotModel, compile_graph
from lmkd_tf.firmware.graph import QuantizedGraph, read_quantized_graph
from tests.firmware.graphs import run_in_tflm
from tests.firmware.operator_cases import CASES

NUM_VECTORS = 12
_MAIN = """
#include <stdio.h>
#include <string.h>
#include "cases.h"

static _Alignas(16) int8_t memory[CASE_MEMORY_BYTES];

static int run(const struct case_facts *c) {
    int num_wrong = 0;
    for (int vector = 0; vector < NUM_VECTORS; vector++) {
        memset(memory, 0x55, sizeof memory);
        for (int i = 0; i < c->num_inputs; i++) {
            memcpy(memory + c->offsets[i], c->values[i] + vector * c->sizes[i], c->sizes[i]);
        }
        c->invoke(memory, (const int8_t *)c->image);
        for (int i = c->num_inputs; i < c->num_tensors; i++) {
            const int8_t *wanted = c->values[i] + vector * c->sizes[i];
            for (int k = 0; k < c->sizes[i]; k++) {
                num_wrong += memory[c->offsets[i] + k] != wanted[k];
            }
        }
    }
    return num_wrong;
}

int main(void) {
    int num_failures = 0;
    for (unsigned k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        const int num_wrong = run(&cases[k]);
        printf("%s %d\\n", cases[k].name, num_wrong);
        num_failures += num_wrong != 0;
    }
    return num_failures != 0;
}
"""
_FACTS = """
#include <stdint.h>
#define NUM_VECTORS %d
#define CASE_MEMORY_BYTES %d
struct case_facts {
    const char *name;
    void (*invoke)(int8_t *memory, const int8_t *image);
    const uint32_t *image;
    int num_inputs;
    int num_tensors;
    int offsets[8];
    int sizes[8];
    const int8_t *values[8];
};
"""


def write_operator_program(folder: Path, cases: Mapping[str, Callable[[], bytes]] = CASES) -> None:
    """Writes the sources of every case and of the program."""
    facts, declarations, sources = [], [], []
    memory_bytes = 16
    for name, make in cases.items():
        content = make()
        path = folder / f"{name}.tflite"
        path.write_bytes(content)
        graph = read_quantized_graph(path)
        model = compile_graph(graph, [], name)
        memory_bytes = max(memory_bytes, model.plan.total_bytes)
        values = _vectors(graph, content)
        sources.append(_case_source(name, model, values))
        tensors = [*graph.inputs, *graph.outputs]
        declarations.append(
            f"extern const uint32_t {name}_image[]; "
            f"void {name}_invoke(int8_t *memory, const int8_t *image);\n"
            + "".join(f"extern const int8_t {name}_{k}[];\n" for k in range(len(tensors)))
        )
        facts.append(
            f'{{"{name}", {name}_invoke, {name}_image, {len(graph.inputs)}, {len(tensors)}, '
            f"{_braces(model.plan.offsets[t] for t in tensors)}, "
            f"{_braces(graph.tensors[t].size for t in tensors)}, "
            f"{_braces(f'{name}_{k}' for k in range(len(tensors)))}}},\n"
        )
    (folder / "cases.h").write_text(
        _FACTS % (NUM_VECTORS, memory_bytes)
        + "".join(declarations)
        + f"static const struct case_facts cases[] = {{\n{''.join(facts)}}};\n"
    )
    # One file: a compiler takes longer to start than for a case.
    includes = '#include <stdint.h>\n#include <string.h>\n#include "nn.h"\n'
    (folder / "cases.c").write_text(includes + "".join(sources))
    (folder / "main.c").write_text(_MAIN)


def _braces(values: Iterable[object]) -> str:
    return f"{{{', '.join(map(str, values))}}}"


def _vectors(graph: QuantizedGraph, content: bytes) -> list[np.ndarray]:
    """Random inputs and TFLM's outputs, `(NUM_VECTORS, size)` each."""
    rng = np.random.default_rng(17)
    collected: list[list[np.ndarray]] = []
    for vector in range(NUM_VECTORS):
        inputs = []
        for index in graph.inputs:
            tensor = graph.tensors[index]
            value = rng.integers(-128, 128, tensor.shape).astype(np.int8)
            if vector == 0 and tensor.size == 256:
                value = np.arange(-128, 128, dtype=np.int8).reshape(tensor.shape)  # every code
            if vector == 1:
                value[...] = 127
            if vector == 2:
                value[...] = -128
            inputs.append(value)
        outputs = run_in_tflm(content, inputs, len(graph.outputs))
        collected.append([value.ravel() for value in (*inputs, *outputs)])
    return [np.stack(column) for column in zip(*collected, strict=True)]


def _case_source(name: str, model: AotModel, values: list[np.ndarray]) -> str:
    padded = model.constants + bytes(-len(model.constants) % 4) or bytes(4)
    words = np.frombuffer(padded, np.uint32)
    arrays = "".join(
        f"const int8_t {name}_{k}[] = {_braces(array.ravel().tolist())};\n"
        for k, array in enumerate(values)
    )
    return (
        f"void {name}_reset(int8_t *memory);\n"
        f"void {name}_invoke(int8_t *memory, const int8_t *image);\n"
        f"extern const uint32_t {name}_image[];\n"
        f"const uint32_t {name}_image[] = {_braces(f'{word}u' for word in words)};\n"
        f"{arrays}{model.code.replace('prv_operator', f'prv_{name}')}"
    )
