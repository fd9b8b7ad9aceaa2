# SPDX-License-Identifier: Apache-2.0
"""Networks unlike the shipped one, as TensorFlow's converter makes them, against TFLM."""

import subprocess
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from lmkd_tf.firmware.emulator import build
from lmkd_tf.firmware.graph import read_quantized_graph
from tests.firmware.operator_program import write_operator_program


def frequency_network():
    """Two-dimensional convolutions over time and frequency, a gate, and dense layers."""
    x = layers.Input((1, 64, 1), batch_size=1, name="features")
    state = layers.Input((2, 32, 8), batch_size=1, name="state_0")
    y = layers.Conv2D(8, (1, 5), strides=(1, 2), padding="same", activation="relu")(x)
    joined = layers.Concatenate(axis=1)([state, y])
    next_state = layers.Cropping2D(((1, 0), (0, 0)))(joined)
    z = layers.DepthwiseConv2D((3, 3))(layers.ZeroPadding2D(((0, 0), (1, 1)))(joined))
    z = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(z))
    z = layers.Conv2D(8, 1, activation="tanh")(z)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.AveragePooling2D((1, 32))(z))
    z = layers.Subtract()([layers.Multiply()([z, gate]), y])
    z = layers.Dense(32, activation="relu")(layers.Reshape((256,))(z))
    mask = layers.Reshape((1, 64, 1))(layers.Dense(64, activation="sigmoid")(z))
    return keras.Model([x, state], [mask, next_state])


def recurrent_network():
    """One step of a gated recurrent unit, written as plain operations."""
    x = layers.Input((24,), batch_size=1, name="features")
    h = layers.Input((16,), batch_size=1, name="state_0")
    gates = keras.ops.sigmoid(layers.Dense(32)(layers.Concatenate()([x, h])))
    update, reset = keras.ops.split(gates, 2, axis=-1)
    candidate = keras.ops.tanh(layers.Dense(16)(layers.Concatenate()([x, reset * h])))
    new = update * h + (1.0 - update) * candidate
    return keras.Model([x, h], [layers.Dense(24, activation="sigmoid")(new), new])


def convert(model):
    """The int8 `.tflite` of a model, calibrated on noise."""
    rng = np.random.default_rng(0)
    shapes = {tensor.name: tensor.shape for tensor in model.inputs}
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(50)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own, on interpreters to come
        return converter.convert()


@pytest.mark.parametrize(
    ("make", "operators"),
    [
        (frequency_network, {"CONV_2D", "DEPTHWISE_CONV_2D", "PAD", "AVERAGE_POOL_2D", "MUL"}),
        (recurrent_network, {"FULLY_CONNECTED", "SPLIT", "LOGISTIC", "TANH", "SUB", "ADD"}),
    ],
)
def test_converted_network_in_c_equals_tflm_bit_for_bit(
    make, operators, seeded, tmp_path, require_tool
):
    require_tool("cmake", "cmake")
    content = convert(make())
    write_operator_program(tmp_path, {"network": lambda: content})
    graph = read_quantized_graph(tmp_path / "network.tflite")
    assert operators <= {operator.name for operator in graph.operators}
    definitions = {"LMKD_OPERATOR_DIR": tmp_path}
    folder = build("host-gcc", tmp_path / "build", definitions, ["test_operators"])
    program = folder / "test_operators"
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("network 0\n", "")
