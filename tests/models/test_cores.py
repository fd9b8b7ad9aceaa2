# SPDX-License-Identifier: Apache-2.0
import functools
import re
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from lmkd_tf.models.grid import build_grid
from lmkd_tf.models.tcn import build_tcn

NUM_BANDS = {"tcn": 6, "grid": 16, "recurrent_grid": 16}
BUILDERS = {
    "tcn": functools.partial(
        build_tcn, num_bands=NUM_BANDS["tcn"], channels=5, dilations=(1, 2, 3)
    ),
    "grid": functools.partial(
        build_grid,
        num_bands=NUM_BANDS["grid"],
        bands_per_position=2,
        encoder_channels=3,
        channels=4,
        dilations=(1, 2, 1),
        squeeze_channels=2,
        bottleneck_channels=6,
        bottleneck_dilations=(1, 3),
    ),
    "recurrent_grid": functools.partial(
        build_grid,
        num_bands=NUM_BANDS["recurrent_grid"],
        bands_per_position=2,
        encoder_channels=3,
        channels=4,
        dilations=(0, 2, 0),
        squeeze_channels=2,
        bottleneck_channels=6,
        bottleneck_dilations=(),
        recurrent_channels=5,
    ),
}
# The logits of the grid are larger, and so is their rounding.
TWIN_TOLERANCE = {"tcn": 1e-6, "grid": 1e-4, "recurrent_grid": 1e-4}
# None: a recurrence has no last frame.
MEMORY_FRAMES = {
    "tcn": 2 * (1 + 2 + 3),
    "grid": 2 * (1 + 2 + 1) + 2 * (1 + 3),
    "recurrent_grid": None,
}
# Two dilations of frames; on the grid half of 4 channels at 16 / 2 / 2 positions, the first
# two blocks before the bottleneck of 6 channels and the third after it.
STATES = {
    "tcn": [(1, 2, 1, 5), (1, 4, 1, 5), (1, 6, 1, 5)],
    "grid": [(1, 2, 4, 2), (1, 4, 4, 2), (1, 2, 1, 3), (1, 6, 1, 3), (1, 2, 4, 2)],
    "recurrent_grid": [(1, 1, 4, 2), (1, 4, 4, 2), (1, 1, 1, 5), (1, 1, 4, 2)],
}


@pytest.fixture(params=list(BUILDERS))
def name(request):
    return request.param


def build_with_random_weights(name, namespace, seed=0):
    """Core whose batch norms have statistics far from their initial ones."""
    core = BUILDERS[name](namespace=namespace)
    rng = np.random.default_rng(seed)
    core.set_weights([rng.uniform(0.3, 1.2, w.shape) * sign(rng, w) for w in core.get_weights()])
    return core


def sign(rng, weight):
    """Kernels get both signs; vectors (variances among them) stay positive."""
    return rng.choice([-1.0, 1.0], weight.shape) if weight.ndim > 1 else 1.0


def features_of(name, num_frames, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (1, num_frames, 1, NUM_BANDS[name])).astype(np.float32)


def run_steps(step, features):
    state = [np.zeros(tensor.shape, np.float32) for tensor in step.inputs[1:]]
    masks = []
    for t in range(features.shape[1]):
        outputs = step([features[:, t : t + 1], *state], training=False)
        mask, *state = (np.asarray(output) for output in outputs)
        masks.append(mask)
    return np.concatenate(masks, axis=1)


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_step_graph_matches_whole_utterance_graph(name, namespace):
    core = build_with_random_weights(name, namespace)
    step = BUILDERS[name](namespace=namespace, is_step=True)
    step.set_weights(core.get_weights())
    features = features_of(name, 30)
    whole = np.asarray(core(features, training=False), np.float64)
    error = whole - run_steps(step, features)
    assert whole.std() > 0.05  # the mask is not saturated, so the comparison means something
    assert 10 * np.log10(np.sum(whole**2) / max(np.sum(error**2), 1e-30)) >= 110


