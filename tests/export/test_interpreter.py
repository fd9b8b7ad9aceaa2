# SPDX-License-Identifier: Apache-2.0
import sys

import numpy as np
import pytest

from lmkd_tf.export.interpreter import RUNTIMES, StepModel, import_litert


@pytest.fixture
def frames(road):
    bands = road.config.student.num_bands
    return np.random.default_rng(5).normal(0, 0.4, (30, bands)).astype(np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_reset_reproduces_the_first_outputs_exactly(road, frames, dtype, runtime):
    model = StepModel(getattr(road, dtype), runtime)
    first = model.gains(frames)
    carried_on = model.gains(frames)
    model.reset()
    again = model.gains(frames)
    np.testing.assert_array_equal(again, first)
    assert not np.array_equal(carried_on, first)  # the state matters


def test_state_is_carried_from_call_to_call(road, frames):
    whole, pieces = StepModel(road.int8), StepModel(road.int8)
    wanted = whole.gains(frames)
    got = np.concatenate([pieces.gains(part) for part in np.split(frames, [1, 2, 11])])
    np.testing.assert_array_equal(got, wanted)


def test_gains_are_a_mask(road, frames):
    gains = StepModel(road.int8).gains(frames)
    assert gains.dtype == np.float32
    assert gains.shape == frames.shape
    assert gains.min() >= 0.0
    assert gains.max() <= 1.0
    assert np.ptp(gains) > 0.0


def test_quantize_rounds_ties_to_even_and_saturates(road):
    model = StepModel(road.int8)
    tensor = next(t for t in model.manifest.inputs if t["name"] == "features")
    scale, zero_point = np.float32(tensor["scale"]), tensor["zero_point"]
    steps = np.array([0.0, 0.5, 1.5, 2.0, -1.0, 1e6, -1e6], np.float32)
    # By hand: 0.5 and 1.5 steps go to 0 and 2, the last two leave the range of int8.
    wanted = np.array([0, 0, 2, 2, -1, 1e6, -1e6]) + zero_point
    np.testing.assert_array_equal(model.quantize(steps * scale), np.clip(wanted, -128, 127))
    assert model.quantize(steps).dtype == np.int8


def test_unknown_runtime_is_refused(road):
    with pytest.raises(ValueError, match=r"`runtime` must be one of.*Received 'onnx'"):
        StepModel(road.int8, "onnx")


def test_missing_runtime_says_where_it_exists(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match=r"Linux x86-64 only.*Install lmkd-tf\[micro\]"):
        import_litert("interpreter")
