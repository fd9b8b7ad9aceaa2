# SPDX-License-Identifier: Apache-2.0
"""Layers of our own that exist in Keras 3 and in tf_keras alike."""

from typing import Any

import keras

_CLASSES: dict[str, type] = {}


def state_concatenate(namespace: Any) -> type:
    """Returns the layer class that joins remembered frames and new frames in time.

    It is not called `Concatenate`, because tfmot rewires the quantizers of the
    producers of every layer with that name, and a state must keep its own.

    Args:
        namespace: `keras` or `tf_keras`.

    Returns:
        Layer class: inputs `[state (B, S, 1, C), frames (B, T, 1, C)]`, output
        `(B, S + T, 1, C)`.
    """
    if namespace.__name__ in _CLASSES:
        return _CLASSES[namespace.__name__]

    class StateConcatenate(namespace.layers.Layer):
        """Concatenates state and frames along time."""

        def call(self, inputs):
            if namespace is keras:
                return keras.ops.concatenate(inputs, axis=1)
            return namespace.backend.concatenate(inputs, axis=1)

        def compute_output_shape(self, input_shape):
            state, frames = input_shape
            length = None if None in (state[1], frames[1]) else state[1] + frames[1]
            return (frames[0], length, *frames[2:])

    register = namespace.saving.register_keras_serializable(package="lmkd_tf")
    _CLASSES[namespace.__name__] = register(StateConcatenate)
    return _CLASSES[namespace.__name__]