def test_keras_and_tf_keras_graphs_compute_the_same_mask(name):
    core = build_with_random_weights(name, keras)
    twin = BUILDERS[name](namespace=tf_keras)
    twin.set_weights(core.get_weights())
    features = features_of(name, 20)
    np.testing.assert_allclose(
        core(features, training=False), twin(features, training=False), atol=TWIN_TOLERANCE[name]
    )


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_states_have_their_frames_in_and_out(name, namespace):
    step = BUILDERS[name](namespace=namespace, is_step=True)
    assert [tuple(tensor.shape) for tensor in step.inputs[1:]] == STATES[name]
    assert [tuple(tensor.shape) for tensor in step.outputs[1:]] == STATES[name]
    assert tuple(step.inputs[0].shape) == tuple(step.outputs[0].shape) == (1, 1, 1, NUM_BANDS[name])


def test_step_graph_has_the_names_and_shapes_of_the_weights_of_the_whole_graph(name):
    core, step = (BUILDERS[name](is_step=is_step) for is_step in (False, True))
    assert [w.path for w in step.weights] == [w.path for w in core.weights]
    assert [w.shape for w in step.weights] == [w.shape for w in core.weights]


def test_a_mask_sees_the_frames_of_its_memory_and_nothing_after_it(name):
    before = features_of(name, 30)
    after = before.copy()
    after[0, 10] += 0.5
    core = build_with_random_weights(name, keras)
    difference = np.asarray(core(after, training=False)) - core(before, training=False)
    moved = np.flatnonzero(np.abs(difference).max(axis=(0, 2, 3)) > 0)
    assert moved.min() == 10
    if MEMORY_FRAMES[name] is not None:
        assert moved.max() == 10 + MEMORY_FRAMES[name]
    else:
        assert moved.max() > 20


def test_mask_lies_between_zero_and_one(name):
    core = build_with_random_weights(name, keras)
    mask = np.asarray(core(100 * features_of(name, 10), training=False))
    assert mask.min() >= 0.0
    assert mask.max() <= 1.0


def test_a_recurrence_on_the_grid_is_that_of_every_position_by_itself():
    core = build_with_random_weights("recurrent_grid", keras)
    layer = core.get_layer("block_1_recurrence")
    probe = keras.Model(core.inputs[0], [*layer.input, layer.output])
    *gates, hidden = (np.asarray(v) for v in probe(features_of("recurrent_grid", 12)))
    kernels = [np.asarray(kernel)[0, 0] for kernel in layer.weights]
    for position in range(hidden.shape[2]):
        state = np.zeros(hidden.shape[-1])
        for frame in range(hidden.shape[1]):
            z, r, n = (gate[0, frame, position] for gate in gates)
            z = 1 / (1 + np.exp(-(z + state @ kernels[0])))
            r = 1 / (1 + np.exp(-(r + state @ kernels[1])))
            n = np.tanh(n + r * (state @ kernels[2]))
            state = (1 - z) * state + z * n
            np.testing.assert_allclose(hidden[0, frame, position], state, atol=1e-5)


@pytest.mark.parametrize("dilations", [(), (1,), (2, 0)])
@pytest.mark.parametrize("recurrent_channels", [0, 5])
def test_the_bottleneck_ends_with_the_layer_of_its_name(dilations, recurrent_channels):
    sizes: dict[str, Any] = {"bottleneck_dilations": dilations}
    sizes["recurrent_channels"] = recurrent_channels
    core = BUILDERS["grid"](**sizes)
    last = core.get_layer("bottleneck").output
    assert last.shape[2:] == (1, recurrent_channels or 6)
    assert core.get_layer("spread_conv").input is last


@pytest.mark.parametrize("dilations", [(1, 0), ()])
def test_a_block_of_frames_needs_a_distance(dilations):
    message = re.escape(f"at least one. Received dilations={dilations}")
    with pytest.raises(ValueError, match=message):
        BUILDERS["tcn"](dilations=dilations)


def test_bands_that_do_not_fill_the_positions_are_refused():
    with pytest.raises(ValueError, match=r"even number of positions.*num_bands=18.*multiple of 4"):
        BUILDERS["grid"](num_bands=18)
