# SPDX-License-Identifier: Apache-2.0
import functools

import keras
import numpy as np
import pytest

from lmkd_tf.cli.stages import export_calibrated
from lmkd_tf.compress.structured import channel_groups, rank_channels, shrink
from lmkd_tf.evaluate.parity import snr_db
from lmkd_tf.metrics.cost import count_parameters, macs_per_frame
from lmkd_tf.models import SpeechEnhancer
from lmkd_tf.models.builder import build_core
from tests.compress.conftest import SIZE
from tests.models.conformance import run_steps

GRID = {
    "num_bands": 32,
    "bands_per_position": 4,
    "encoder_channels": 6,
    "channels": 8,
    "dilations": (1, 2),
    "squeeze_channels": 5,
    "bottleneck_channels": 12,
    "bottleneck_dilations": (1, 3),
    "recurrent_channels": 0,
}
# Each size that may shrink, with the channels to make zero by the layer that writes them: what
# repeats channels for several positions is zero in each of them.
SMALLER_GRID = {"encoder_channels": 4, "channels": 6, "squeeze_channels": 3}
SMALLER_GRID |= {"bottleneck_channels": 8}
SILENT_GRID = {
    "encoder_norm": [1, 4],
    "expand": [1, 4, 7, 10],
    **{name: [0, 5] for name in ("block_0_norm", "block_1_time", "stretch", "block_2_time")},
    "block_1_memory_norm": [3],
    "block_2_memory_norm": [0],
    "squeeze_norm": [0, 2],
    "spread_norm": [position * 5 + channel for position in range(4) for channel in (3, 4)],
    **{f"bottleneck{name}": [2, 3, 7, 11] for name in ("_0_norm", "_1_time", "_time")},
    "bottleneck_1_memory_norm": [0, 5],
    "bottleneck_memory_norm": [1, 2],
}


@pytest.fixture
def build_grid():
    return functools.partial(build_core, "nano", **GRID)


@pytest.fixture
def grid(build_grid, seeded):
    """Core on a grid with normalization statistics that are not those of a fresh network."""
    core, rng = build_grid(), np.random.default_rng(seeded)
    for layer in _norms(core):
        gamma, beta, mean, variance = layer.get_weights()
        mean, beta = rng.normal(0, 0.3, mean.shape), rng.normal(0, 0.3, beta.shape)
        layer.set_weights([gamma, beta, mean, rng.uniform(0.5, 1.5, variance.shape)])
    return core


@pytest.fixture
def grid_features():
    rng = np.random.default_rng(7)
    return rng.normal(0.1, 0.5, (2, 20, 1, GRID["num_bands"])).astype(np.float32)


def _norms(core):
    return [layer for layer in core.layers if type(layer).__name__ == "BatchNormalization"]


def _silence(layer, channels):
    """Makes channels of a normalization zero."""
    gamma, beta, mean, variance = layer.get_weights()
    gamma[channels], beta[channels] = 0.0, 0.0
    layer.set_weights([gamma, beta, mean, variance])


def test_residual_channels_form_one_group_and_bands_none(core):
    (group,) = channel_groups(core)
    assert group.width == SIZE["channels"]
    assert group.producers == ("encoder", "pointwise_0", "pointwise_1")
    assert group.consumers == ("pointwise_0", "pointwise_1", "mask_logits")
    assert {"block_0", "depthwise_norm_1", "add_1"} <= set(group.members)
    assert not {"features", "mask_logits", "mask"} & set(group.members)


def test_channels_without_effect_rank_last(core, features):
    (group,) = channel_groups(core)
    for name in group.consumers:
        weights = core.get_layer(name).get_weights()
        weights[0][:, :, [2, 5]] = 0.0
        core.get_layer(name).set_weights(weights)
    scores = rank_channels(core, group, features)
    assert set(np.argsort(scores)[:2]) == {2, 5}
    assert scores[[2, 5]].max() == 0.0
    assert scores.sum() == pytest.approx(len(group.consumers))


def test_removing_channels_without_effect_changes_nothing(build, core, features):
    for layer in _norms(core):
        _silence(layer, [1, 6])
    wanted = np.asarray(core(features, training=False))
    smaller = shrink(build, core, channels=6, features=features)
    np.testing.assert_allclose(np.asarray(smaller(features, training=False)), wanted, atol=1e-6)


def test_shrunk_network_is_smaller_and_does_less_work(build, core, features):
    smaller = shrink(build, core, channels=4, features=features)
    width, bands, blocks = 4, SIZE["num_bands"], len(SIZE["dilations"])
    macs = bands * width + blocks * (3 * width + width * width) + width * bands
    assert macs_per_frame(smaller) == macs < macs_per_frame(core)
    assert count_parameters(smaller) < count_parameters(core)


