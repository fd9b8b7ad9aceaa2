# SPDX-License-Identifier: Apache-2.0
"""Parameters and work of a network, counted from shapes."""

from collections.abc import Sequence
from math import prod
from typing import Any


def count_parameters(model: Any) -> int:
    """Counts the trainable parameters of a Keras 3 or `tf_keras` model."""
    return sum(prod(variable.shape) for variable in model.trainable_variables)


def macs_per_frame(core: Any, num_frames: int | None = None) -> int:
    """Counts multiply-accumulate operations of one frame.

    Those of products with weights and of attention count. Normalization is folded, and
    what is elementwise is left out.

    Args:
        core: Functional model of either Keras, over `(B, T, ...)`, T frames going in and out of
            every layer.
        num_frames: Frames T that attention over time sees at once, for networks that have it.

    Returns:
        Multiply-accumulate operations per frame (per hop of a stream).

    Raises:
        ValueError: If a layer's work is not known, a shape is open, or attention over time lacks
            `num_frames`.
    """
    return sum(_macs_of(layer, num_frames) for layer in core.layers)


def _macs_of(layer: Any, num_frames: int | None) -> int:
    # The biases of a recurrent layer are a table of two rows.
    kernels = [prod(w.shape) for w in layer.weights if len(w.shape) >= 2 and "bias" not in w.name]
    kind = type(layer).__name__
    if not kernels or kind == "PReLU":
        return 0
    if kind in _COUNTS:
        return _COUNTS[kind](layer, kernels)
    if kind == "AxialAttention":
        return _attention(layer, num_frames)
    raise ValueError(
        "The work of every layer with a kernel must be known. "
        f"Received {layer.name!r}, a {kind}. Add its rule here."
    )


def _convolution(layer: Any, kernels: Sequence[int]) -> int:
    """Every output position takes every weight once."""
    _check_rate(layer)
    return sum(kernels) * prod(_positions(layer.output))


def _transposed(layer: Any, kernels: Sequence[int]) -> int:
    """Every input position is multiplied by every weight once."""
    _check_rate(layer)
    return sum(kernels) * prod(_positions(layer.input))


def _dense(layer: Any, kernels: Sequence[int]) -> int:
    return sum(kernels) * prod(_positions(layer.output))


def _recurrent(layer: Any, kernels: Sequence[int]) -> int:
    """Kernel and recurrent kernel once per step, at every position."""
    inputs = layer.input[0] if isinstance(layer.input, list | tuple) else layer.input
    return sum(kernels) * prod(_positions(inputs))


def _attention(layer: Any, num_frames: int | None) -> int:
    """Four projections; logits, positions and mixture over all keys of the axis."""
    _, _, num_bins, channels = layer.output.shape
    num_keys = num_frames if layer.axis == 1 else num_bins
    if num_keys is None:
        raise ValueError(
            "The work of attention over time depends on the number of frames. "
            f"Received num_frames=None for {layer.name!r}. Pass the length of the utterance."
        )
    return num_bins * (4 * channels**2 + 3 * num_keys * channels)


def _positions(tensor: Any) -> tuple[int, ...]:
    """Sizes between frames and channels of `(B, T, ..., C)`."""
    sizes = tuple(tensor.shape[2:-1])
    if None in sizes:
        raise ValueError(
            "The positions of every frame must be known from the shapes. "
            f"Received a tensor of shape {tuple(tensor.shape)}, which tf_keras leaves open. "
            "Count the step graph, or the network in Keras 3."
        )
    return sizes


def _check_rate(layer: Any) -> None:
    frame_stride, *_ = layer.strides
    if frame_stride != 1:
        raise ValueError(
            "Every layer must have as many frames going out as coming in. "
            f"Received {layer.name!r} with strides {tuple(layer.strides)}. Stride frequency only."
        )


_COUNTS = {
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "DepthwiseConv1D": _convolution,
    "DepthwiseConv2D": _convolution,
    "SeparableConv1D": _convolution,
    "SeparableConv2D": _convolution,
    "Conv1DTranspose": _transposed,
    "Conv2DTranspose": _transposed,
    "Dense": _dense,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "SimpleRNN": _recurrent,
    "PlainGru": _recurrent,
}
