# SPDX-License-Identifier: Apache-2.0
"""Wrong C, one fault at a time: the unit tests of the firmware have to notice each."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# File, what stands there, what the mutant has instead.
MUTANTS = [
    ("src/front_end.c", "previous_hop[n] = hop[n];", "previous_hop[n] = 0.0f;"),
    ("src/front_end.c", "2.88539008f", "2.88f"),
    ("src/front_end.c", "[band] + LMKD_FEATURE_FLOOR", "[band] + 1e-9f"),
    ("src/front_end.c", "hop[n] = overlap[n] +", "hop[n] ="),
    ("src/front_end.c", "spectrum[1] *= prv_bin_gain(gains, LMKD_NUM_BINS - 1);", ""),
    ("src/front_end.c", "gain < lowest ? lowest : gain", "lowest > 1.0f ? lowest : gain"),
    ("src/fft.c", "w3 = prv_twiddle(6 * p * stride)", "w3 = prv_twiddle(4 * p * stride)"),
    ("src/fft.c", "1.0f / (float)LMKD_FFT_LENGTH", "2.0f / (float)LMKD_FFT_LENGTH"),
    ("src/lmkd.c", "!state->is_bypassed", "true"),
    ("src/lmkd.c", "memory_bytes < lmkd_memory_size()", "memory_bytes + 1u < lmkd_memory_size()"),
    ("src/lmkd.c", "lmkd_network_reset(prv_network(state));", ""),
    ("src/lmkd.c", "num_samples % LMKD_HOP_LENGTH", "num_samples % 2u"),
    ("src/lmkd.c", "raised > INT16_MAX ? INT16_MAX : raised", "raised"),
    ("src/lmkd.c", "is_good ? lmkd_clamp(", "is_good ? lmkd_clamp(0.0f * "),
    ("src/network_aot.c", "header->version != LMKD_IMAGE_VERSION", "0"),
    ("src/network_aot.c", "header->num_bands != LMKD_NUM_BANDS ||", ""),
    ("src/network_aot.c", "header->plan == LMKD_AOT_PLAN &&", ""),
    ("src/checksum.c", "~remainder", "remainder"),
    ("src/nn_dense.c", "(high >> 31) + half", "half"),
    ("src/nn_arithmetic.h", "((int64_t)1 << 30)", "((int64_t)1 << 29)"),
    ("src/nn_simple.c", "first += first_step;", "first += 0 * first_step;"),
    ("examples/mic_loop.c", "prv_is_processing || ", ""),
    ("generated/model_aot.c", "// State of the next hop.", "return;"),
]


@pytest.fixture(scope="module")
def copy(project_root, tmp_path_factory, require_tool) -> Path:
    """A copy of the firmware, built once so that a mutant compiles one file only."""
    require_tool("cmake", "cmake")
    folder = tmp_path_factory.mktemp("mutants") / "microcontroller"
    source = project_root / "microcontroller"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("build"))
    subprocess.run(["cmake", "--preset", "host"], cwd=folder, check=True, capture_output=True)
    assert passes(folder)
    return folder


def passes(folder: Path) -> bool:
    build = ["cmake", "--build", "--preset", "host"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    done = subprocess.run(["ctest", "--preset", "host"], cwd=folder, capture_output=True)
    return done.returncode == 0


@pytest.mark.parametrize(("file", "right", "wrong"), MUTANTS)
def test_mutant_of_the_firmware_is_noticed(file, right, wrong, copy):
    path = copy / file
    text = path.read_text()
    assert text.count(right) >= 1
    try:
        path.write_text(text.replace(right, wrong, 1))
        assert not passes(copy)
    finally:
        path.write_text(text)
