# SPDX-License-Identifier: Apache-2.0
import binascii
import hashlib
import re

import numpy as np
import pytest

from lmkd_tf.firmware import headers

DUMP_MODEL = """
#include <stdint.h>
#include <stdio.h>
#include "model_data.h"
int main(void) {
    if ((uintptr_t)lmkd_model_data % 16u != 0u) return 1;
    if (sizeof lmkd_model_data != LMKD_MODEL_BYTES) return 2;
    if (lmkd_model_data_bytes != LMKD_MODEL_BYTES) return 3;
    return fwrite(lmkd_model_data, 1, sizeof lmkd_model_data, stdout) != sizeof lmkd_model_data;
}
"""
PRINT_MACROS = """
#include <stdio.h>
#include "lmkd_config.h"
#include "lmkd_config.h"
#include "model_data.h"
int main(void) {
%s    return 0;
}
"""


def macro_values(run_c, files, names):
    lines = "".join(f'    printf("%.9g\\n", (double)({name}));\n' for name in names)
    output = run_c(PRINT_MACROS % lines, files[1])
    return dict(zip(names, map(float, output.split()), strict=True))


def test_array_in_c_holds_the_model_aligned(manifest, write_export, run_c, tmp_path):
    path = write_export(manifest)
    files = headers.write_c_arrays(path, tmp_path / "out")
    assert run_c(DUMP_MODEL, files[1]) == (tmp_path / "dummy.tflite").read_bytes()


def test_macros_in_c_equal_the_manifest(manifest, write_export, run_c, tmp_path):
    files = headers.write_c_arrays(write_export(manifest), tmp_path / "out")
    expected = {
        "LMKD_SAMPLE_RATE_HZ": 16000,
        "LMKD_WINDOW_LENGTH": 512,
        "LMKD_HOP_LENGTH": 256,
        "LMKD_FFT_LENGTH": 512,
        "LMKD_NUM_BINS": 257,
        "LMKD_NUM_BANDS": 64,
        "LMKD_FEATURE_FLOOR": 1e-6,
        "LMKD_FEATURE_CENTER_DB": -10.0,
        "LMKD_FEATURE_SCALE_DB": 50.0,
        "LMKD_ARENA_BYTES": 11472,
        "LMKD_MACS_PER_HOP": 5678,
        "LMKD_MODEL_BYTES": 1001,
        "LMKD_NUM_INPUTS": 3,
        "LMKD_NUM_OUTPUTS": 3,
        "LMKD_INPUT_FEATURES_INDEX": 0,
        "LMKD_INPUT_FEATURES_BYTES": 64,
        "LMKD_INPUT_FEATURES_SCALE": 0.1,
        "LMKD_INPUT_FEATURES_ZERO_POINT": -3,
        "LMKD_OUTPUT_MASK_INDEX": 1,
        "LMKD_OUTPUT_MASK_SCALE": 0.00390625,
        "LMKD_OUTPUT_MASK_ZERO_POINT": -128,
        "LMKD_NUM_STATES": 2,
        "LMKD_STATE_BYTES": 80,
        "LMKD_STATE_0_INPUT_INDEX": 1,
        "LMKD_STATE_0_OUTPUT_INDEX": 2,
        "LMKD_STATE_0_BYTES": 16,
        "LMKD_STATE_1_INPUT_INDEX": 2,
        "LMKD_STATE_1_OUTPUT_INDEX": 0,
        "LMKD_STATE_1_BYTES": 64,
    }
    found = macro_values(run_c, files, expected)
    assert {n: np.float32(v) for n, v in found.items()} == {
        n: np.float32(v) for n, v in expected.items()
    }


