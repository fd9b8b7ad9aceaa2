# SPDX-License-Identifier: Apache-2.0
import functools

import numpy as np
import pytest
import tensorflow as tf

from lmkd_tf.compress.quantization import (
    calibrate_ranges,
    quantize,
    quantized_step,
    ranges_of,
    set_activation_bits,
)
from lmkd_tf.compress.recurrence import KNOWN_RANGES, observed_extremes, recurrences_of
from lmkd_tf.compress.twin import make_step_twin, make_twin
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.evaluate.backends import StepBackend
from lmkd_tf.evaluate.parity import snr_db
from lmkd_tf.export.tflite import to_tflite
from lmkd_tf.models.builder import build_core
from lmkd_tf.models.gru import ROUNDED

SIZE = {"num_bands": 12, "channels": 8}
BUILD = functools.partial(build_core, "gru", **SIZE)


@pytest.fixture
def recurrent(seeded):
    """Keras core with recurrent weights that matter."""
    core, rng = BUILD(), np.random.default_rng(seeded)
    core.set_weights([rng.normal(0, 0.5, w.shape) if w.ndim > 1 else w for w in core.get_weights()])
    return core


@pytest.fixture
def quantized(recurrent, features):
    twin = make_twin(BUILD, recurrent)
    core = quantize(twin)
    calibrate_ranges(core, twin, [features])
    return core


def _stepped(step, features):
    state, masks = tf.zeros((1, 1, 1, SIZE["channels"])), []
    for frame in features[0]:
        mask, state = step([frame[None, None], state], training=False)
        masks.append(mask.numpy().ravel())
    return np.stack(masks)


def _by_hand(core, features):
    """The recurrence written out in NumPy; masks `(T, E)`, and every value within a step."""
    weights = {layer.name: layer.get_weights() for layer in core.layers}
    sigmoid = lambda v: 1.0 / (1.0 + np.exp(-v))  # noqa: E731
    gamma, beta, mean, variance = weights["encoder_norm"]
    x = features[0, :, 0] @ weights["encoder"][0][0, 0]
    x = np.maximum((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0.0)
    inputs = {g: x @ weights[f"input_{g}"][0][0, 0] + weights[f"input_{g}"][1] for g in "zrn"}
    kernels = dict(zip("zrn", (w[0, 0] for w in weights["gru"]), strict=True))
    h, masks, sums = np.zeros(SIZE["channels"]), [], []
    for t in range(len(x)):
        z = sigmoid(inputs["z"][t] + h @ kernels["z"])
        r = sigmoid(inputs["r"][t] + h @ kernels["r"])
        sums.append(inputs["n"][t] + r * (h @ kernels["n"]))
        h = (1 - z) * h + z * np.tanh(sums[-1])
        kernel, bias = weights["mask_logits"]
        masks.append(sigmoid(h @ kernel[0, 0] + bias))
    return np.stack(masks), np.stack(sums)


def test_ranges_within_a_step_end_where_the_gates_do_not_change(quantized):
    ((_, layer),) = recurrences_of(quantized)
    layer.set_limits(dict.fromkeys(ROUNDED, (-20.0, 20.0)))
    ends = {name: [float(end) for end in layer.limits_of(name)] for name in ROUNDED}
    for name in ("sum_z", "sum_r"):  # sigmoid there: half a step of 1/256 from 0 and 1
        assert ends[name] == pytest.approx([-np.log(511.0), np.log(511.0)], abs=1e-5)
    end = 0.5 * np.log((1 + 255 / 256) / (1 - 255 / 256))  # tanh there: half a step of 1/128 from 1
    assert ends["sum_n"] == pytest.approx([-end, end], abs=1e-5)
    assert ends["recurrent_z"] == [-20.0, 20.0]


def test_network_computes_the_gates_of_its_formula(recurrent, features):
    wanted, _ = _by_hand(recurrent, features)
    found = np.asarray(recurrent(features[:1], training=False))[0, :, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_step_graph_repeats_the_whole_utterance_frame_by_frame(recurrent, features):
    wanted = np.asarray(recurrent(features[:1], training=False))[0, :, 0]
    np.testing.assert_allclose(
        _stepped(make_step_twin(BUILD, recurrent), features), wanted, atol=2e-6
    )


def test_extremes_within_the_steps_are_those_of_the_formula(recurrent, features):
    twin = make_twin(BUILD, recurrent)
    layer = twin.get_layer("gru")
    import tf_keras

    gates = tf_keras.Model(twin.inputs, layer.input)(features[:1], training=False)
    extremes = observed_extremes(layer, gates)
    assert set(extremes) == set(ROUNDED)
    _, sums = _by_hand(recurrent, features)
    np.testing.assert_allclose(extremes["sum_n"], (sums.min(), sums.max()), rtol=1e-4)
    # It is left as it was.
    np.testing.assert_allclose(
        twin(features).numpy(), np.asarray(recurrent(features, training=False)), atol=2e-6
    )


def test_every_value_of_the_recurrence_is_rounded_and_the_result_is_near(
    quantized, recurrent, features
):
    ((name, layer),) = recurrences_of(quantized)
    assert name == "gru"
    for value in ROUNDED:
        low, high = (float(v) for v in layer.limits_of(value))
        assert (low, high) != (-6.0, 6.0)
        if value in KNOWN_RANGES:
            assert (low, high) == pytest.approx(KNOWN_RANGES[value])
    wanted = np.asarray(recurrent(features, training=False))
    ratio_db = snr_db(wanted, quantized(features, training=False).numpy())
    assert 25.0 < ratio_db < 60.0


def test_state_goes_in_with_the_range_that_it_comes_out_with(quantized, features):
    step = quantized_step(BUILD, quantized)
    inputs = {
        layer.input.name: tuple(float(v) for v in layer.weights[:2])
        for layer in step.layers
        if type(layer).__name__ == "QuantizeLayer"
    }
    assert inputs["state_0"] == pytest.approx(KNOWN_RANGES["state"])
    assert ranges_of(quantized)["gru"] == pytest.approx(KNOWN_RANGES["state"])
    wanted = quantized(features[:1], training=False).numpy()[0, :, 0]
    assert snr_db(wanted, _stepped(step, features)) > 60.0


def test_training_with_fake_quantization_moves_the_recurrent_kernels(quantized, features):
    kernels = [v for v in quantized.trainable_variables if "gru/kernel" in v.name]
    assert len(kernels) == 3
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(quantized(features, training=True) ** 2)
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, kernels)]
    assert all(float(tf.reduce_max(tf.abs(g))) > 0.0 for g in gradients)


