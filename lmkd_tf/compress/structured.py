# SPDX-License-Identifier: Apache-2.0
"""Structured pruning: ranks channels, removes the least, and builds the smaller dense network.

Unlike zeros among weights, channels that are gone are neither stored nor multiplied on any
runtime. Which channels belong together is read from the graph: a residual sum ties the channels
of its terms, a depthwise layer those of its input and output, and a layer that moves positions
into channels those that it repeats. Bands are not removed one by one, because the bands of a
network cover the whole spectrum: fewer of them are a coarser division of it, and so are fewer
positions. What is spread over bands or positions is interpolated to the coarser ones.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lmkd_tf.compress.twin import CoreBuilder

# Layers that keep the channels of their input.
_KEEPING = {
    "BatchNormalization", "ReLU", "Activation", "ZeroPadding2D", "Cropping2D", "Dropout",
    "DepthwiseConv2D", "AveragePooling2D", "MaxPooling2D", "StateConcatenate",
}  # fmt: skip
# A recurrence has one state per channel, so the channels of its gates are those of its output.
_TYING = {"Add", "Multiply", "Subtract", "PlainGru"}


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together.

    Args:
        producers: Layers whose outputs are these channels.
        members: Every layer that has them at its output; some have them several times, once for
            each position that moved into the channels.
        consumers: Layers with a kernel that reads them.
        width: Number of channels.
    """

    producers: tuple[str, ...]
    members: tuple[str, ...]
    consumers: tuple[str, ...]
    width: int


def channel_groups(core: Any) -> list[ChannelGroup]:
    """Finds the groups of channels that may be removed: neither bands in nor the mask.

    Args:
        core: Float core, Keras 3, of convolutions and layers that keep channels.

    Returns:
        Groups from input to output.

    Raises:
        ValueError: If a layer's way with channels is not known.
    """
    ties = _Ties()
    readers = {}  # convolution -> layer that it reads
    for layer in core.layers:
        kind = type(layer).__name__
        ties.add(layer.name)
        sources = [_layer_of(tensor) for tensor in _inputs(layer)]
        if kind == "Conv2D":
            readers[layer.name] = sources[0]
        elif kind in _TYING or kind in _KEEPING or _is_regrouping(layer):
            for source in sources:
                ties.tie(source, layer.name)
        elif kind != "InputLayer":
            raise ValueError(
                "Structured pruning must know what every layer does to channels. "
                f"Received {layer.name!r}, a {kind}. Prune this student without blocks instead."
            )
    fixed = {ties.root(_layer_of(t)) for t in (*core.inputs, *core.outputs)}
    roots = dict.fromkeys(ties.root(name) for name in readers)
    return [_group(core, ties, readers, root) for root in roots if root not in fixed]


def _is_regrouping(layer: Any) -> bool:
    """Tells whether a layer moves whole sets of channels between positions and channels."""
    if type(layer).__name__ != "Reshape":
        return False
    (_, _, *before), (_, _, *after) = layer.input.shape, layer.output.shape
    if len(before) != 2 or len(after) != 2 or np.prod(before) != np.prod(after):
        return False
    return max(before[1], after[1]) % min(before[1], after[1]) == 0


