# SPDX-License-Identifier: Apache-2.0
"""What every network of `ARCHITECTURES` must do; a new one is one line there and none here."""

import os
import subprocess
import sys
from math import prod

import h5py
import keras
import numpy as np
import pytest
import tf_keras

from lmkd_tf.compress.quantization import calibrate_ranges, quantize
from lmkd_tf.compress.twin import make_twin
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.export.flatbuffer import read_graph
from lmkd_tf.export.interpreter import StepModel
from lmkd_tf.export.tflite import to_tflite
from lmkd_tf.metrics.cost import count_parameters, macs_per_frame
from lmkd_tf.models.builder import ARCHITECTURES, build_core
from lmkd_tf.models.enhancer import load_enhancer
from tests.models.conformance import (
    CAUSAL,
    NETWORKS,
    SMALLER,
    STREAMING,
    random_enhancer,
    random_features,
    run_steps,
    snr_db,
)

# Sums of float32 in another order: 120 dB and more was measured everywhere.
STEP_FLOOR_DB = 100.0
JAX_FLOOR_DB = 90.0
# Half precision has 66 dB at best.
MIXED_FLOOR_DB = 30.0

IN_EVERY_RUN = "nano"

_models = {}


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture(params=STREAMING)
def streaming_name(request):
    return request.param


def model_of(name):
    """One model per architecture; no test changes it."""
    if name not in _models:
        _models[name] = random_enhancer(name)
    return _models[name]


def noisy_of(num_samples=5000, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=(1, num_samples))).astype(np.float32)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_sample_changes_nothing_before_its_first_frame(name):
    model, before = model_of(name), noisy_of()
    after = before.copy()
    after[0, 2900] += 0.5  # in hop 11; the first frame that holds it starts with hop 10
    moved = np.flatnonzero(np.asarray(model(after))[0] != np.asarray(model(before))[0])
    assert moved.min() >= 10 * 256
    assert moved.max() >= 2900


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in CAUSAL])
def test_network_that_is_not_causal_sees_the_future(name):
    model, before = model_of(name), noisy_of()
    after = before.copy()
    after[0, 4900] += 0.5
    moved = np.flatnonzero(np.asarray(model(after))[0] != np.asarray(model(before))[0])
    assert moved.min() < 2000


def test_step_graph_is_the_whole_utterance(streaming_name):
    model = model_of(streaming_name)
    features = random_features(model.core, 40)
    whole = np.asarray(model.core(features, training=False))
    assert whole.std() > 0.01
    assert snr_db(whole, run_steps(model.step_graph(), features)) >= STEP_FLOOR_DB


def test_twin_of_tf_keras_computes_the_same_mask(streaming_name):
    model = model_of(streaming_name)
    twin = build_core(streaming_name, namespace=tf_keras)
    twin.set_weights(model.core.get_weights())
    features = random_features(model.core, 10)
    whole = np.asarray(model.core(features, training=False))
    assert snr_db(whole, np.asarray(twin(features, training=False))) >= STEP_FLOOR_DB


def test_saved_network_loads_and_enhances_to_the_bit(name, tmp_path):
    model = model_of(name)
    model.save(tmp_path / "model.keras")
    loaded = load_enhancer(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded(noisy_of()), model(noisy_of()))
    assert (loaded.architecture, dict(loaded.size)) == (name, _plain(model.size))
    if name in STREAMING:
        weights = zip(loaded.step_graph().get_weights(), model.core.get_weights(), strict=True)
        assert all(np.array_equal(one, other) for one, other in weights)


def _plain(size):
    return {key: list(v) if isinstance(v, tuple) else v for key, v in size.items()}


def test_parameters_are_the_numbers_in_the_file(name, tmp_path):
    core = model_of(name).core
    core.save_weights(tmp_path / "core.weights.h5")
    sizes = []
    with h5py.File(tmp_path / "core.weights.h5") as stored:
        stored.visititems(lambda _, item: sizes.append(getattr(item, "size", 0)))
    # Beside them lie two statistics per channel of a batch normalization.
    norms = [layer for layer in core.layers if type(layer).__name__ == "BatchNormalization"]
    statistics = sum(2 * norm.output.shape[-1] for norm in norms)
    assert count_parameters(core) == sum(sizes) - statistics


