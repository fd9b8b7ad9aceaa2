# SPDX-License-Identifier: Apache-2.0
import functools
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from lmkd_tf.compress.pruning import kernel_sparsity
from lmkd_tf.compress.quantization import (
    calibrate_ranges,
    limit_logits,
    load_quantized,
    quantize,
    quantized_step,
)
from lmkd_tf.compress.twin import make_twin
from lmkd_tf.config.files import read_json
from lmkd_tf.evaluate.parity import snr_db
from lmkd_tf.models.builder import build_core
from tests.compress.conftest import SIZE
from tests.parity.floors import QAT_STEP_FLOOR_DB


def _ranges(core):
    """Range of every float tensor by the name of its layer, as `(min, max)`."""
    values = {variable.name.split(":")[0]: float(variable) for variable in _scalars(core)}
    names = [name for name in values if name.endswith("min")]
    found = {n.split("/")[0]: (values[n], values[n.removesuffix("min") + "max"]) for n in names}
    # tf_keras numbers the quantizer of the features across models.
    return {re.sub(r"^quant_|(?<=^quantize_layer)_\d+$", "", n): v for n, v in found.items()}


def _scalars(core):
    scalars = [variable for variable in core.variables if len(variable.shape) == 0]
    return [v for v in scalars if v.name.split(":")[0][-3:] in ("min", "max")]


def _sparse(core):
    """Sets the smaller half of every pointwise kernel to zero."""
    for layer in core.layers:
        if layer.name in ("encoder", "pointwise_0", "pointwise_1", "mask_logits"):
            kernel, *bias = layer.get_weights()
            kernel = np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0.0, kernel)
            layer.set_weights([kernel, *bias])
    return core


def _numpy_activations(core, features):
    """Computes what every range is the range of, `(B, T, C)`, by the layers' definitions."""
    weights = {layer.name: layer.get_weights() for layer in core.layers}

    def normalize(x, name):
        gamma, beta, mean, variance = weights[name]
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    found = {"quantize_layer": features[:, :, 0]}
    x = normalize(features[:, :, 0] @ weights["encoder"][0][0, 0], "encoder_norm")
    found["block_0"] = x = np.maximum(x, 0.0)
    for index, dilation in enumerate(SIZE["dilations"]):
        kernel = weights[f"depthwise_{index}"][0][:, 0, :, 0]  # (3, C)
        past = np.concatenate([np.zeros((len(x), 2 * dilation, x.shape[-1])), x], axis=1)
        count = x.shape[1]
        y = sum(past[:, k * dilation : k * dilation + count] * kernel[k] for k in range(3))
        y = np.maximum(normalize(y, f"depthwise_norm_{index}"), 0.0)
        found[f"depthwise_relu_{index}"] = y
        y = normalize(y @ weights[f"pointwise_{index}"][0][0, 0], f"pointwise_norm_{index}")
        found[f"pointwise_norm_{index}"] = y
        found[f"block_{index + 1}"] = x = np.maximum(x + y, 0.0)
    kernel, bias = weights["mask_logits"]
    found["mask_logits"] = x @ kernel[0, 0] + bias
    return found


