# SPDX-License-Identifier: Apache-2.0
"""Self-attention along one axis of a spectrogram, with relative positions."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="lmkd_tf")
class AxialAttention(keras.layers.Layer):
    """Multi-head self-attention along time or frequency (Shaw et al. 2018, query side only).

    The logit of query i and key j is `q_i . (k_j + p[clip(i - j)]) / sqrt(d)`; one table p serves
    all heads. Memory grows with the square of the axis.

    Args:
        axis: 1 for time, 2 for frequency.
        num_heads: Number of heads; must divide the channels.
        max_distance: Distance from which on positions are not told apart.

    Input shape:
        `(B, T, F, C)`.

    Output shape:
        The same.

    Raises:
        ValueError: If the heads do not divide the channels.
    """

    def __init__(self, axis: int, num_heads: int, max_distance: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis, self.num_heads, self.max_distance = axis, num_heads, max_distance

    def build(self, input_shape):
        """Makes the projections and the table of positions."""
        channels = input_shape[-1]
        if channels % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the channels. "
                f"Received {self.num_heads} heads for {channels} channels. "
                f"Use for example {self.num_heads * max(1, channels // self.num_heads)} channels."
            )
        table = (2 * self.max_distance + 1, channels // self.num_heads)
        self.query = self.add_weight(shape=(channels, channels), name="query")
        self.key_value = self.add_weight(shape=(channels, 2 * channels), name="key_value")
        self.positions = self.add_weight(shape=table, initializer="normal", name="positions")
        self.kernel = self.add_weight(shape=(channels, channels), name="kernel")
        self.bias = self.add_weight(shape=(channels,), initializer="zeros", name="bias")

    def call(self, inputs):
        """Attends along the axis."""
        x = ops.transpose(inputs, (0, 2, 1, 3)) if self.axis == 1 else inputs  # (B, O, N, C)
        width = x.shape[-1]
        query = self._heads(ops.matmul(x, self.query) * (width // self.num_heads) ** -0.5)
        key_value = ops.matmul(x, self.key_value)
        key, value = (self._heads(part) for part in ops.split(key_value, 2, axis=-1))
        logits = ops.matmul(query, ops.swapaxes(key, -1, -2)) + self._position_logits(query)
        mixed = ops.matmul(ops.softmax(logits, axis=-1), value)  # (B, O, H, N, C / H)
        joined = ops.reshape(ops.transpose(mixed, (0, 1, 3, 2, 4)), ops.shape(x))
        y = ops.matmul(joined, self.kernel) + self.bias
        return ops.transpose(y, (0, 2, 1, 3)) if self.axis == 1 else y

    def _heads(self, x):
        """Splits `(B, O, N, C)` into `(B, O, H, N, C / H)`."""
        batch, outer, length, width = ops.shape(x)
        heads = ops.reshape(x, (batch, outer, length, self.num_heads, width // self.num_heads))
        return ops.transpose(heads, (0, 1, 3, 2, 4))

    def _position_logits(self, query):
        index = ops.arange(ops.shape(query)[3])
        distance = ops.clip(index[:, None] - index, -self.max_distance, self.max_distance)
        table = ops.take(self.positions, distance + self.max_distance, axis=0)  # (N, N, C / H)
        return ops.einsum("bohid,ijd->bohij", query, table)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Returns the constructor arguments as plain values."""
        own = {name: getattr(self, name) for name in ("axis", "num_heads", "max_distance")}
        return {**super().get_config(), **own}
