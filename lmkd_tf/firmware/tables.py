# SPDX-License-Identifier: Apache-2.0
"""Writes the window and the band matrix as constant C tables."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lmkd_tf.config.files import write_text
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.stft import window
from lmkd_tf.firmware.headers import float_literal, guarded_header

_VALUES_PER_LINE = 5

_WINDOW_COMMENT = """\
// Periodic square-root Hann window, for analysis and for synthesis:
//   w[n] = sqrt(0.5 - 0.5 * cos(2 * pi * n / LMKD_WINDOW_LENGTH))
// so w[n]^2 + w[n + LMKD_HOP_LENGTH]^2 = 1.
"""
_BANDS_COMMENT = """\
// Bands to bins, by linear interpolation between the two nearest band centers:
//   gain[f] = sum over k of weights[f][k] * band_gain[start[f] + k],
// with k from 0 to LMKD_BANDS_PER_BIN - 1 and the weights of a bin summing to 1.
"""
_SCALE_COMMENT = """\
// Mean energy of the bins of a band, from the sum of their weighted energies:
//   energy[e] = scale[e] * sum over f of weights[f][e - start[f]] * |X[f]|^2,
// with scale[e] = 1 / (sum over f of weights[f][e - start[f]]).
"""
_TWIDDLE_COMMENT = """\
// Factors of the Fourier transform: cosine and sine of -2 * pi * k / LMKD_FFT_LENGTH, for
// three quarters of a turn.
"""


def twiddles(fft_length: int) -> np.ndarray:
    """Returns `exp(-2 pi i k / fft_length)` for k below three quarters of the length.

    Args:
        fft_length: Length of the transform, in samples.

    Returns:
        float32 array of shape `(3 * fft_length / 4, 2)`: cosine and sine.
    """
    phase = -2.0 * np.pi * np.arange(3 * fft_length // 4) / fft_length
    return np.stack([np.cos(phase), np.sin(phase)], axis=1).astype(np.float32)


def sparse_bands(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Packs a band matrix as a first band and a few weights per bin.

    Args:
        matrix: Weights from bands to bins, shape `(F, E)`; the nonzero entries
            of a row are neighbors.

    Returns:
        First band of each bin, int, shape `(F,)`, and its weights, float32,
        shape `(F, K)` with K the widest row. `start + K` never passes E.

    Raises:
        ValueError: If `matrix` has a row of zeros.

    Example:
        >>> start, weights = sparse_bands(np.array([[1.0, 0.0], [0.5, 0.5]]))
        >>> start.tolist(), weights.tolist()
        ([0, 0], [[1.0, 0.0], [0.5, 0.5]])
    """
    is_used = np.asarray(matrix) != 0
    if matrix.ndim != 2 or not is_used.any(axis=1).all():
        raise ValueError(
            "`matrix` must have two axes and a weight in every row. "
            f"Received shape {matrix.shape} with {int((~is_used.any(axis=-1)).sum())} empty rows. "
            "Use lmkd_tf.dsp.erb.erb_matrix."
        )
    first = is_used.argmax(axis=1)
    last = matrix.shape[1] - 1 - is_used[:, ::-1].argmax(axis=1)
    width = int((last - first).max()) + 1
    start = np.minimum(first, matrix.shape[1] - width)
    columns = start[:, None] + np.arange(width)  # (F, K)
    return start, np.take_along_axis(matrix, columns, axis=1).astype(np.float32)


def write_tables(
    config: StftConfig, num_bands: int, out_dir: str | os.PathLike, notice: str
) -> list[Path]:
    """Writes `tables.h` and `tables.c`; both need `lmkd_config.h` beside them.

    Args:
        config: Frame of the transform.
        num_bands: Number of bands E.
        out_dir: Folder to write to; created where it is missing.
        notice: What opens the files, of `generated_notice`.

    Returns:
        Paths of the two files.

    Raises:
        ValueError: If there are more bands than bins.
    """
    matrix = erb_matrix(config, num_bands)
    start, weights = sparse_bands(matrix)
    texts = {
        "tables.h": _header(notice, weights.shape[1]),
        "tables.c": (
            _source(notice, window(config), start, weights)
            + _scales(1.0 / matrix.sum(axis=0, dtype=np.float64))
            + _twiddles(config.fft_length)
        ),
    }
    for name, text in texts.items():
        write_text(Path(out_dir) / name, text)
    return [Path(out_dir) / name for name in texts]


def _header(notice: str, bands_per_bin: int) -> str:
    body = (
        f"#define LMKD_BANDS_PER_BIN {bands_per_bin}\n\n"
        f"{_WINDOW_COMMENT}extern const float lmkd_window[LMKD_WINDOW_LENGTH];\n\n"
        f"{_BANDS_COMMENT}extern const uint16_t lmkd_band_start[LMKD_NUM_BINS];\n"
        "extern const float lmkd_band_weights[LMKD_NUM_BINS][LMKD_BANDS_PER_BIN];\n\n"
        f"{_SCALE_COMMENT}extern const float lmkd_band_scale[LMKD_NUM_BANDS];\n\n"
        f"{_TWIDDLE_COMMENT}extern const float lmkd_twiddles[3 * LMKD_FFT_LENGTH / 4][2];\n"
    )
    text = guarded_header("LMKD_TABLES_H", notice, body, includes=["stdint.h"])
    return text.replace(
        "#include <stdint.h>\n", '#include <stdint.h>\n\n#include "lmkd_config.h"\n'
    )


def _source(notice: str, window_values: np.ndarray, start: np.ndarray, weights: np.ndarray) -> str:
    rows = [f"{{{', '.join(float_literal(w) for w in row)}}}" for row in weights]
    return (
        f'{notice}#include "tables.h"\n\n'
        f"{_WINDOW_COMMENT}const float lmkd_window[LMKD_WINDOW_LENGTH] = {{\n"
        f"{_wrap(map(float_literal, window_values), _VALUES_PER_LINE)}}};\n\n"
        f"{_BANDS_COMMENT}const uint16_t lmkd_band_start[LMKD_NUM_BINS] = {{\n"
        f"{_wrap((f'{band}u' for band in start), 3 * _VALUES_PER_LINE)}}};\n\n"
        "const float lmkd_band_weights[LMKD_NUM_BINS][LMKD_BANDS_PER_BIN] = {\n"
        f"{_wrap(rows, 2)}}};\n"
    )


def _scales(scales: np.ndarray) -> str:
    return (
        f"\n{_SCALE_COMMENT}const float lmkd_band_scale[LMKD_NUM_BANDS] = {{\n"
        f"{_wrap(map(float_literal, scales), _VALUES_PER_LINE)}}};\n"
    )


def _twiddles(fft_length: int) -> str:
    rows = [f"{{{', '.join(float_literal(v) for v in row)}}}" for row in twiddles(fft_length)]
    return (
        f"\n{_TWIDDLE_COMMENT}const float lmkd_twiddles[3 * LMKD_FFT_LENGTH / 4][2] = {{\n"
        f"{_wrap(rows, 2)}}};\n"
    )


def _wrap(items: Iterable[str], per_line: int) -> str:
    listed = list(items)
    return "".join(
        f"    {', '.join(listed[index : index + per_line])},\n"
        for index in range(0, len(listed), per_line)
    )