def test_half_precision_computes_nearly_the_same(name):
    features = random_features(model_of(name).core, 12)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        core = build_core(name, **SMALLER.get(name, {}))
    finally:
        keras.config.set_dtype_policy(policy)
    core.set_weights(model_of(name).core.get_weights())
    assert core.compute_dtype == "float16"
    found = np.asarray(core(features, training=False))
    assert found.dtype == np.float16
    assert {str(np.dtype(v.dtype)) for v in core.trainable_variables} == {"float32"}
    whole = np.asarray(model_of(name).core(features, training=False))
    assert snr_db(whole, found.astype(np.float64)) >= MIXED_FLOOR_DB


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory):
    """Folder with the output of every network on JAX, computed by one other process."""
    folder = tmp_path_factory.mktemp("jax")
    for name in NETWORKS:
        core = model_of(name).core
        features = random_features(core, 20)
        np.savez(folder / f"{name}.npz", *core.get_weights(), features=features)
    command = [sys.executable, "-m", "tests.models.conformance", str(folder)]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares TensorFlow with JAX")
def test_jax_computes_the_same(name, on_jax):
    core = model_of(name).core
    whole = np.asarray(core(random_features(core, 20), training=False))
    with np.load(on_jax / f"{name}.out.npz") as found:
        assert snr_db(whole, found["output"]) >= JAX_FLOOR_DB


def test_work_is_what_the_trace_of_jax_holds(streaming_name, on_jax):
    with np.load(on_jax / f"{streaming_name}.out.npz") as found:
        assert macs_per_frame(model_of(streaming_name).core) == found["macs"]


@pytest.fixture(scope="module")
def exported(request, tmp_path_factory):
    """The int8 step graph of a network: ranges calibrated on features, nothing trained."""
    name = request.param
    folder, core = tmp_path_factory.mktemp(name), model_of(name).core
    _, defaults = ARCHITECTURES[name]

    def build(**how):
        return build_core(name, **how)

    twin = make_twin(build, core)
    quantized = quantize(twin)
    calibrate_ranges(quantized, twin, [random_features(core, 60)])
    quantized.save_weights(folder / "quantized.weights.h5")
    to_tflite(
        folder / "quantized.weights.h5",
        folder / "step.tflite",
        architecture=name,
        size=defaults,
        stft=StftConfig(),
    )
    return name, folder / "step.tflite"


# Half a minute per network on an idle machine, so one is in every run, and the others where slow
# tests are: `./x test -m slow tests/models`.
every_export = pytest.mark.parametrize(
    "exported",
    [
        pytest.param(name, marks=() if name == IN_EVERY_RUN else pytest.mark.slow)
        for name in STREAMING
    ],
    indirect=True,
    scope="module",
)


@every_export
def test_export_holds_integers_alone_and_the_work_and_state_of_the_network(exported):
    name, path = exported
    graph, step = read_graph(path), build_core(name, is_step=True)
    assert not [t.name for t in graph.tensors if "float" in t.dtype]
    assert graph.macs == macs_per_frame(step)
    states = {tensor.name: tensor.shape for tensor in step.inputs[1:]}
    found = {tensor.name: tensor.shape for tensor in graph.inputs if tensor.name != "features"}
    assert found == states
    num_bytes = sum(state["bytes"] for state in StepModel(path).manifest.states)
    assert num_bytes == sum(prod(shape) for shape in states.values())  # one byte each


@every_export
def test_tflite_micro_computes_the_bits_of_the_reference_kernels(exported):
    name, path = exported
    features = random_features(model_of(name).core, 60)[0].reshape(60, -1)
    micro, reference = (StepModel(path, runtime).gains(features) for runtime in ("tflm", "tflite"))
    np.testing.assert_array_equal(micro, reference)
    assert len(np.unique(micro)) > 20


@every_export
def test_int8_follows_the_float_network(exported):
    name, path = exported
    core = model_of(name).core
    features = random_features(core, 60)
    whole = np.asarray(core(features, training=False))[0].reshape(60, -1)
    found = StepModel(path, "tflm").gains(features[0].reshape(60, -1))
    centered = whole - whole.mean()
    assert snr_db(centered, found - whole.mean()) >= 12.0