def test_kept_channels_carry_their_weights_over(build, core, features):
    (group,) = channel_groups(core)
    best = np.sort(np.argsort(-rank_channels(core, group, features), kind="stable")[:5])
    smaller = shrink(build, core, channels=5, features=features)
    old, new = (c.get_layer("pointwise_1").get_weights()[0][0, 0] for c in (core, smaller))
    np.testing.assert_array_equal(new, old[np.ix_(best, best)])
    old, new = (c.get_layer("depthwise_0").get_weights()[0][:, 0, :, 0] for c in (core, smaller))
    np.testing.assert_array_equal(new, old[:, best])
    old, new = (c.get_layer("encoder_norm").get_weights() for c in (core, smaller))
    for a, b in zip(old, new, strict=True):
        np.testing.assert_array_equal(b, a[best])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"channels": 0}, r"at least one of everything\. Received \{'channels': 0\}"),
        ({}, r"at least one of everything\. Received \{\}"),
        ({"channels": 8}, r"something to remove\. Received .*8\}, which is the size"),
        ({"channels": 9}, r"nothing larger\. Received .*encoder has 9 channels instead of 8"),
        ({"squeeze_channels": 2}, r"Unknown size argument\. Received 'squeeze_channels'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(build, core, features, size, message):
    with pytest.raises(ValueError, match=message):
        shrink(build, core, features=features, **size)


def test_positions_of_more_bands_alone_are_refused_with_what_they_need(features):
    size = {"num_bands": 16, "bands_per_position": 2, "encoder_channels": 4, "channels": 8}
    on_grid = functools.partial(build_core, "nano", **size)
    with pytest.raises(ValueError, match=r"`bands_per_position` changes only together with"):
        shrink(on_grid, on_grid(), bands_per_position=4, features=features)


def test_another_graph_is_refused(build, core, features):
    other = functools.partial(build, dilations=(1, 2, 4))
    with pytest.raises(
        ValueError, match=r"must have the same layers\. Received .*channels.* 4.*add_2"
    ):
        shrink(other, core, channels=4, features=features)


def test_layer_of_unknown_kind_is_refused_by_name():
    x = keras.layers.Input((None, 1, 4))
    y = keras.layers.LayerNormalization(name="norm")(keras.layers.Conv2D(4, 1)(x))
    with pytest.raises(ValueError, match=r"Received 'norm', a LayerNormalization"):
        channel_groups(keras.Model(x, y))


def test_channels_of_a_grid_are_tied_through_what_moves_positions(grid):
    groups = {group.producers: group for group in channel_groups(grid)}
    widths = {producers: group.width for producers, group in groups.items()}
    assert widths == {
        ("encoder_conv", "expand_conv"): 6,
        ("block_0_conv", "block_1_time_conv", "stretch_conv", "block_2_time_conv"): 8,
        ("block_1_memory_conv",): 4,
        ("block_2_memory_conv",): 4,
        ("squeeze_conv",): 5,
        ("bottleneck_0_conv", "bottleneck_1_time_conv", "bottleneck_time_conv"): 12,
        ("bottleneck_1_memory_conv",): 6,
        ("bottleneck_memory_conv",): 6,
        ("spread_conv",): 5,
    }
    assert groups[("encoder_conv", "expand_conv")].consumers == ("block_0_conv", "mask_logits")
    assert groups[("squeeze_conv",)].consumers == ("bottleneck_0_conv",)
    assert groups[("spread_conv",)].consumers == ("stretch_conv",)


def test_removing_channels_of_a_grid_without_effect_changes_nothing(
    build_grid, grid, grid_features
):
    for name, channels in SILENT_GRID.items():
        _silence(grid.get_layer(name), channels)
    wanted = np.asarray(grid(grid_features, training=False))
    smaller = shrink(build_grid, grid, features=grid_features, **SMALLER_GRID)
    found = np.asarray(smaller(grid_features, training=False))
    assert snr_db(wanted, found) > 100.0
    assert macs_per_frame(smaller) < 0.7 * macs_per_frame(grid)


def test_removing_channels_of_a_recurrence_without_effect_changes_nothing(grid_features):
    size = {**GRID, "dilations": (0, 2), "bottleneck_dilations": (), "recurrent_channels": 7}
    build = functools.partial(build_core, "nano", **size)
    core = build()
    for name, channels in SILENT_GRID.items():
        if name.startswith(("block_", "stretch")):
            _silence(core.get_layer(name), channels)
    # A state whose candidate is always zero stays zero.
    for name, channels in {"block_1_recurrence": [1], "bottleneck": [0, 2, 6]}.items():
        for layer, index in ((core.get_layer(f"{name}_n"), 0), (core.get_layer(name), 2)):
            weights = layer.get_weights()
            weights[index][..., channels] = 0.0
            layer.set_weights(weights)
    wanted = np.asarray(core(grid_features, training=False))
    smaller = shrink(build, core, features=grid_features, channels=6, recurrent_channels=4)
    assert snr_db(wanted, np.asarray(smaller(grid_features, training=False))) > 100.0
    assert smaller.get_layer("block_1_recurrence").get_weights()[0].shape == (1, 1, 3, 3)


@pytest.mark.parametrize("size", SMALLER_GRID)
def test_each_size_of_a_grid_shrinks_alone(build_grid, grid, grid_features, size):
    smaller = shrink(build_grid, grid, features=grid_features, **{size: SMALLER_GRID[size]})
    fresh = build_grid(**{size: SMALLER_GRID[size]})
    assert [w.shape for w in smaller.weights] == [w.shape for w in fresh.weights]
    assert count_parameters(smaller) < count_parameters(grid)
    assert macs_per_frame(smaller) < macs_per_frame(grid)


def test_fewer_bands_of_a_flat_network_are_interpolated(build_grid, grid):
    # With twice as wide bands, what is constant over frequency stays as it was.
    for name in ("bottleneck_0_conv", "spread_conv"):
        layer = grid.get_layer(name)
        layer.set_weights([np.full_like(w, 0.01) for w in layer.get_weights()])
    for layer in _norms(grid):
        values = (np.full_like(w, w.mean()) for w in layer.get_weights())
        layer.set_weights(list(values))
    for size in ({"num_bands": 16}, {"num_bands": 16, "bands_per_position": 2}):
        smaller = shrink(build_grid, grid, features=np.ones((1, 9, 1, 32), np.float32), **size)
        assert smaller.output_shape[-1] == 16
        assert macs_per_frame(smaller) < macs_per_frame(grid)
        wide = np.asarray(grid(np.full((1, 9, 1, 32), 0.3, np.float32), training=False))
        coarse = np.asarray(smaller(np.full((1, 9, 1, 16), 0.3, np.float32), training=False))
        assert wide.mean() == pytest.approx(coarse.mean(), rel=0.05)


def test_kernel_of_merged_bands_is_the_sum_and_mask_the_mean(build, core, features):
    smaller = shrink(build, core, features=features, num_bands=SIZE["num_bands"] // 2)
    old, new = (c.get_layer("encoder").get_weights()[0][0, 0] for c in (core, smaller))
    # New centers lie between two old ones: the inner bands get 3/4 of those two and 1/4 of the
    # next ones, since what an old band saw is interpolated between new bands.
    wanted = 0.75 * (old[2] + old[3]) + 0.25 * (old[1] + old[4])
    np.testing.assert_allclose(new[1], wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(new.sum(axis=0), old.sum(axis=0), rtol=1e-4, atol=1e-6)
    old, new = (c.get_layer("mask_logits").get_weights()[1] for c in (core, smaller))
    wanted = (0.75 * (old[2] + old[3]) + 0.25 * (old[1] + old[4])) / 2
    np.testing.assert_allclose(new[1], wanted, rtol=1e-5, atol=1e-7)


def test_shrunk_grid_exports_smaller_and_its_steps_are_the_whole(
    build_grid, grid, grid_features, tmp_path
):
    smaller = shrink(build_grid, grid, features=grid_features, **SMALLER_GRID)
    size = {**GRID, **SMALLER_GRID}
    enhancer = SpeechEnhancer(smaller, architecture="nano", size=size)
    whole = np.asarray(smaller(grid_features[:1], training=False))
    steps = run_steps(enhancer.step_graph(), grid_features[:1])
    assert snr_db(whole, steps) > 100.0
    noisy = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 16000)).astype(np.float32)
    before = SpeechEnhancer(grid, architecture="nano", size=GRID)
    manifests = [
        export_calibrated(model, tmp_path / f"{i}.tflite", [noisy], architecture="nano", size=own)
        for i, (model, own) in enumerate(((before, GRID), (enhancer, size)))
    ]
    sizes = [(m.model["bytes"], m.parameters, m.macs_per_hop, m.arena_bytes) for m in manifests]
    assert all(after < value for value, after in zip(*sizes, strict=True)), sizes
    assert manifests[1].macs_per_hop == macs_per_frame(smaller)


def test_layer_that_tears_channels_apart_is_refused_by_name():
    x = keras.layers.Input((None, 1, 12))
    y = keras.layers.Conv2D(6, 1)(x)
    y = keras.layers.Reshape((-1, 2, 3), name="fine")(y)
    y = keras.layers.Reshape((-1, 3, 2), name="torn")(y)
    y = keras.layers.Conv2D(4, 1)(y)
    with pytest.raises(ValueError, match=r"Received 'torn', a Reshape"):
        channel_groups(keras.Model(x, y))
