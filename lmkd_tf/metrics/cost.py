# SPDX-License-Identifier: Apache-2.0
"""Parameters and work of a network."""

from math import prod
from typing import Any


def count_parameters(model: Any) -> int:
    """Counts the trainable parameters of a Keras 3 or `tf_keras` model."""
    return sum(prod(variable.shape) for variable in model.trainable_variables)


def macs_per_frame(core: Any) -> int:
    """Counts multiply-accumulate operations of one frame.

    On a layout `(B, T, 1, C)` with kernels of width one, every weight of a
    convolution is used once per frame. Normalization is folded and not counted.

    Args:
        core: Functional model of convolutions over `(B, T, 1, C)`.

    Returns:
        Multiply-accumulate operations per frame (per hop of a stream).

    Raises:
        ValueError: If a layer's work is not known.
    """
    total = 0
    for layer in core.layers:
        kernels = [w for w in layer.weights if len(w.shape) >= 2]
        if kernels and not type(layer).__name__.endswith("Conv2D"):
            raise ValueError(
                "The work of every layer with a kernel must be known. "
                f"Received {layer.name!r}, a {type(layer).__name__}. Add its rule here."
            )
        total += sum(prod(kernel.shape) for kernel in kernels)
    return total
