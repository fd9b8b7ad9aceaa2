# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.compress.structured import channel_groups, rank_channels, shrink
from lmkd_tf.metrics.cost import count_parameters, macs_per_frame
from tests.compress.conftest import SIZE


def _silence(core, channels):
    """Makes channels zero wherever they are written."""
    for layer in core.layers:
        if "norm" in layer.name:
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
    _silence(core, [1, 6])
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


@pytest.mark.parametrize("channels", [0, 9])
def test_channels_out_of_range_are_refused(build, core, features, channels):
    with pytest.raises(ValueError, match=rf"\[1, 8\], the width of encoder\. Received {channels}"):
        shrink(build, core, channels=channels, features=features)


def test_another_builder_is_refused(build, core, features):
    with pytest.raises(ValueError, match=r"must differ in its channels alone\. Received 'encoder'"):
        shrink(lambda **_: build(), core, channels=4, features=features)


def test_layer_of_unknown_kind_is_refused_by_name():
    x = keras.layers.Input((None, 1, 4))
    y = keras.layers.LayerNormalization(name="norm")(keras.layers.Conv2D(4, 1)(x))
    with pytest.raises(ValueError, match=r"Received 'norm', a LayerNormalization"):
        channel_groups(keras.Model(x, y))
