# SPDX-License-Identifier: Apache-2.0
"""What each layer costs: agreement with the float network when only this layer is changed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
import numpy as np
import tf_keras

from lmkd_tf.compress.quantization import quantize, ranges_of
from lmkd_tf.compress.twin import CoreBuilder

FEATURES = "features"
# Range -> (lowest, highest) value of a layer's output.
Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class LayerLoss:
    """Agreement with the float network when one layer alone is quantized.

    Args:
        layer: Layer whose output is one tensor of the int8 graph.
        snr_db: Mask over its difference, in dB, with int8 weights and activations.
        snr_int16_db: The same with 16-bit activations.
        extra_bytes: What 16 bits instead of 8 cost in memory, per frame.
        weights: Layers whose kernels feed this tensor.
    """

    layer: str
    snr_db: float
    snr_int16_db: float
    extra_bytes: int
    weights: tuple[str, ...]


def quantized_tensors(build: CoreBuilder) -> list[str]:
    """Returns the layers whose outputs are tensors of the int8 graph, input first."""
    names = ranges_of(quantize(build(namespace=tf_keras)))
    return [FEATURES, *(name for name in names if name != FEATURES)]


def calibrated_ranges(build: CoreBuilder, core: Any, batches: Iterable[Any]) -> Ranges:
    """Takes the extremes of every tensor of the int8 graph over batches of features.

    Args:
        build: Builder of the core.
        core: Float core, Keras 3.
        batches: Features `(B, T, 1, E)`.

    Returns:
        Range of each tensor.

    Raises:
        ValueError: If there is no batch, or a tensor has no range because it is always zero.
    """
    names = quantized_tensors(build)[1:]
    probe = keras.Model(core.inputs[0], [core.get_layer(name).output for name in names])
    found: dict[str, list[np.ndarray]] = {name: [] for name in (FEATURES, *names)}
    for features in batches:
        outputs = [features, *_as_list(probe(features, training=False))]
        for name, value in zip(found, outputs, strict=True):
            values = np.asarray(keras.ops.convert_to_numpy(value))
            found[name].append(np.array([values.min(), values.max()]))
    if not found[FEATURES]:
        raise ValueError(
            "Calibration needs at least one batch of features. "
            "Received none. Pass batches of the validation split."
        )
    extremes = {name: np.array(pairs) for name, pairs in found.items()}
    ranges = {
        name: (min(0.0, float(v[:, 0].min())), max(0.0, float(v[:, 1].max())))
        for name, v in extremes.items()
    }
    _check_alive(ranges)
    return ranges


def layer_losses(core: Any, ranges: Ranges, features: Any) -> list[LayerLoss]:
    """Quantizes one layer after the other, each alone, and compares the masks.

    Args:
        core: Float core, Keras 3.
        ranges: Range of each tensor of the int8 graph.
        features: Features `(B, T, 1, E)`.

    Returns:
        One entry per tensor, the worst first.
    """
    wanted = _masks(core, features)
    losses = []
    for name in ranges:
        kernels = _kernels_behind(core, name, set(ranges))
        snrs = []
        for num_bits in (8, 16):
            changed = _with_one_layer_quantized(core, name, ranges[name], num_bits)
            source = _round(features, ranges[name], num_bits) if name == FEATURES else features
            restore = _round_kernels(core, kernels)
            try:
                snrs.append(_snr_db(wanted, _masks(changed, source)))
            finally:
                restore()
        shape = core.input_shape if name == FEATURES else core.get_layer(name).output.shape
        count = prod(int(n) for n in shape[2:])
        losses.append(LayerLoss(name, snrs[0], snrs[1], count, tuple(kernels)))
    return sorted(losses, key=lambda loss: loss.snr_db)


def changed_layers(before: Any, after: Any, features: Any) -> list[tuple[str, float]]:
    """Puts the weights of one layer after the other into another core and compares the masks.

    Args:
        before: Core before a step of compression, Keras 3.
        after: Core of the same builder after it.
        features: Features `(B, T, 1, E)`.

    Returns:
        Layer and agreement in dB with `before`, the worst first.
    """
    wanted, losses = _masks(before, features), []
    for layer in before.layers:
        old = layer.get_weights()
        new = after.get_layer(layer.name).get_weights()
        if not old or all(np.array_equal(a, b) for a, b in zip(old, new, strict=True)):
            continue
        layer.set_weights(new)
        losses.append((layer.name, _snr_db(wanted, _masks(before, features))))
        layer.set_weights(old)
    return sorted(losses, key=lambda entry: entry[1])


def dequantized_core(build: CoreBuilder, quantized: Any) -> Any:
    """Returns the float core under a quantization-aware one, with its trained weights.

    Args:
        build: Builder of the core.
        quantized: Core returned by `quantize`, trained.

    Returns:
        Keras 3 core.
    """
    source = {_place(variable.name): variable.numpy() for variable in quantized.variables}
    twin = build(namespace=tf_keras)
    for variable in twin.variables:
        variable.assign(source[_place(variable.name)])
    core = build()
    core.set_weights(twin.get_weights())
    return core


def _place(name: str) -> tuple[str, ...]:
    """Layer and variable of a name, without what tfmot puts before it."""
    parts = name.split(":")[0].split("/")[-2:]
    return tuple(part.removeprefix("quant_") for part in parts)


def _check_alive(ranges: Ranges) -> None:
    dead = [name for name, (low, high) in ranges.items() if low == high]
    if dead:
        raise ValueError(
            "Every tensor must change over the calibration frames. "
            f"Received tensors that are always zero: {dead[:6]}. "
            "Calibrate on noisy speech, or remove the dead layers by structured pruning."
        )


def _masks(model: Any, features: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(features, training=False)))


def _with_one_layer_quantized(
    core: Any, name: str, limits: tuple[float, float], num_bits: int
) -> Any:
    """Returns a graph of the same layers that rounds the output of one of them."""

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = layer(*args, **kwargs)
        return _rounding_layer(limits, num_bits)(result) if layer.name == name else result

    return keras.models.clone_model(core, clone_function=lambda layer: layer, call_function=call)


def _rounding_layer(limits: tuple[float, float], num_bits: int) -> Any:
    return keras.layers.Lambda(lambda x: _round(x, limits, num_bits))


def _round(values: Any, limits: tuple[float, float], num_bits: int) -> Any:
    """Rounds to the integers that the converter uses: 16 bits are symmetric."""
    low, high = limits
    if num_bits == 16:
        low, high = -max(-low, high), max(-low, high)
    step = max(high - low, 1e-12) / (2**num_bits - 1)
    return keras.ops.round(keras.ops.clip(values, low, high) / step) * step


def _kernels_behind(core: Any, name: str, ends: set[str]) -> list[str]:
    """Layers with a kernel between a tensor of the int8 graph and the tensors before it."""
    if name == FEATURES:
        return []
    found, waiting, seen = [], [core.get_layer(name)], set()
    while waiting:
        layer = waiting.pop()
        seen.add(layer.name)
        found += [layer.name] if any(len(w.shape) > 1 for w in layer.weights) else []
        sources = _as_list(layer.input) if type(layer).__name__ != "InputLayer" else []
        for tensor in sources:
            before = tensor._keras_history.operation
            if before.name not in ends | seen:
                waiting.append(before)
    return found


def _round_kernels(core: Any, names: Sequence[str]) -> Callable[[], None]:
    """Rounds kernels to int8 per output channel; returns what puts them back."""
    saved = {name: core.get_layer(name).get_weights() for name in names}
    for name, weights in saved.items():
        rounded = [_round_kernel(w, name, core) if w.ndim > 1 else w for w in weights]
        core.get_layer(name).set_weights(rounded)

    def restore() -> None:
        for name, weights in saved.items():
            core.get_layer(name).set_weights(weights)

    return restore


def _round_kernel(kernel: np.ndarray, name: str, core: Any) -> np.ndarray:
    is_depthwise = type(core.get_layer(name)).__name__ == "DepthwiseConv2D"
    channel = kernel.ndim - 2 if is_depthwise else kernel.ndim - 1
    others = tuple(axis for axis in range(kernel.ndim) if axis != channel)
    step = np.maximum(np.abs(kernel).max(axis=others, keepdims=True), 1e-12) / 127.0
    return np.round(kernel / step) * step


def _snr_db(wanted: np.ndarray, found: np.ndarray) -> float:
    noise = float(np.sum((wanted.astype(np.float64) - found) ** 2))
    return float("inf") if not noise else float(10 * np.log10(np.sum(wanted**2.0) / noise))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
