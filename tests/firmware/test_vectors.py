# SPDX-License-Identifier: Apache-2.0
import json
import re

import numpy as np

from lmkd_tf.firmware import vectors


def numbers(text, name):
    """Values of an array of the generated source."""
    body = re.search(rf"{name}\[.*?\]\[.*?\] = \{{\n(.*?)\n\}};", text, re.DOTALL)
    assert body is not None
    return [float(v) for v in re.findall(r"-?\d[\d.]*(?:e[+-]\d+)?", body[1])]


def test_signal_is_that_of_the_generator_worked_by_hand():
    # 1 * 1664525 + 1013904223 = 1015568748; its upper half is 15496; less 32768 is -17272; / 4.
    signal = vectors.golden_signal(12, 8)
    assert signal[0] == -17272 // 4
    assert signal.dtype == np.int16
    levels = np.abs(signal.astype(int)).reshape(12, 8).max(axis=1)
    assert levels[5] < levels[0] / 8


def test_golden_vectors_hold_features_codes_masks_and_output(shipped_export, tmp_path):
    header, source = vectors.write_golden(shipped_export, tmp_path, "// A notice.\n")
    text = source.read_text()
    features = np.array(numbers(text, "lmkd_golden_features"))
    codes = np.array(numbers(text, "lmkd_golden_codes"))
    assert len(features) == len(codes) == 16 * 144
    inputs = json.loads(shipped_export.read_text())["tensors"]["inputs"]
    (given,) = (tensor for tensor in inputs if tensor["name"] == "features")
    expected = np.clip(features / given["scale"] + given["zero_point"], -128, 127)
    np.testing.assert_allclose(codes, expected, atol=0.51)
    assert len(numbers(text, "lmkd_golden_masks")) == 16 * 144
    assert len(numbers(text, "lmkd_golden_output")) == 15 * 256
    assert "#define LMKD_GOLDEN_NUM_HOPS 16" in header.read_text()
