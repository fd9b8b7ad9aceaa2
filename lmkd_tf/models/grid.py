# SPDX-License-Identifier: Apache-2.0
"""Causal convolution network on a grid of frames and frequency positions.

Neighboring bands are gathered into positions, and every convolution on the grid is shared
by all positions, so a few thousand weights serve the whole spectrum. A bottleneck of one
position sees all of it at once. One kind of block serves both: it looks to its neighbors
in frequency, then to its past in time, and remembers only the narrow latent between the
two, which keeps the state small. A skip from encoder to decoder lets the detail of the
spectrum through. What a block remembers are earlier frames at fixed distances, or what a
recurrence makes of all of them. All layers survive quantization-aware training, the int8
converter and TFLM bit for bit; students and teacher differ in their sizes only.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import keras

from lmkd_tf.models.gru import plain_gru
from lmkd_tf.models.layers import state_concatenate

_KERNEL_FRAMES = 3
_KERNEL_POSITIONS = 3
# Neighbors are 1, 2, 4, 1, ... positions apart, so that a few blocks cover the spectrum.
_POSITION_DILATIONS = (1, 2, 4)


def build_grid(  # noqa: PLR0913 - the sizes of a network
    *,
    num_bands: int,
    bands_per_position: int,
    encoder_channels: int,
    channels: int,
    dilations: Sequence[int],
    squeeze_channels: int,
    bottleneck_channels: int,
    bottleneck_dilations: Sequence[int],
    recurrent_channels: int = 0,
    namespace: ModuleType = keras,
    is_step: bool = False,
) -> Any:
    """Builds the whole-utterance graph or the step graph of one hop.

    Both graphs have the same layer names and weights. The step graph takes the past
    frames of every block as an input and returns the new ones, so that its caller moves
    state from output to input unchanged.

    Args:
        num_bands: Number of bands E.
        bands_per_position: Neighboring bands in one position of the encoder; the blocks
            have half as many positions P.
        encoder_channels: Width of the encoder, whose output skips to the decoder.
        channels: Width C of the blocks on the grid; they remember half of it.
        dilations: Frames between the taps of each block on the grid; 0 for a recurrence
            instead of taps. Half of these blocks stand before the bottleneck, half after it; there
            may be none.
        squeeze_channels: Width of each position on its way into the bottleneck.
        bottleneck_channels: Width of the bottleneck; its blocks remember half of it.
        bottleneck_dilations: The same for each block of the bottleneck; there may be none.
        recurrent_channels: Width R of a recurrence at the end of the bottleneck; 0 for none.
        namespace: `keras` or `tf_keras`.
        is_step: Whether to build the step graph (one frame, batch of one).

    Returns:
        Functional model from features `(B, T, 1, E)` to a mask `(B, T, 1, E)` in [0, 1].
        The step graph has T = 1, further inputs `state_i` and further outputs
        `next_state_i`, both of shape `(1, 2 * dilation, P, C / 2)` on the grid and
        `(1, 2 * dilation, 1, bottleneck_channels / 2)` in the bottleneck, where a recurrence
        has a single frame, and `(1, 1, 1, R)` at its end.

    Raises:
        ValueError: If the bands do not fill an even number of positions, or a block has no
            channels to remember.
    """
    _check_bands(num_bands, bands_per_position)
    graph = Graph(namespace, is_step)
    features = graph.input("features", (None, 1, num_bands))
    num_positions = num_bands // bands_per_position
    decoded = trunk(
        graph,
        graph.reshape(features, (num_positions, bands_per_position), "positions"),
        encoder_channels=encoder_channels,
        channels=channels,
        dilations=dilations,
        squeeze_channels=squeeze_channels,
        bottleneck_channels=bottleneck_channels,
        bottleneck_dilations=bottleneck_dilations,
        recurrent_channels=recurrent_channels,
    )
    return graph.model(mask_head(graph, decoded, num_bands))


def trunk(  # noqa: PLR0913 - the sizes of a network
    graph: "Graph",
    x: Any,
    *,
    encoder_channels: int,
    channels: int,
    dilations: Sequence[int],
    squeeze_channels: int,
    bottleneck_channels: int,
    bottleneck_dilations: Sequence[int],
    recurrent_channels: int = 0,
    upsample: Callable[["Graph", Any, int], Any] | None = None,
) -> Any:
    """Adds everything between features and mask.

    Args:
        graph: Where the layers go.
        x: Features by position, `(B, T, P, ...)`.
        encoder_channels: See `build_grid`, as for all sizes.
        channels: Width of the blocks on the grid.
        dilations: Frames between their taps.
        squeeze_channels: Width of each position on its way into the bottleneck.
        bottleneck_channels: Width of the bottleneck.
        bottleneck_dilations: Frames between the taps of its blocks.
        recurrent_channels: Width of the recurrence at its end.
        upsample: Makes `(B, T, P, encoder_channels)` out of half as many positions; by default
            two positions come from two groups of channels.

    Returns:
        The tensor `decoder`, `(B, T, P, encoder_channels)`.
    """
    _check_widths(channels=channels, bottleneck_channels=bottleneck_channels)
    half, middle = x.shape[2] // 2, (len(dilations) + 1) // 2
    encoded = graph.convolution(x, encoder_channels, "encoder", kernel=(1, _KERNEL_POSITIONS))
    x = graph.convolution(
        encoded, channels, "block_0", kernel=(1, _KERNEL_POSITIONS), strides=(1, 2)
    )
    for index in range(middle):
        x = graph.block(x, f"block_{index + 1}", dilations[index], index)
    y = graph.convolution(x, squeeze_channels, "squeeze")
    y = graph.reshape(y, (1, half * squeeze_channels), "flatten")
    # The last layer of the bottleneck has its name, whatever it is.
    last = len(bottleneck_dilations) + (recurrent_channels > 0)
    names = [f"bottleneck_{index}" for index in range(last)] + ["bottleneck"]
    y = graph.convolution(y, bottleneck_channels, names[0])
    for name, dilation in zip(names[1:], bottleneck_dilations, strict=False):
        y = graph.block(y, name, dilation)
    if recurrent_channels:
        y = graph.recurrence(y, recurrent_channels, names[last])
    y = graph.convolution(y, half * squeeze_channels, "spread")
    y = graph.reshape(y, (half, squeeze_channels), "unflatten")
    y = graph.convolution(y, channels, "stretch", is_rectified=False)
    x = graph.add(x, y, "merge")
    for index in range(middle, len(dilations)):
        x = graph.block(x, f"block_{index + 1}", dilations[index], index)
    return graph.add((upsample or _sub_pixel)(graph, x, encoder_channels), encoded, "decoder")


def mask_head(graph: "Graph", x: Any, num_bands: int) -> Any:
    """Returns the mask `(B, T, 1, E)` in [0, 1] of the tensor `decoder`, `(B, T, P, ...)`."""
    x = graph.head(x, num_bands // x.shape[2], "mask_logits")
    x = graph.reshape(x, (1, num_bands), "bands")
    return graph.activation(x, "sigmoid", "mask")


def _sub_pixel(graph: "Graph", x: Any, channels: int) -> Any:
    """Two positions out of each one: the inverse of the stride, without a kernel."""
    x, half = graph.convolution(x, 2 * channels, "expand", is_rectified=False), x.shape[2]
    return graph.reshape(x, (2 * half, channels), "interleave")


class Graph:
    """Adds layers to a graph; notes its inputs and the states that leave it."""

    def __init__(self, namespace: Any, is_step: bool):
        self._namespace = namespace
        self._layers = namespace.layers
        self._is_step = is_step
        self._inputs: list[Any] = []
        self._next_states: list[Any] = []

    def input(self, name: str, shape: tuple[int | None, ...]) -> Any:
        """Adds an input `(B, frames, ...)`; None is one frame in a step graph."""
        if self._is_step:
            shape = tuple(size or 1 for size in shape)
        batch_size = 1 if self._is_step else None
        self._inputs.append(self._layers.Input(shape, batch_size=batch_size, name=name))
        return self._inputs[-1]

    def reshape(self, x: Any, shape: tuple[int, int], name: str) -> Any:
        """Rearranges positions and channels of every frame."""
        num_frames = 1 if self._is_step else -1
        return self._layers.Reshape((num_frames, *shape), name=name)(x)

    def add(self, x: Any, y: Any, name: str) -> Any:
        """Adds two branches and rectifies the sum; `name` is that of the last layer."""
        total = self._layers.Add(name=f"{name}_add")([x, y])
        return self._layers.ReLU(name=name)(total)

    def convolution(
        self, x: Any, channels: int, name: str, *, is_rectified: bool = True, **options: Any
    ) -> Any:
        """Adds a batch-normalized convolution; `name` is that of the last layer."""
        options = {"kernel": 1, "padding": "same", **options}
        convolve = self._layers.Conv2D(
            channels, options.pop("kernel"), use_bias=False, name=f"{name}_conv", **options
        )
        norm_name = f"{name}_norm" if is_rectified else name
        x = self._layers.BatchNormalization(name=norm_name)(convolve(x))
        return self._layers.ReLU(name=name)(x) if is_rectified else x

    def head(self, x: Any, channels: int, name: str, **options: Any) -> Any:
        """Adds a convolution across positions with a bias, whose output may have any sign."""
        kernel = (1, _KERNEL_POSITIONS)
        return self._layers.Conv2D(channels, kernel, padding="same", name=name, **options)(x)

    def activation(self, x: Any, function: str, name: str) -> Any:
        """Adds an activation."""
        return self._layers.Activation(function, name=name)(x)

    def block(self, x: Any, name: str, dilation: int, grid_index: int | None = None) -> Any:
        """Adds one residual block: across positions (where there are several), then time.

        A dilation of 0 is a recurrence.
        """
        across: dict[str, Any] = {}
        if grid_index is not None:
            apart = _POSITION_DILATIONS[grid_index % len(_POSITION_DILATIONS)]
            across = {"kernel": (1, _KERNEL_POSITIONS), "dilation_rate": (1, apart)}
        y = self.convolution(x, x.shape[-1] // 2, f"{name}_memory", **across)
        along: dict[str, Any] = {}
        if dilation:
            y = self._with_past(y, (_KERNEL_FRAMES - 1) * dilation, f"{name}_past")
            along = {"kernel": (_KERNEL_FRAMES, 1), "dilation_rate": (dilation, 1)}
        else:
            y = self.recurrence(y, y.shape[-1], f"{name}_recurrence")
        y = self.convolution(
            y, x.shape[-1], f"{name}_time", is_rectified=False, padding="valid", **along
        )
        return self.add(x, y, name)

    def recurrence(self, x: Any, channels: int, name: str) -> Any:
        """Adds a recurrence for every position by itself, with weights common to all."""
        gates = [
            self._layers.Conv2D(channels, 1, name=f"{name}_{gate}")(x) for gate in ("z", "r", "n")
        ]
        layer = plain_gru(self._namespace)(name=name)
        if not self._is_step:
            return layer(gates)
        state = self.input(f"state_{len(self._next_states)}", (1, x.shape[2], channels))
        hidden = layer([*gates, state])
        self._remember(state, hidden)
        return hidden

    def model(self, output: Any) -> Any:
        """Returns the model of everything added."""
        if self._is_step:
            return self._namespace.Model(self._inputs, [output, *self._next_states])
        return self._namespace.Model(self._inputs[0], output)

    def _with_past(self, x: Any, past: int, name: str) -> Any:
        """Puts the past frames of x in front of it: zeros, or the state of a step."""
        if not self._is_step:
            return self._layers.ZeroPadding2D(((past, 0), (0, 0)), name=name)(x)
        return self._remember(
            self.input(f"state_{len(self._next_states)}", (past, *x.shape[2:])), x
        )

    def _remember(self, state: Any, x: Any) -> Any:
        """Joins a state and the frame that enters it, and lets the oldest frame go.

        A join ties the scales of what it joins, so the state leaves as it came in.
        """
        index = len(self._next_states)
        joined = state_concatenate(self._namespace)(name=f"context_{index}")([state, x])
        crop = self._layers.Cropping2D(((1, 0), (0, 0)), name=f"next_state_{index}")
        self._next_states.append(crop(joined))
        return joined


def _check_widths(**widths: int) -> None:
    for name, width in widths.items():
        if width < 2:
            raise ValueError(
                f"`{name}` must be at least 2, because blocks remember half of it. "
                f"Received {width}. Use for example 8."
            )


def _check_bands(num_bands: int, bands_per_position: int) -> None:
    if num_bands % (2 * bands_per_position):
        raise ValueError(
            "`num_bands` must fill an even number of positions. "
            f"Received num_bands={num_bands}, bands_per_position={bands_per_position}. "
            f"Use a multiple of {2 * bands_per_position}."
        )