def test_recurrences_of_a_grid_leave_for_both_interpreters_as_they_were_trained(tmp_path, seeded):
    size = {"num_bands": 32, "bands_per_position": 4, "encoder_channels": 6, "channels": 8}
    size |= {"dilations": (0, 0), "squeeze_channels": 3, "bottleneck_channels": 8}
    size |= {"bottleneck_dilations": (), "recurrent_channels": 5}
    build = functools.partial(build_core, "small", **size)
    core, rng = build(), np.random.default_rng(seeded)
    core.set_weights([rng.normal(0, 0.4, w.shape) if w.ndim > 1 else w for w in core.get_weights()])
    features = rng.uniform(-1, 1, (1, 60, 1, 32)).astype(np.float32)
    twin = make_twin(build, core)
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [features])
    quantized.save_weights(str(tmp_path / "core.weights.h5"))
    to_tflite(
        tmp_path / "core.weights.h5",
        tmp_path / "core.tflite",
        **{"architecture": "small", "size": size, "stft": StftConfig()},
    )
    found = {}
    for runtime in ("tflite", "tflm"):
        backend = StepBackend(tmp_path / "core.tflite", runtime)
        found[runtime] = backend.gains(features[0, :, 0])
    np.testing.assert_array_equal(found["tflm"], found["tflite"])
    wanted = quantized(features, training=False).numpy()[0, :, 0]
    assert wanted.std() > 0.1
    assert snr_db(wanted, found["tflm"]) > 30.0


def test_saved_network_loads_in_a_process_that_built_none(recurrent, features, tmp_path):
    import importlib

    import keras

    from lmkd_tf.models import gru

    recurrent.save(tmp_path / "core.keras")
    importlib.reload(gru)  # as a new process would import it
    assert "keras" in gru._CLASSES
    loaded = keras.saving.load_model(tmp_path / "core.keras")
    np.testing.assert_array_equal(
        np.asarray(loaded(features, training=False)),
        np.asarray(recurrent(features, training=False)),
    )


def test_with_16_bit_activations_only_the_kernels_are_rounded(recurrent, quantized, features):
    def round_to_int8(kernel):
        step = np.abs(kernel).max(axis=(0, 1, 2)) / 127.0  # per output channel
        return np.round(kernel / step) * step

    found = [quantized(features[:1], training=False).numpy()]
    set_activation_bits(quantized, 16)
    found.append(quantized(features[:1], training=False).numpy())
    kernels = [round_to_int8(w) if w.ndim > 1 else w for w in recurrent.get_weights()]
    recurrent.set_weights(kernels)
    wanted = np.asarray(recurrent(features[:1], training=False))
    at_8_bits, at_16_bits = (snr_db(wanted, masks) for masks in found)
    assert at_8_bits < 55.0
    assert at_16_bits > at_8_bits + 12.0
