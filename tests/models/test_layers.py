# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
import tf_keras

from lmkd_tf.models.layers import state_concatenate


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_state_comes_before_the_frames_in_time(namespace):
    state, frames = np.zeros((1, 3, 1, 2), np.float32), np.ones((1, 2, 1, 2), np.float32)
    joined = state_concatenate(namespace)()([state, frames])
    np.testing.assert_array_equal(joined, np.concatenate([state, frames], axis=1))


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_output_shape_is_known_before_the_layer_runs(namespace):
    layer = state_concatenate(namespace)()
    assert layer.compute_output_shape([(1, 3, 1, 8), (1, 1, 1, 8)]) == (1, 4, 1, 8)
    assert layer.compute_output_shape([(1, 3, 1, 8), (1, None, 1, 8)]) == (1, None, 1, 8)


@pytest.mark.parametrize("namespace", [keras, tf_keras])
def test_the_layer_is_one_class_per_namespace_and_not_called_concatenate(namespace):
    assert state_concatenate(namespace) is state_concatenate(namespace)
    assert issubclass(state_concatenate(namespace), namespace.layers.Layer)
    assert state_concatenate(namespace).__name__ != "Concatenate"
