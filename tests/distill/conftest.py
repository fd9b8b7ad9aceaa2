# SPDX-License-Identifier: Apache-2.0
"""Gradients and compiled graphs on whichever backend the tests run."""

from collections.abc import Callable

import keras
import numpy as np
import pytest


@pytest.fixture
def gradients_of() -> Callable[..., list[np.ndarray]]:
    """Function `(loss, *arrays)`: gradients of the summed loss; zeros where there is none."""
    if keras.backend.backend() == "jax":
        return _jax_gradients
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_gradients
    pytest.skip(f"no gradients here with the backend {keras.backend.backend()}")


@pytest.fixture
def compiled() -> Callable[..., np.ndarray]:
    """Function `(loss, *arrays)`: runs the loss as a graph; TensorFlow knows neither B nor T."""
    if keras.backend.backend() == "jax":
        import jax

        return lambda loss, *arrays: np.asarray(jax.jit(loss)(*arrays))
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_graph
    pytest.skip(f"no graphs here with the backend {keras.backend.backend()}")


def _jax_gradients(loss, *arrays):
    import jax

    gradients = jax.grad(lambda *values: loss(*values).sum(), argnums=tuple(range(len(arrays))))
    return [np.asarray(gradient) for gradient in gradients(*arrays)]


def _tensorflow_gradients(loss, *arrays):
    import tensorflow as tf

    inputs = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(loss(*inputs))
    zero = tf.UnconnectedGradients.ZERO
    return [np.asarray(g) for g in tape.gradient(total, inputs, unconnected_gradients=zero)]


def _tensorflow_graph(loss, *arrays):
    import tensorflow as tf

    signature = [tf.TensorSpec([None, None, *a.shape[2:]], a.dtype) for a in arrays]
    # Without AutoGraph, as in `fit`: it would repair what JAX refuses.
    graph = tf.function(loss, input_signature=signature, autograph=False)
    return np.asarray(graph(*map(tf.constant, arrays)))
