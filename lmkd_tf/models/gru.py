# SPDX-License-Identifier: Apache-2.0
"""Gated recurrent student written in plain operations, with its state going in and out.

A recurrent layer of Keras becomes a loop, which TFLite Micro computes wrongly. Here a step is
1x1 convolutions, sums, products, sigmoid and tanh. The gates are

    z = sigmoid(x_z + U_z h),  r = sigmoid(x_r + U_r h),  n = tanh(x_n + r * U_n h),
    h' = h + z * (n - h),

so every value but the sums in front of a gate has a range that is known beforehand.
"""

import functools
from types import ModuleType
from typing import Any

import keras

from lmkd_tf.models.layers import state_concatenate

# Values within a step that become integers of their own.
ROUNDED = (
    "recurrent_z", "recurrent_r", "recurrent_n", "sum_z", "sum_r", "gate_z", "gate_r", "gated",
    "sum_n", "candidate", "difference", "change", "state",
)  # fmt: skip
_GATES = ("z", "r", "n")
KERNELS = tuple(f"kernel_{gate}" for gate in _GATES)
_CLASSES: dict[str, type] = {}


def build_gru(
    *, num_bands: int, channels: int, namespace: ModuleType = keras, is_step: bool = False
) -> Any:
    """Builds the whole-utterance graph or the step graph of one hop.

    Both graphs have the same layer names and weights.

    Args:
        num_bands: Number of bands E.
        channels: Width C of the encoder and the state.
        namespace: `keras` or `tf_keras`.
        is_step: Whether to build the step graph (one frame, batch of one).

    Returns:
        Functional model from features `(B, T, 1, E)` to a mask `(B, T, 1, E)` in [0, 1]. The
        step graph has T = 1, a further input `state_0` and output `next_state_0`, both of shape
        `(1, 1, 1, C)`.
    """
    layers = namespace.layers
    frames, batch_size = (1, 1) if is_step else (None, None)
    features = layers.Input((frames, 1, num_bands), batch_size=batch_size, name="features")
    x = layers.Conv2D(channels, 1, use_bias=False, name="encoder")(features)
    x = layers.BatchNormalization(name="encoder_norm")(x)
    x = layers.ReLU(name="block_0")(x)
    gates = [layers.Conv2D(channels, 1, name=f"input_{gate}")(x) for gate in _GATES]
    states = [layers.Input((1, 1, channels), batch_size=1, name="state_0")] if is_step else []
    hidden = plain_gru(namespace)(name="gru")([*gates, *states])
    x = layers.Conv2D(num_bands, 1, name="mask_logits")(hidden)
    mask = layers.Activation("sigmoid", name="mask")(x)
    if not is_step:
        return namespace.Model(features, mask)
    # A join ties the scales of what it joins, so the state leaves as it came in.
    joined = state_concatenate(namespace)(name="context_0")([*states, hidden])
    next_state = layers.Cropping2D(((1, 0), (0, 0)), name="next_state_0")(joined)
    return namespace.Model([features, *states], [mask, next_state])


def plain_gru(namespace: Any) -> type:
    """Returns the layer class of the recurrence.

    Every value of `ROUNDED` passes through an attribute `round_<value>`, the identity unless
    quantization-aware training puts fake quantization there.

    Args:
        namespace: `keras` or `tf_keras`.

    Returns:
        Layer class: inputs `[x_z, x_r, x_n]`, each `(B, T, P, C)`, and for one step the state
        `(B, 1, P, C)`; output `(B, T, P, C)`. Positions P do not see each other.
    """
    if namespace.__name__ in _CLASSES:
        return _CLASSES[namespace.__name__]

    class PlainGru(namespace.layers.Layer):
        """Gated recurrent unit whose inputs are multiplied before it."""

        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            identity = namespace.activations.get("linear")
            for name in ROUNDED:
                setattr(self, f"round_{name}", identity)

        def build(self, input_shape):
            shape = (1, 1, int(input_shape[0][-1]), int(input_shape[0][-1]))
            for name in KERNELS:
                setattr(self, name, self.add_weight(name=name, shape=shape))
            self.built = True

        def call(self, inputs):
            is_one_step = len(inputs) > len(_GATES)
            products = _fused_products if namespace is keras and not is_one_step else _products
            step = functools.partial(_step, namespace, self, products(namespace, self))
            return step(*inputs) if is_one_step else _scan(namespace, step, inputs)

        def compute_output_shape(self, input_shape):
            return input_shape[0]

    register = namespace.saving.register_keras_serializable(package="lmkd_tf")
    _CLASSES[namespace.__name__] = register(PlainGru)
    return _CLASSES[namespace.__name__]


def _step(namespace: Any, layer: Any, products: Any, x_z: Any, x_r: Any, x_n: Any, h: Any) -> Any:
    """Returns the next state `(B, 1, P, C)` from inputs and state of the same shape."""
    sigmoid, tanh = (namespace.activations.get(name) for name in ("sigmoid", "tanh"))
    by_z, by_r, by_n = products(h)
    by_z = layer.round_recurrent_z(by_z)
    by_r = layer.round_recurrent_r(by_r)
    by_n = layer.round_recurrent_n(by_n)
    z = layer.round_gate_z(sigmoid(layer.round_sum_z(x_z + by_z)))
    r = layer.round_gate_r(sigmoid(layer.round_sum_r(x_r + by_r)))
    n = layer.round_candidate(tanh(layer.round_sum_n(x_n + layer.round_gated(r * by_n))))
    return layer.round_state(h + layer.round_change(z * layer.round_difference(n - h)))


def _products(namespace: Any, layer: Any) -> Any:
    """Returns the function from a state to its product with each kernel, as an export has it."""
    kernels = [getattr(layer, name) for name in KERNELS]
    return lambda h: [_convolve(namespace, h, kernel) for kernel in kernels]


def _fused_products(namespace: Any, layer: Any) -> Any:
    """The same as one product, with which both passes of `small` take a quarter less time."""
    kernel = namespace.ops.concatenate([getattr(layer, name)[0, 0] for name in KERNELS], axis=-1)
    return lambda h: namespace.ops.split(namespace.ops.matmul(h, kernel), len(KERNELS), axis=-1)


def _convolve(namespace: Any, values: Any, kernel: Any) -> Any:
    if namespace is keras:
        return keras.ops.conv(values, kernel, padding="valid")
    return namespace.backend.conv2d(values, kernel)


def _scan(namespace: Any, step: Any, gates: Any) -> Any:
    """Runs a step over the frames of `gates`, each `(B, T, P, C)`, from a state of zeros."""
    if namespace is keras:
        frames = [keras.ops.transpose(gate, (1, 0, 2, 3))[:, :, None] for gate in gates]
        start = keras.ops.zeros_like(frames[0][0])

        def advance(state, frame):
            new = step(*frame, state)
            return new, new

        _, states = keras.ops.scan(advance, start, tuple(frames))  # (T, B, 1, P, C)
        return keras.ops.transpose(states[:, :, 0], (1, 0, 2, 3))
    backend = namespace.backend
    frames = backend.concatenate(gates, axis=-1)
    channels = int(gates[0].shape[-1])
    start = backend.zeros_like(gates[0][:, 0])[:, None]

    def advance_twin(frame, states):
        parts = [frame[:, None, :, i * channels : (i + 1) * channels] for i in range(len(_GATES))]
        new = step(*parts, states[0])
        return new[:, 0], [new]

    _, outputs, _ = backend.rnn(advance_twin, frames, [start])
    return outputs


plain_gru(keras)  # registered with Keras now, so that a saved student loads in a new process