def test_files_state_generator_manifest_hash_and_model_hash(manifest, write_export, tmp_path):
    path = write_export(manifest)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    files = headers.write_c_arrays(path, tmp_path / "out")
    for file in files:
        head = file.read_text().splitlines()[:4]
        assert head[0] == "// SPDX-License-Identifier: Apache-2.0"
        assert "`./x firmware`; do not edit" in head[1]
        assert head[2:] == ["// Source: dummy.manifest.json", f"// Source SHA-256: {digest}"]
    content = (tmp_path / "dummy.tflite").read_bytes()
    model = hashlib.sha256(content).hexdigest()
    assert f'#define LMKD_MODEL_SHA256 "{model}"' in files[0].read_text()
    assert f"#define LMKD_MODEL_CRC32 0x{binascii.crc32(content):08x}u" in files[0].read_text()


def test_a_second_run_writes_the_same_bytes(manifest, write_export, tmp_path):
    path = write_export(manifest)
    first = [file.read_bytes() for file in headers.write_c_arrays(path, tmp_path / "one")]
    assert [file.read_bytes() for file in headers.write_c_arrays(path, tmp_path / "two")] == first


def test_float_literals_read_back_as_the_same_float32():
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    texts = [headers.float_literal(value) for value in values]
    assert all(re.fullmatch(r"-?\d\.\d{8}e[+-]\d\df", text) for text in texts)
    assert np.array_equal(np.array([text[:-1] for text in texts], dtype=np.float32), values)


def test_missing_manifest_is_reported_with_its_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Received .*none\.manifest\.json"):
        headers.write_c_arrays(tmp_path / "none.manifest.json", tmp_path)


def test_missing_model_is_reported_with_its_path(manifest, write_export, tmp_path):
    path = write_export(manifest)
    (tmp_path / "dummy.tflite").unlink()
    with pytest.raises(FileNotFoundError, match=r"beside its manifest.*dummy\.tflite"):
        headers.write_c_arrays(path, tmp_path / "out")


def test_model_of_another_size_is_refused(manifest, write_export, tmp_path):
    manifest["model"]["bytes"] = 1000
    path = write_export(manifest)
    with pytest.raises(ValueError, match=r"`model\.bytes`.*1000 in the manifest, 1001 in the file"):
        headers.write_c_arrays(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_model_of_other_content_is_refused(manifest, write_export, tmp_path):
    path = write_export(manifest)
    model = tmp_path / "dummy.tflite"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"`model\.sha256` of dummy\.manifest\.json must be that"):
        headers.write_c_arrays(path, tmp_path / "out")


def test_manifest_without_an_entry_is_refused(manifest, write_export, tmp_path):
    del manifest["states"], manifest["arena_bytes"]
    path = write_export(manifest)
    with pytest.raises(ValueError, match=r"without states, arena_bytes\. Export the model again"):
        headers.write_c_arrays(path, tmp_path / "out")


def test_unmeasured_arena_is_refused(manifest, write_export, tmp_path):
    manifest["arena_bytes"] = None
    path = write_export(manifest)
    with pytest.raises(ValueError, match=r"`arena_bytes`.*Received None\. Export on Linux x86-64"):
        headers.write_c_arrays(path, tmp_path / "out")


def test_state_without_tensor_is_refused(manifest, write_export, tmp_path):
    manifest["states"][1]["output"] = "lost"
    path = write_export(manifest)
    with pytest.raises(
        ValueError, match=r"State 1 of a manifest.*Received 'lost', known are state_1"
    ):
        headers.write_c_arrays(path, tmp_path / "out")


def test_unknown_element_type_is_refused(manifest, write_export, tmp_path):
    manifest["tensors"]["inputs"][0]["dtype"] = "bfloat16"
    path = write_export(manifest)
    with pytest.raises(ValueError, match=r"`dtype` of tensor features.*Received 'bfloat16'"):
        headers.write_c_arrays(path, tmp_path / "out")


def test_names_that_give_one_macro_twice_are_refused(manifest, write_export, tmp_path):
    manifest["tensors"]["inputs"][0]["name"] = "state:0"
    path = write_export(manifest)
    with pytest.raises(ValueError, match=r"must differ.*LMKD_INPUT_STATE_0_BYTES"):
        headers.write_c_arrays(path, tmp_path / "out")