def test_calibrated_ranges_are_the_mean_extremes_of_the_batches(build, core, features):
    twin = make_twin(build, core)
    quantized = quantize(twin)
    batches = [features, 2.0 * features[:2]]
    calibrate_ranges(quantized, twin, batches)
    ranges, activations = _ranges(quantized), [_numpy_activations(core, b) for b in batches]
    assert set(ranges) == set(activations[0])
    for name, (low, high) in ranges.items():
        lows, highs = zip(*((a[name].min(), a[name].max()) for a in activations), strict=True)
        np.testing.assert_allclose(low, min(0.0, np.mean(lows)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(high, np.mean(highs), rtol=1e-4, atol=1e-5)


def test_calibrate_ranges_without_batches_is_refused(build, core):
    twin = make_twin(build, core)
    with pytest.raises(ValueError, match=r"at least one batch of features. Received none"):
        calibrate_ranges(quantize(twin), twin, [])


def test_quantize_changes_the_outputs_by_no_more_than_int8_rounding(build, core, features):
    twin = make_twin(build, core)
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [features])
    wanted = twin(features, training=False).numpy()
    ratio_db = snr_db(wanted, quantized(features, training=False).numpy())
    assert 40.0 < ratio_db < 80.0  # fake quantization is there, and it is fine


def test_quantization_training_keeps_the_zeros_where_they_were(build, core, features, distill):
    twin = _sparse(make_twin(build, core))
    before = kernel_sparsity(twin)
    zeros = [w == 0.0 for w in twin.get_weights() if w.ndim == 4 and w.shape[0] == 1]
    kernels = [w for w in twin.get_weights() if w.ndim == 4 and w.shape[0] == 1]
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [features])
    distill(quantized, 6)
    assert kernel_sparsity(quantized) == before
    assert min(before.values()) == 0.5
    trained = [v.numpy() for v in quantized.variables if len(v.shape) == 4 and v.shape[0] == 1]
    for kernel, old, is_zero in zip(trained, kernels, zeros, strict=True):
        np.testing.assert_array_equal(kernel == 0.0, is_zero)
        assert np.abs(kernel - old).max() > 1e-3  # it did train


def test_loaded_core_repeats_the_trained_one_bit_for_bit(build, core, features, distill, tmp_path):
    quantized = quantize(make_twin(build, core))
    distill(quantized, 3)
    wanted = quantized(features, training=False).numpy()
    quantized.save_weights(str(tmp_path / "core.weights.h5"))
    loaded = load_quantized(build, tmp_path / "core.weights.h5")
    np.testing.assert_array_equal(loaded(features, training=False).numpy(), wanted)


def test_step_graph_repeats_the_whole_utterance_frame_by_frame(build, core, features):
    twin = make_twin(build, core)
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [features])
    step = quantized_step(build, quantized)
    whole = quantized(features[:1], training=False).numpy()[0, :, 0]
    states = [tf.zeros([int(size) for size in tensor.shape]) for tensor in step.inputs[1:]]
    masks = []
    for frame in features[0]:
        mask, *states = step([frame[None, None], *states], training=False)
        masks.append(mask.numpy().ravel())
    assert snr_db(whole, np.stack(masks)) >= QAT_STEP_FLOOR_DB


def test_state_of_the_step_graph_has_the_range_of_the_layer_that_fills_it(build, core, features):
    twin = make_twin(build, core)
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [features])
    step = quantized_step(build, quantized)
    inputs = {
        layer.input.name: tuple(float(v) for v in layer.weights[:2])
        for layer in step.layers
        if type(layer).__name__ == "QuantizeLayer"
    }
    ranges = _ranges(quantized)
    assert inputs["state_0"] == ranges["block_0"]
    assert inputs["state_1"] == ranges["block_1"]
    assert inputs["features"] == ranges["quantize_layer"]
    assert inputs["state_0"] != inputs["state_1"]


def test_step_graph_of_another_builder_is_refused(build, core):
    other = functools.partial(build_core, "tcn", **{**SIZE, "channels": 4})
    with pytest.raises(ValueError, match=r"needs one of the same name.*Build both graphs"):
        quantized_step(other, quantize(make_twin(build, core)))


def test_finished_road_keeps_its_sparsity_through_quantization(road):
    before = read_json(road.workdir / "pruned" / "sparsity.json")
    after = read_json(road.workdir / "quantized" / "sparsity.json")
    assert after == before


def test_quantize_leaves_the_core_it_was_given_alone(build, core):
    twin = make_twin(build, core)
    before = [weight.copy() for weight in twin.get_weights()]
    quantize(twin)
    assert isinstance(twin, tf_keras.Model)
    assert all(np.array_equal(a, b) for a, b in zip(before, twin.get_weights(), strict=True))