class _Ties:
    """Sets of layers with the same channels (union-find)."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def add(self, name: str) -> None:
        self.parent[name] = name

    def root(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def tie(self, first: str, second: str) -> None:
        self.parent[self.root(first)] = self.root(second)


def _group(core: Any, ties: _Ties, readers: dict[str, str], root: str) -> ChannelGroup:
    members = tuple(name for name in ties.parent if ties.root(name) == root)
    widths = {name: _width(core, name) for name in members}
    odd = [name for name, width in widths.items() if width % min(widths.values())]
    if odd:
        raise ValueError(
            "Layers that share channels must have them a whole number of times. "
            f"Received {odd[0]!r} with {widths[odd[0]]} of {min(widths.values())} channels. "
            "Prune this student without blocks instead."
        )
    return ChannelGroup(
        producers=tuple(name for name in readers if name in members),
        members=members,
        consumers=tuple(name for name, source in readers.items() if source in members),
        width=min(widths.values()),
    )


def rank_channels(core: Any, group: ChannelGroup, features: Any) -> np.ndarray:
    """Scores how much each channel of a group matters.

    A channel counts by what it brings to each layer that reads it: the norm of its weights there
    times its root-mean-square value on real frames, as a share of the layer's sum.

    Args:
        core: Float core, Keras 3.
        group: One of `channel_groups`.
        features: Features of real frames, `(B, T, 1, E)`.

    Returns:
        Scores, shape `(width,)`.
    """
    scores = np.zeros(group.width)
    sources = [_layer_of(_inputs(core.get_layer(name))[0]) for name in group.consumers]
    probe = keras.Model(core.inputs[0], [core.get_layer(name).output for name in sources])
    values = probe(features, training=False)
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    for name, value in zip(group.consumers, values, strict=True):
        kernel = core.get_layer(name).get_weights()[0]  # (height, width, inputs, outputs)
        energies = np.sum(kernel**2, axis=(0, 1, 3))
        array = np.asarray(keras.ops.convert_to_numpy(value))
        brought = energies * np.mean(array**2, axis=(0, 1, 2))
        share = np.sqrt(brought.reshape(-1, group.width).sum(axis=0))  # a row per position
        scores += share / max(share.sum(), 1e-12)
    return scores


def shrink(build: CoreBuilder, core: Any, *, features: Any, **size: int) -> Any:
    """Builds a smaller core that keeps the most important channels with their weights.

    Args:
        build: Builder of the core; takes the sizes.
        core: Trained float core, Keras 3, made by the same builder.
        features: Features of real frames, `(B, T, 1, E)`, to rank by.
        **size: Size arguments to change, such as `channels=64` or, for a network on a grid,
            `bottleneck_channels=32`. Every group of channels gets the width that the builder
            gives it. Fewer `num_bands` are coarser ones.

    Returns:
        Keras 3 core of that size, to be trained further.

    Raises:
        ValueError: If nothing becomes smaller or something larger, or the builder makes another
            graph.
    """
    low = {name: value for name, value in size.items() if value < 1}
    if low or not size:
        raise ValueError(
            "Structured pruning must keep at least one of everything. "
            f"Received {size}. Give sizes such as channels=8."
        )
    smaller = build(**size)
    axes = _axes(core, smaller, features, size)
    for layer in smaller.layers:
        layer.set_weights(_carried(core.get_layer(layer.name), axes))
    return smaller


# What becomes of an axis of channels, from `(..., old)` to `(..., new)`: as an output of a layer
# and as what the next one reads.
@dataclass(frozen=True)
class _Axis:
    kept: np.ndarray  # of the channels of one position
    positions: np.ndarray  # (new positions, old positions), interpolates values to fewer

    def output(self, array: np.ndarray) -> np.ndarray:
        """Shrinks the last axis of what makes these channels."""
        means = self.positions / self.positions.sum(axis=1, keepdims=True)
        return self._shrunk(array, means)

    def input(self, array: np.ndarray) -> np.ndarray:
        """Shrinks the last axis of what reads these channels."""
        return self._shrunk(array, self.positions)

    def _shrunk(self, array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        leading = array.shape[:-1]
        if len(matrix) == matrix.shape[1]:  # the same positions: nothing to compute
            parts = array.reshape(*leading, len(matrix), -1)
        else:
            parts = np.einsum(
                "np,...pc->...nc", matrix, array.reshape(*leading, matrix.shape[1], -1)
            )
        return parts[..., self.kept].reshape(*leading, -1)


def _axes(core: Any, smaller: Any, features: Any, size: dict[str, int]) -> dict[str, _Axis]:
    """Returns what becomes of the channels at the output of each layer."""
    old, new = ({layer.name: _width(c, layer.name) for layer in c.layers} for c in (core, smaller))
    before, after = channel_groups(core), channel_groups(smaller)
    if list(old) != list(new) or [g.members for g in before] != [g.members for g in after]:
        raise ValueError(
            "The smaller network must have the same layers. "
            f"Received {size}, with which it has {sorted({*old} ^ {*new})[:4] or 'another order'}. "
            "Use the builder of the same architecture and leave the dilations alone."
        )
    _check_smaller(old, new, size)
    # Bands in and the mask are all positions, of one channel each.
    axes = {name: _Axis(np.zeros(1, int), _coarser(old[name], new[name])) for name in old}
    for first, second in zip(before, after, strict=True):
        scores = rank_channels(core, first, features)
        kept = np.sort(np.argsort(-scores, kind="stable")[: second.width])
        for name in first.members:
            counts = old[name] // first.width, new[name] // second.width
            axes[name] = _Axis(kept, _coarser(*counts))
    return axes


def _check_smaller(old: dict[str, int], new: dict[str, int], size: dict[str, int]) -> None:
    larger = [name for name in old if new[name] > old[name]]
    if larger:
        raise ValueError(
            "Structured pruning makes nothing larger. "
            f"Received {size}, with which {larger[0]} has {new[larger[0]]} channels instead of "
            f"{old[larger[0]]}. Use smaller sizes; `bands_per_position` changes only together with "
            "a smaller `num_bands`."
        )
    if old == new:
        raise ValueError(
            "Structured pruning must have something to remove. "
            f"Received {size}, which is the size of the network. Use smaller sizes."
        )


def _coarser(num_old: int, num_new: int) -> np.ndarray:
    """Matrix `(new, old)` whose transpose interpolates linearly from new centers to old ones."""
    places = (np.arange(num_old) + 0.5) * num_new / num_old - 0.5
    return np.array([np.interp(places, np.arange(num_new), row) for row in np.eye(num_new)])


def _carried(layer: Any, axes: dict[str, _Axis]) -> list[np.ndarray]:
    """Weights of a layer for what is kept at its input and output."""
    weights, kind = layer.get_weights(), type(layer).__name__
    outputs = axes[layer.name].output
    if kind == "DepthwiseConv2D":  # (height, width, channels, 1), bias (channels,)
        return [
            outputs(w.swapaxes(2, -1)).swapaxes(2, -1) if w.ndim == 4 else outputs(w)
            for w in weights
        ]
    if kind == "PlainGru":  # (1, 1, channels, channels)
        return [outputs(outputs(w.swapaxes(2, 3)).swapaxes(2, 3)) for w in weights]
    if kind == "Conv2D":
        source = axes[_layer_of(_inputs(layer)[0])]
        kernel = outputs(source.input(weights[0].swapaxes(2, 3)).swapaxes(2, 3))
        return [kernel, *(outputs(w) for w in weights[1:])]
    return [outputs(w) for w in weights]


def _width(core: Any, name: str) -> int:
    return int(core.get_layer(name).output.shape[-1])


def _inputs(layer: Any) -> list[Any]:
    if type(layer).__name__ == "InputLayer":
        return []
    return list(layer.input) if isinstance(layer.input, (list, tuple)) else [layer.input]


def _layer_of(tensor: Any) -> str:
    return tensor._keras_history.operation.name
