# SPDX-License-Identifier: Apache-2.0
import keras
import pytest
import tf_keras

from lmkd_tf.metrics.cost import count_parameters, macs_per_frame
from lmkd_tf.models.axial_attention import AxialAttention
from lmkd_tf.models.builder import build_core


def macs_by_hand(bands, channels, blocks):
    # encoder E*C; per block depthwise 3*C and pointwise C*C; mask C*E
    return bands * channels + blocks * (3 * channels + channels * channels) + channels * bands


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_work_of_a_small_core_is_the_sum_over_its_kernels(namespace):
    size = {"num_bands": 10, "channels": 4, "dilations": (1, 2)}
    core = build_core("tcn", namespace=namespace, is_step=True, **size)
    # 10*4 + 2*(3*4 + 4*4) + 4*10 = 40 + 56 + 40
    assert macs_per_frame(core) == 136


def test_work_of_the_plain_network_is_that_of_the_formula():
    assert macs_per_frame(build_core("tcn")) == macs_by_hand(128, 96, 8)


def test_step_graph_does_the_same_work_as_one_frame_of_the_whole_graph():
    assert macs_per_frame(build_core("tcn", is_step=True)) == macs_per_frame(build_core("tcn"))


# Each layer on 5 positions of 4 channels; the work of one frame by hand.
LAYERS = {
    # (2, 3) kernel, 4 to 6 channels, at ceil(5 / 2) = 3 positions
    "strided": (lambda k: k.Conv2D(6, (2, 3), strides=(1, 2), padding="same"), 2 * 3 * 4 * 6 * 3),
    # valid: 5 - 3 + 1 = 3 positions
    "valid": (lambda k: k.Conv2D(6, (1, 3)), 3 * 4 * 6 * 3),
    # two groups: each of the 6 outputs sees 2 channels
    "grouped": (lambda k: k.Conv2D(6, 1, groups=2), 2 * 6 * 5),
    "dilated": (lambda k: k.Conv2D(6, (1, 3), dilation_rate=(1, 2), padding="same"), 3 * 24 * 5),
    "depthwise": (lambda k: k.DepthwiseConv2D((1, 3), padding="same"), 3 * 4 * 5),
    # depthwise, then pointwise
    "separable": (lambda k: k.SeparableConv2D(6, (1, 3), padding="same"), (3 * 4 + 4 * 6) * 5),
    # every one of 5 inputs meets 3 weights for each pair of channels
    "transposed": (lambda k: k.Conv2DTranspose(6, (1, 3), strides=(1, 2)), 5 * 3 * 4 * 6),
    "dense": (lambda k: k.Dense(6), 4 * 6 * 5),
    "rectifier": (lambda k: k.PReLU(shared_axes=[1]), 0),
}


@pytest.mark.parametrize("namespace", [keras, tf_keras])
@pytest.mark.parametrize("name", LAYERS)
def test_work_of_a_layer_is_that_by_hand(name, namespace):
    make, expected = LAYERS[name]
    inputs = namespace.layers.Input((7, 5, 4))
    assert macs_per_frame(namespace.Model(inputs, make(namespace.layers)(inputs))) == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        # gates times (input 4 + state 6) times 6; a transposed one meets its input once
        (lambda: keras.layers.GRU(6, return_sequences=True), 3 * (4 + 6) * 6),
        (lambda: keras.layers.LSTM(6, return_sequences=True), 4 * (4 + 6) * 6),
        (lambda: keras.layers.SimpleRNN(6, return_sequences=True), (4 + 6) * 6),
        (lambda: keras.layers.Conv1D(6, 3, padding="causal"), 3 * 4 * 6),
        (lambda: keras.layers.Conv1DTranspose(6, 3), 3 * 4 * 6),
    ],
)
def test_work_over_time_alone_is_that_by_hand(make, expected):
    inputs = keras.layers.Input((7, 4))
    assert macs_per_frame(keras.Model(inputs, make()(inputs))) == expected


def test_work_of_attention_is_projections_logits_positions_and_mixture():
    inputs = keras.layers.Input((None, 5, 8))
    along = {axis: keras.Model(inputs, AxialAttention(axis, 4, 9)(inputs)) for axis in (1, 2)}
    # Every one of 5 positions: 4 projections of 8 x 8, and 3 products of 8 with every key.
    assert macs_per_frame(along[1], 70) == 5 * (4 * 64 + 3 * 70 * 8)
    assert macs_per_frame(along[2]) == 5 * (4 * 64 + 3 * 5 * 8)
    with pytest.raises(ValueError, match=r"depends on the number of frames\. Received .*Pass the"):
        macs_per_frame(along[1])


def test_work_of_the_published_generator_is_known():
    # 36.5 and 2.16 GMAC/s, by others, for 2 s of audio: 321 frames, positions counted
    for name, expected in (("cmgan", 36.5e9), ("cmgan_student", 2.16e9)):
        assert macs_per_frame(build_core(name), 321) * 321 / 2 == pytest.approx(expected, rel=3e-3)


def test_a_layer_of_unknown_work_is_refused_by_name():
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.EinsumDense("ab,bc->ac", 2, name="head")])
    with pytest.raises(ValueError, match=r"work of every layer .* Received 'head', a EinsumDense"):
        macs_per_frame(model)


def test_positions_that_tf_keras_leaves_open_are_refused():
    core = build_core("tcn", namespace=tf_keras, num_bands=10, channels=4, dilations=(1, 2))
    with pytest.raises(ValueError, match=r"must be known from the shapes\. .*Count the step graph"):
        macs_per_frame(core)


def test_a_layer_that_leaves_frames_out_is_refused_by_name():
    inputs = keras.layers.Input((8, 4))
    model = keras.Model(inputs, keras.layers.Conv1D(2, 2, strides=2, name="half")(inputs))
    with pytest.raises(ValueError, match=r"as many frames going out .*'half' with strides \(2,\)"):
        macs_per_frame(model)


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_only_trainable_parameters_are_counted(namespace):
    layers = namespace.layers
    inputs = layers.Input((4,))
    norm = layers.BatchNormalization()(layers.Dense(3)(inputs))
    # 4*3 + 3, and gamma and beta of the norm; its two moving statistics do not count
    assert count_parameters(namespace.Model(inputs, norm)) == 15 + 6
