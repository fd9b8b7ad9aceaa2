# SPDX-License-Identifier: Apache-2.0
"""Causal dilated temporal convolution network on frequency bands.

Every block is a depthwise convolution over three frames followed by a pointwise
one, batch-normalized, rectified and added to its input. These are the layers
that survive quantization-aware training, the int8 converter and TFLM bit for bit;
teacher and student differ in width, depth and number of bands only.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras

from lmkd_tf.models.layers import state_concatenate

KERNEL_FRAMES = 3


def build_tcn(
    *,
    num_bands: int,
    channels: int,
    dilations: Sequence[int],
    namespace: ModuleType = keras,
    is_step: bool = False,
) -> Any:
    """Builds the whole-utterance graph or the step graph of one hop.

    Both graphs have the same layer names and weights. The step graph takes the
    past frames of every depthwise convolution as an input and returns the new
    ones, so that its caller moves state from output to input unchanged.

    Args:
        num_bands: Number of bands E.
        channels: Width C of the blocks.
        dilations: Frames between the taps of each block's convolution; its
            length is the number of blocks.
        namespace: `keras` or `tf_keras`.
        is_step: Whether to build the step graph (one frame, batch of one).

    Returns:
        Functional model from features `(B, T, 1, E)` to a mask `(B, T, 1, E)`
        in [0, 1]. The step graph has T = 1, further inputs `state_i` and further
        outputs `next_state_i`, both of shape `(1, 2 * dilation, 1, C)`.

    Raises:
        ValueError: If there is no dilation, or one is not positive.
    """
    if min(dilations, default=0) < 1:
        raise ValueError(
            "Blocks of `tcn` remember frames at a distance of at least one. "
            f"Received dilations={tuple(dilations)}. Use for example (1, 2, 4, 8), "
            "or another architecture for a recurrence."
        )
    layers = namespace.layers
    frames, batch_size = (1, 1) if is_step else (None, None)
    features = layers.Input((frames, 1, num_bands), batch_size=batch_size, name="features")
    states, next_states = [], []
    x = layers.Conv2D(channels, 1, use_bias=False, name="encoder")(features)
    x = layers.BatchNormalization(name="encoder_norm")(x)
    x = layers.ReLU(name="block_0")(x)
    for index, dilation in enumerate(dilations):
        past = (KERNEL_FRAMES - 1) * dilation
        if is_step:
            states.append(layers.Input((past, 1, channels), batch_size=1, name=f"state_{index}"))
            joined = state_concatenate(namespace)(name=f"context_{index}")([states[-1], x])
            crop = layers.Cropping2D(((1, 0), (0, 0)), name=f"next_state_{index}")
            next_states.append(crop(joined))
        else:
            joined = layers.ZeroPadding2D(((past, 0), (0, 0)), name=f"context_{index}")(x)
        x = _block(layers, x, joined, dilation, index)
    x = layers.Conv2D(num_bands, 1, name="mask_logits")(x)
    mask = layers.Activation("sigmoid", name="mask")(x)
    if is_step:
        return namespace.Model([features, *states], [mask, *next_states])
    return namespace.Model(features, mask)


def _block(layers: Any, x: Any, joined: Any, dilation: int, index: int) -> Any:
    """Adds one residual block; `joined` is x with its past frames in front."""
    y = layers.DepthwiseConv2D(
        (KERNEL_FRAMES, 1), dilation_rate=(dilation, 1), use_bias=False, name=f"depthwise_{index}"
    )(joined)
    y = layers.BatchNormalization(name=f"depthwise_norm_{index}")(y)
    y = layers.ReLU(name=f"depthwise_relu_{index}")(y)
    y = layers.Conv2D(x.shape[-1], 1, use_bias=False, name=f"pointwise_{index}")(y)
    y = layers.BatchNormalization(name=f"pointwise_norm_{index}")(y)
    y = layers.Add(name=f"add_{index}")([x, y])
    return layers.ReLU(name=f"block_{index + 1}")(y)
