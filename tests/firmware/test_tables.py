# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.firmware import headers, tables

DUMP_TABLES = """
#include <stdio.h>
#include "tables.h"
#include "tables.h"
int main(void) {
    printf("%d\\n", LMKD_BANDS_PER_BIN);
    for (int n = 0; n < LMKD_WINDOW_LENGTH; n++) printf("%.9g\\n", (double)lmkd_window[n]);
    for (int f = 0; f < LMKD_NUM_BINS; f++) {
        printf("%u\\n", (unsigned)lmkd_band_start[f]);
        for (int k = 0; k < LMKD_BANDS_PER_BIN; k++)
            printf("%.9g\\n", (double)lmkd_band_weights[f][k]);
    }
    for (int e = 0; e < LMKD_NUM_BANDS; e++) printf("%.9g\\n", (double)lmkd_band_scale[e]);
    for (int k = 0; k < 3 * LMKD_FFT_LENGTH / 4; k++)
        printf("%.9g %.9g\\n", (double)lmkd_twiddles[k][0], (double)lmkd_twiddles[k][1]);
    return 0;
}
"""


@pytest.fixture
def tables_in_c(manifest, write_export, run_c, tmp_path):
    """Window, first bands, band weights, band scales, twiddles as the C program has them."""
    out_dir = tmp_path / "out"
    headers.write_c_arrays(write_export(manifest), out_dir)
    config = StftConfig(**manifest["stft"])
    files = tables.write_tables(config, manifest["num_bands"], out_dir, "// A notice.\n")
    values = np.array(run_c(DUMP_TABLES, files[1]).split(), dtype=np.float32)
    width = int(values[0])
    window, bands, scales, twiddles = np.split(values[1:], np.cumsum([512, 257 * (1 + width), 64]))
    bands = bands.reshape(257, 1 + width)  # (F, 1 + K)
    return window, bands[:, 0].astype(int), bands[:, 1:], scales, twiddles.reshape(-1, 2)


def test_window_in_c_is_the_square_root_hann(tables_in_c):
    # sqrt of (1 - cos(2 pi n / N)) / 2 is |sin(pi n / N)|
    expected = [math.sin(math.pi * n / 512) for n in range(512)]
    np.testing.assert_allclose(tables_in_c[0], expected, atol=1e-7)


def test_band_tables_in_c_rebuild_the_matrix(tables_in_c):
    start, weights = tables_in_c[1:3]
    rebuilt = np.zeros((257, 64), np.float32)
    for f in range(257):
        for k in range(weights.shape[1]):
            rebuilt[f, start[f] + k] += weights[f, k]
    np.testing.assert_array_equal(rebuilt, erb_matrix(StftConfig(), 64))


def test_band_weights_in_c_sum_to_one(tables_in_c):
    np.testing.assert_allclose(tables_in_c[2].sum(axis=1), 1.0, atol=1e-6)


def test_band_scales_in_c_turn_sums_into_means(tables_in_c):
    sums = erb_matrix(StftConfig(), 64).astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(tables_in_c[3] * sums, 1.0, atol=1e-6)


def test_twiddles_in_c_are_the_powers_of_the_root_of_unity(tables_in_c):
    expected = [np.exp(-2j * np.pi / 512) ** k for k in range(384)]
    found = tables_in_c[4][:, 0] + 1j * tables_in_c[4][:, 1]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sparse_bands_of_a_hand_made_matrix():
    matrix = np.array([[1, 0, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0, 1]])
    start, weights = tables.sparse_bands(matrix)
    assert start.tolist() == [0, 0, 2, 2]
    assert weights.tolist() == [[1, 0], [0.25, 0.75], [0.5, 0.5], [0, 1]]


def test_sparse_bands_of_an_empty_row_is_refused():
    with pytest.raises(
        ValueError, match=r"weight in every row\. Received shape \(2, 2\) with 1 empty"
    ):
        tables.sparse_bands(np.array([[1.0, 0.0], [0.0, 0.0]]))
