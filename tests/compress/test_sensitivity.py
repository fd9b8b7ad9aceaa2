# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.compress.quantization import calibrate_ranges, quantize, ranges_of
from lmkd_tf.compress.sensitivity import (
    calibrated_ranges,
    changed_layers,
    dequantized_core,
    layer_losses,
    quantized_tensors,
)
from lmkd_tf.compress.twin import make_twin
from tests.compress.conftest import NUM_BANDS, SIZE

TENSORS = {
    "features", "block_0", "depthwise_relu_0", "pointwise_norm_0", "block_1",
    "depthwise_relu_1", "pointwise_norm_1", "block_2", "mask_logits",
}  # fmt: skip


def test_tensors_are_those_of_the_int8_graph(build):
    assert set(quantized_tensors(build)) == TENSORS


def test_ranges_are_the_extremes_over_all_batches(build, core, features):
    ranges = calibrated_ranges(build, core, [features[:1], features[1:]])
    assert set(ranges) == TENSORS
    assert ranges["features"] == (float(features.min()), float(features.max()))
    assert ranges["block_1"][0] == 0.0


def test_a_layer_with_a_bad_range_is_the_worst_and_nothing_leaks(build, core, features):
    ranges = calibrated_ranges(build, core, [features])
    before = [w.copy() for w in core.get_weights()]
    low, high = ranges["depthwise_relu_1"]
    losses = layer_losses(core, {**ranges, "depthwise_relu_1": (low, 40.0 * high)}, features)
    assert losses[0].layer == "depthwise_relu_1"
    assert losses[0].weights == ("depthwise_1",)
    assert losses[0].extra_bytes == SIZE["channels"]
    assert losses[0].snr_db + 10.0 < losses[1].snr_db
    assert all(np.array_equal(a, b) for a, b in zip(before, core.get_weights(), strict=True))


def test_more_bits_for_the_activations_never_lose(build, core, features):
    ranges = calibrated_ranges(build, core, [features])
    losses = layer_losses(core, ranges, features)
    assert {loss.layer for loss in losses} == TENSORS
    for loss in losses:
        assert 20.0 < loss.snr_db <= loss.snr_int16_db + 0.5
    by_name = {loss.layer: loss for loss in losses}
    assert by_name["features"].weights == ()
    assert by_name["features"].extra_bytes == NUM_BANDS
    # A tensor without weights has nothing but its own rounding.
    assert by_name["block_1"].snr_int16_db > 80.0


def test_rounding_of_all_layers_is_about_the_sum_of_each_alone(build, core, features):
    twin = make_twin(build, core)
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [features])
    wanted = np.asarray(core(features, training=False)).astype(np.float64)
    noise = np.sum((wanted - quantized(features, training=False).numpy()) ** 2)
    together_db = 10 * np.log10(np.sum(wanted**2) / noise)
    losses = layer_losses(core, ranges_of(quantized), features)
    alone_db = -10 * np.log10(sum(10 ** (-loss.snr_db / 10) for loss in losses))
    assert together_db == pytest.approx(alone_db, abs=4.0)


def test_changed_layers_names_the_layer_that_changed(build, core, features):
    after = build()
    after.set_weights(core.get_weights())
    assert changed_layers(core, after, features) == []
    kernel, *rest = after.get_layer("pointwise_1").get_weights()
    after.get_layer("pointwise_1").set_weights([0.5 * kernel, *rest])
    ((name, ratio_db),) = changed_layers(core, after, features)
    assert name == "pointwise_1"
    assert 0.0 < ratio_db < 60.0


def test_dequantized_core_has_the_trained_weights_and_no_rounding(build, core, features, distill):
    twin = make_twin(build, core)
    quantized = quantize(twin)
    plain = dequantized_core(build, quantized)
    np.testing.assert_allclose(
        np.asarray(plain(features, training=False)), twin(features, training=False), atol=2e-6
    )
    distill(quantized, 2)
    trained = dequantized_core(build, quantized)
    assert not np.array_equal(trained.get_weights()[0], plain.get_weights()[0])


def test_dead_layer_is_refused_by_name(build, core, features):
    gamma, beta, mean, variance = core.get_layer("depthwise_norm_0").get_weights()
    core.get_layer("depthwise_norm_0").set_weights([0 * gamma, -1 + 0 * beta, mean, variance])
    with pytest.raises(ValueError, match=r"always zero: \['depthwise_relu_0'\].*structured"):
        calibrated_ranges(build, core, [features])
    with pytest.raises(ValueError, match=r"at least one batch of features\. Received none"):
        calibrated_ranges(build, core, [])
