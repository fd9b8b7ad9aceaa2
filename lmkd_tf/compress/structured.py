# SPDX-License-Identifier: Apache-2.0
"""Structured pruning: ranks channels, removes the least, and builds the smaller dense network.

Unlike zeros among weights, channels that are gone are neither stored nor multiplied on any
runtime. Which channels belong together is read from the graph: a residual sum ties the channels
of its terms, a depthwise layer those of its input and output.
"""

from collections.abc import Callable
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
_TYING = {"Add", "Multiply", "Subtract"}


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together.

    Args:
        producers: Layers whose outputs are these channels.
        members: Every layer that has them at its output.
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
        elif kind in _TYING or kind in _KEEPING:
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
    return ChannelGroup(
        producers=tuple(name for name in readers if name in members),
        members=members,
        consumers=tuple(name for name, source in readers.items() if source in members),
        width=int(core.get_layer(members[0]).output.shape[-1]),
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
        norms = np.sqrt(np.sum(kernel**2, axis=(0, 1, 3)))
        array = np.asarray(keras.ops.convert_to_numpy(value))
        share = norms * np.sqrt(np.mean(array**2, axis=(0, 1, 2)))
        scores += share / max(share.sum(), 1e-12)
    return scores


def shrink(build: CoreBuilder, core: Any, *, channels: int, features: Any) -> Any:
    """Builds a narrower core that keeps the most important channels with their weights.

    Args:
        build: Builder of the core; takes `channels`.
        core: Trained float core, Keras 3, made by the same builder.
        channels: Channels to keep in every group.
        features: Features of real frames, `(B, T, 1, E)`, to rank by.

    Returns:
        Keras 3 core with `channels` channels, to be trained further.

    Raises:
        ValueError: If there is no channel to remove, or the builder makes another graph.
    """
    kept: dict[str, np.ndarray] = {}
    for group in channel_groups(core):
        if not 0 < channels <= group.width:
            raise ValueError(
                f"`channels` must lie in [1, {group.width}], the width of {group.producers[0]}. "
                f"Received {channels}. Use for example {max(1, group.width // 2)}."
            )
        scores = rank_channels(core, group, features)
        best = np.sort(np.argsort(-scores, kind="stable")[:channels])
        kept |= dict.fromkeys(group.members, best)
    smaller = build(channels=channels)
    for layer in smaller.layers:
        weights = _sliced(core.get_layer(layer.name), kept)
        wanted = [tuple(w.shape) for w in layer.weights]
        if [w.shape for w in weights] != wanted:
            raise ValueError(
                "The narrower network must differ in its channels alone. "
                f"Received {layer.name!r} with {wanted}, the weights have "
                f"{[w.shape for w in weights]}. Use the builder of the same architecture."
            )
        layer.set_weights(weights)
    return smaller


def _sliced(layer: Any, kept: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Weights of a layer for the channels that are kept at its input and output."""
    weights, kind = layer.get_weights(), type(layer).__name__
    outputs = kept.get(layer.name)
    if kind == "DepthwiseConv2D":  # (height, width, channels, 1), bias (channels,)
        take = _take(outputs, 2)
        return [take(w) if w.ndim == 4 else _take(outputs, 0)(w) for w in weights]
    if kind == "Conv2D":
        source = kept.get(_layer_of(_inputs(layer)[0]))
        kernel = _take(outputs, 3)(_take(source, 2)(weights[0]))
        return [kernel, *(_take(outputs, 0)(w) for w in weights[1:])]
    return [_take(outputs, 0)(w) for w in weights]


def _take(indices: np.ndarray | None, axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array if indices is None else np.take(array, indices, axis=axis)


def _inputs(layer: Any) -> list[Any]:
    if type(layer).__name__ == "InputLayer":
        return []
    return list(layer.input) if isinstance(layer.input, (list, tuple)) else [layer.input]


def _layer_of(tensor: Any) -> str:
    return tensor._keras_history.operation.name
