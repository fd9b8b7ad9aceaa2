# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: what Python and TFLM make of a test signal, for the self-test in C."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from keras import ops

from lmkd_tf.config.files import write_text
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import band_features
from lmkd_tf.dsp.mask import apply_band_mask
from lmkd_tf.dsp.pcm import float_to_int16, int16_to_float
from lmkd_tf.dsp.stft import inverse_stft, stft
from lmkd_tf.export.interpreter import StepModel
from lmkd_tf.firmware.headers import float_literal, guarded_header

NUM_HOPS = 16
# Linear congruential generator of Press et al., Numerical Recipes, "even quicker".
_MULTIPLIER, _INCREMENT = 1664525, 1013904223
_VALUES_PER_LINE = 16


def golden_signal(num_hops: int, hop_length: int) -> np.ndarray:
    """Returns the test signal that C makes for itself: noise whose level changes per hop.

    Args:
        num_hops: Number of hops.
        hop_length: Samples per hop.

    Returns:
        int16 array of shape `(num_hops * hop_length,)`.
    """
    samples, state = [], 1
    for position in range(num_hops * hop_length):
        state = (state * _MULTIPLIER + _INCREMENT) % 2**32
        sample = (state >> 16) - 2**15
        samples.append(sample >> (2 + position // hop_length % 6))
    return np.array(samples, np.int16)


def write_golden(
    manifest_path: str | os.PathLike, out_dir: str | os.PathLike, notice: str
) -> list[Path]:
    """Writes `golden.h` and `golden.c`.

    Args:
        manifest_path: `<stem>.manifest.json` of an int8 model that lies beside it.
        out_dir: Folder to write to; created where it is missing.
        notice: What opens the files, of `generated_notice`.

    Returns:
        Paths of the two files.

    Raises:
        ImportError: If TFLM is not installed.
        FileNotFoundError: If the model is missing.
    """
    model = Path(manifest_path).with_name(
        Path(manifest_path).name.replace(".manifest.json", ".tflite")
    )
    step = StepModel(model, "tflm")
    config = step.manifest.stft_config
    signal = int16_to_float(golden_signal(NUM_HOPS, config.hop_length))
    matrix = erb_matrix(config, step.manifest.num_bands)
    spectrum = stft(signal[None], config)
    features = np.asarray(ops.convert_to_numpy(band_features(spectrum, matrix)))[0]  # (T, E)
    codes = step.quantize(features)
    gains = step.gains(features)
    step.reset()
    masks = np.stack([step.step_quantized(frame) for frame in codes])
    masked = apply_band_mask(spectrum, gains[None], matrix)
    enhanced = np.asarray(inverse_stft(masked, config, len(signal)))[0]
    arrays = {
        "lmkd_golden_features": ("float", features[:NUM_HOPS]),
        "lmkd_golden_codes": ("int8_t", codes[:NUM_HOPS]),
        "lmkd_golden_masks": ("int8_t", masks[:NUM_HOPS]),
        "lmkd_golden_output": (
            "int16_t",
            float_to_int16(enhanced).reshape(NUM_HOPS, -1)[: NUM_HOPS - 1],
        ),
    }
    texts = {"golden.h": _header(notice), "golden.c": _source(notice, arrays)}
    for name, text in texts.items():
        write_text(Path(out_dir) / name, text)
    return [Path(out_dir) / name for name in texts]


def _header(notice: str) -> str:
    body = (
        f"#define LMKD_GOLDEN_NUM_HOPS {NUM_HOPS}\n\n"
        "// Next sample of the test signal. `state` is 1 at the start; `hop` is the number of\n"
        "// the hop that the sample is in.\n"
        "static inline int16_t lmkd_golden_sample(uint32_t *state, int32_t hop) {\n"
        f"    *state = *state * {_MULTIPLIER}u + {_INCREMENT}u;\n"
        "    const int32_t sample = (int32_t)(*state >> 16) - 32768;\n"
        "    return (int16_t)(sample >> (2 + hop % 6));\n"
        "}\n\n"
        "// Normalized band energies and their codes (Python), masks and output (TFLite Micro).\n"
        "// The output of a hop comes out with the next one.\n"
        "extern const float lmkd_golden_features[LMKD_GOLDEN_NUM_HOPS][LMKD_NUM_BANDS];\n"
        "extern const int8_t lmkd_golden_codes[LMKD_GOLDEN_NUM_HOPS][LMKD_NUM_BANDS];\n"
        "extern const int8_t lmkd_golden_masks[LMKD_GOLDEN_NUM_HOPS][LMKD_NUM_BANDS];\n"
        "extern const int16_t lmkd_golden_output[LMKD_GOLDEN_NUM_HOPS - 1][LMKD_HOP_LENGTH];\n"
    )
    text = guarded_header("LMKD_GOLDEN_H", notice, body, includes=["stdint.h"])
    return text.replace(
        "#include <stdint.h>\n", '#include <stdint.h>\n\n#include "lmkd_config.h"\n'
    )


def _source(notice: str, arrays: dict[str, tuple[str, np.ndarray]]) -> str:
    return f'{notice}#include "golden.h"\n' + "".join(
        f"\nconst {kind} {name}[{_length(rows)}][{_width(name)}] = {{\n{_rows(rows)}}};\n"
        for name, (kind, rows) in arrays.items()
    )


def _length(rows: np.ndarray) -> str:
    is_full = len(rows) == NUM_HOPS
    return "LMKD_GOLDEN_NUM_HOPS" if is_full else "LMKD_GOLDEN_NUM_HOPS - 1"


def _width(name: str) -> str:
    return "LMKD_HOP_LENGTH" if name.endswith("output") else "LMKD_NUM_BANDS"


def _rows(rows: np.ndarray) -> str:
    is_float = rows.dtype == np.float32
    return "".join(
        f"    {{{_wrap(float_literal(v) if is_float else str(v) for v in row)}}},\n" for row in rows
    )


def _wrap(values: Iterable[str]) -> str:
    listed = list(values)
    lines = [
        ", ".join(listed[start : start + _VALUES_PER_LINE])
        for start in range(0, len(listed), _VALUES_PER_LINE)
    ]
    return ",\n     ".join(lines)