def _small_model(*layers):
    x = tf_keras.layers.Input((8, 1, 4), name="features")
    y = x
    for layer in layers:
        y = layer(y)
    return tf_keras.Model(x, y)


class _Own(tf_keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((tf_keras.layers.LayerNormalization(name="norm"),), "'norm', a LayerNorm.*Use Batch"),
        ((tf_keras.layers.PReLU(name="act"),), "'act', a PReLU.*Use ReLU"),
        ((tf_keras.layers.Activation("gelu", name="act"),), "'act', a Activation.*Use one of lin"),
        ((_Own(name="mine"),), "'mine', a _Own.*no rule for it is known. Use one of"),
        ((tf_keras.layers.Lambda(abs, name="code"),), "'code', a Lambda.*Use a layer"),
        ((tf_keras.layers.Conv2DTranspose(4, 1, name="up"),), "'up', a Conv2DTr.*Use Conv2D and"),
        ((tf_keras.layers.Conv2D(4, 1, activation="gelu", name="c"),), "'c', a Conv2D: its func"),
        ((tf_keras.layers.Dense(4, activation="elu", name="d"),), "'d', a Dense: its function"),
        (
            (tf_keras.layers.DepthwiseConv2D(1, activation="swish", name="w"),),
            "'w', a DepthwiseConv2D: its function.*Use one of linear",
        ),
        ((tf_keras.layers.ReLU(negative_slope=0.1, name="act"),), "'act', a ReLU.*Use ReLU"),
        ((tf_keras.layers.ReLU(threshold=0.1, name="act"),), "'act', a ReLU.*Use ReLU"),
        ((tf_keras.layers.ReLU(max_value=3.0, name="act"),), "'act', a ReLU.*Use ReLU"),
        (
            (tf_keras.layers.Dense(4), tf_keras.layers.BatchNormalization(name="norm")),
            "'norm', a BatchNormalization: behind a Dense it would stay float",
        ),
        (
            (tf_keras.layers.Reshape((8, 4)), tf_keras.layers.GRU(4, name="rnn")),
            "'rnn', a GRU: a loop.*lmkd_tf.models.gru",
        ),
    ],
)
def test_layer_without_an_integer_form_is_refused_with_what_to_use(layers, words):
    with pytest.raises(ValueError, match=f"must have a form in integers. Received {words}"):
        quantize(_small_model(*layers))


@pytest.mark.parametrize("kind", [tf_keras.layers.Add, tf_keras.layers.Multiply])
def test_sum_and_product_of_three_are_refused(kind):
    x = tf_keras.layers.Input((8, 1, 4))
    with pytest.raises(ValueError, match=r"two inputs, not 3\. Use one layer after another"):
        quantize(tf_keras.Model(x, kind()([x, x, x])))


@pytest.mark.parametrize("function", ["linear", "relu", "sigmoid", "tanh"])
def test_function_within_a_convolution_may_be_one_of_the_integer_ones(function):
    layers = tf_keras.layers
    quantize(_small_model(layers.Conv2D(4, 1, activation=function), layers.ReLU(6.0)))


def test_operator_without_a_layer_is_refused():
    x = tf_keras.layers.Input((8, 1, 4))
    with pytest.raises(ValueError, match=r"a TFOpLambda: an operator without a layer"):
        quantize(tf_keras.Model(x, x * 2.0))


def test_nested_and_subclassed_models_are_refused():
    inner = _small_model(tf_keras.layers.ReLU())
    inner._name = "inner"
    with pytest.raises(ValueError, match=r"'inner', a Functional: a model within a model"):
        quantize(_small_model(inner))

    class Subclassed(tf_keras.Model):
        pass

    with pytest.raises(ValueError, match=r"must be a functional model. Received a Subclassed"):
        quantize(Subclassed())


