# SPDX-License-Identifier: Apache-2.0
import keras
import pytest
import tf_keras

from lmkd_tf.metrics.cost import count_parameters, macs_per_frame
from lmkd_tf.models.builder import build_core


def macs_by_hand(bands, channels, blocks):
    # encoder E*C; per block depthwise 3*C and pointwise C*C; mask C*E
    return bands * channels + blocks * (3 * channels + channels * channels) + channels * bands


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_work_of_a_small_core_is_the_sum_over_its_kernels(namespace):
    size = {"num_bands": 10, "channels": 4, "dilations": (1, 2)}
    core = build_core("tcn", namespace=namespace, **size)
    # 10*4 + 2*(3*4 + 4*4) + 4*10 = 40 + 56 + 40
    assert macs_per_frame(core) == 136


def test_work_of_the_plain_network_is_that_of_the_formula():
    assert macs_per_frame(build_core("tcn")) == macs_by_hand(128, 96, 8)


def test_step_graph_does_the_same_work_as_one_frame_of_the_whole_graph():
    assert macs_per_frame(build_core("tcn", is_step=True)) == macs_per_frame(build_core("tcn"))


def test_a_layer_of_unknown_work_is_refused_by_name():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    with pytest.raises(ValueError, match=r"work of every layer .* Received 'head', a Dense\. Add"):
        macs_per_frame(model)


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_only_trainable_parameters_are_counted(namespace):
    layers = namespace.layers
    inputs = layers.Input((4,))
    norm = layers.BatchNormalization()(layers.Dense(3)(inputs))
    # 4*3 + 3, and gamma and beta of the norm; its two moving statistics do not count
    assert count_parameters(namespace.Model(inputs, norm)) == 15 + 6