def test_products_and_differences_have_ranges_of_their_own():
    x = tf_keras.layers.Input((8, 1, 4), name="features")
    layers = tf_keras.layers
    gate = layers.Activation("sigmoid", name="gate")(layers.Conv2D(4, 1, name="gate_in")(x))
    value = layers.Activation("tanh", name="value")(layers.Conv2D(4, 1, name="value_in")(x))
    gated = layers.Multiply(name="product")([gate, value])
    core = tf_keras.Model(x, layers.Subtract(name="difference")([gated, value]))
    quantized = quantize(core)
    rng = np.random.default_rng(0)
    batch = rng.normal(0, 1, (4, 8, 1, 4)).astype(np.float32)
    calibrate_ranges(quantized, core, [batch])
    ranges = _ranges(quantized)
    assert {"product", "difference"} <= ranges.keys()
    probe = tf_keras.Model(x, core.get_layer("difference").output)
    values = probe(batch).numpy()
    np.testing.assert_allclose(
        ranges["difference"], (min(values.min(), 0), max(values.max(), 0)), rtol=1e-5
    )
    found = quantized(batch, training=False).numpy()
    assert 30.0 < snr_db(core(batch).numpy(), found) < 80.0


def test_every_channel_of_a_depthwise_kernel_has_a_range_of_its_own(build, core, features):
    twin = make_twin(build, core)
    kernel = twin.get_layer("depthwise_0").get_weights()[0]
    kernel *= np.logspace(-3, 0, SIZE["channels"])[:, None]  # with one range, most would be zero
    twin.get_layer("depthwise_0").set_weights([kernel])
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [features])
    stored = {v.name.split(":")[0].split("/")[-1]: v.numpy() for v in _depthwise(quantized).weights}
    wanted = np.abs(kernel).max(axis=(0, 1, 3))
    np.testing.assert_allclose(stored["depthwise_kernel_max"], wanted, rtol=1e-6)
    np.testing.assert_allclose(stored["depthwise_kernel_min"], -wanted, rtol=1e-6)
    _depthwise(quantized)(np.ones((1, 5, 1, SIZE["channels"]), np.float32), training=False)
    rounded = np.asarray(_depthwise(quantized).layer.depthwise_kernel)
    steps = wanted[:, None] / 127.0
    np.testing.assert_allclose(rounded, np.round(kernel / steps) * steps, atol=1e-7)


def _depthwise(quantized):
    return quantized.get_layer("quant_depthwise_0")


def test_range_of_logits_on_a_grid_ends_there_too(seeded):
    size = {"num_bands": 16, "bands_per_position": 4, "encoder_channels": 6, "channels": 8}
    build = functools.partial(build_core, "nano", **size)
    core, rng = build(), np.random.default_rng(seeded)
    kernel, bias = core.get_layer("mask_logits").get_weights()
    core.get_layer("mask_logits").set_weights([40.0 * kernel, bias - 30.0])
    twin = make_twin(build, core)
    quantized = quantize(twin)
    features = rng.normal(0, 0.5, (2, 20, 1, 16)).astype(np.float32)
    calibrate_ranges(quantized, twin, [features])
    assert _ranges(quantized)["mask_logits"][0] == pytest.approx(-6.2364, abs=1e-3)


def test_range_of_logits_ends_where_the_mask_does_not_change(build, core, features):
    kernel, bias = core.get_layer("mask_logits").get_weights()
    core.get_layer("mask_logits").set_weights([20.0 * kernel, bias - 30.0])
    twin = make_twin(build, core)
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [features])
    low, high = _ranges(quantized)["mask_logits"]
    assert low == pytest.approx(-6.2364, abs=1e-3)  # sigmoid(low) = 1 / 512
    assert 0.0 <= high <= 6.2365
    others = {name: pair for name, pair in _ranges(quantized).items() if name != "mask_logits"}
    limit_logits(quantized)
    assert {n: p for n, p in _ranges(quantized).items() if n != "mask_logits"} == others
