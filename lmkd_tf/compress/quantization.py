# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training (QAT) of a `tf_keras` core, and its step graph."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from lmkd_tf.compress.toolkit import load_tfmot
from lmkd_tf.compress.twin import CoreBuilder
from lmkd_tf.models.layers import state_concatenate


def quantize(core: Any) -> Any:
    """Adds fake quantization to every tensor of a core and keeps its zeros.

    Weights are int8 per channel and activations int8 per tensor, with batch
    normalization folded, as the int8 converter will do it. Zeros of a pruned
    core stay zero (tfmot's prune-preserving scheme).

    Args:
        core: `tf_keras` core, stripped of pruning wrappers.

    Returns:
        `tf_keras` core to train on.
    """
    tfmot = load_tfmot()
    api = tfmot.quantization.keras
    no_range = _no_range_config(api)
    joined = state_concatenate(tf_keras)

    def annotate(layer: Any) -> Any:
        if isinstance(layer, tf_keras.layers.InputLayer):
            return layer
        # The two inputs of a state join have one common range already.
        config = no_range() if isinstance(layer, joined) else None
        return api.quantize_annotate_layer(layer, config)

    with api.quantize_scope({"_NoRange": no_range, joined.__name__: joined}):
        annotated = tf_keras.models.clone_model(core, clone_function=annotate)
        annotated.set_weights(core.get_weights())
        scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
        return api.quantize_apply(annotated, scheme)


def calibrate_ranges(quantized: Any, core: Any, batches: Iterable[Any]) -> None:
    """Starts every activation range at what the float core produces.

    tfmot starts at [-6, 6] and moves by a thousandth per step, so without this a
    stage of a few hundred steps ends with ranges several times too wide.

    Args:
        quantized: Core returned by `quantize`; its ranges are changed.
        core: `tf_keras` core with the same weights, without fake quantization.
        batches: Features `(B, T, 1, E)`; the ranges are the mean over batches of
            the extremes within a batch, which is what training converges to.

    Raises:
        ValueError: If there is no batch.
    """
    ranges = dict(_activation_ranges(quantized))
    probe = tf_keras.Model(core.inputs, [core.get_layer(name).output for name in ranges])
    extremes = [
        [(np.min(value), np.max(value)) for value in probe(features, training=False)]
        for features in batches
    ]
    if not extremes:
        raise ValueError(
            "Calibration needs at least one batch of features. "
            "Received none. Pass batches of the validation split."
        )
    for own, (low, high) in zip(ranges.values(), np.mean(extremes, axis=0), strict=True):
        own["min"].assign(min(low, 0.0))
        own["max"].assign(max(high, 0.0))


def _activation_ranges(quantized: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name of each float layer whose output has a range, and that range."""
    for layer in quantized.layers:
        if type(layer).__name__ == "QuantizeLayer":
            yield layer.input.name, _range_of(layer)
            continue
        found = _range_of(layer, ("output_", "post_activation_"))
        if found:
            yield layer.name.removeprefix("quant_"), found


def load_quantized(build: CoreBuilder, weights: str | Path) -> Any:
    """Rebuilds the core that `quantize` returned and loads its trained weights.

    Args:
        build: Builder of the core.
        weights: `.weights.h5` file of the trained core.

    Returns:
        `tf_keras` core with fake quantization.
    """
    quantized = quantize(build(namespace=tf_keras))
    quantized.load_weights(str(weights))
    return quantized


def quantized_step(build: CoreBuilder, quantized: Any) -> Any:
    """Builds the step graph of a quantization-aware core.

    Weights and ranges are copied by name. A state gets the range of the layer
    that fills it, so its scale is the same going in and coming out and firmware
    moves it with `memcpy`.

    Args:
        build: Builder of the core.
        quantized: Trained core returned by `quantize`.

    Returns:
        `tf_keras` step graph with fake quantization.

    Raises:
        ValueError: If a range or weight of the step graph has no source.
    """
    step = quantize(build(namespace=tf_keras, is_step=True))
    source = {variable.name: variable for variable in quantized.variables}
    missing = []
    for variable in step.variables:
        match = source.get(variable.name)
        if match is not None and match.shape == variable.shape:
            variable.assign(match)
        elif (
            not variable.name.startswith("quantize_layer") and "optimizer_step" not in variable.name
        ):
            missing.append(variable.name)
    if missing:
        raise ValueError(
            "Every weight of the step graph needs one of the same name in the trained graph. "
            f"Received none for {missing[:5]}. Build both graphs with the same builder."
        )
    _copy_input_ranges(step, quantized)
    return step


def _copy_input_ranges(step: Any, quantized: Any) -> None:
    features_range = _range_of(next(_input_quantizers(quantized)))
    for layer in _input_quantizers(step):
        name = layer.input.name
        if name.startswith("state_"):
            context = step.get_layer(f"quant_context_{name.removeprefix('state_')}")
            filling = context.input[1]  # the new frames beside the state
            values = _range_of(step.get_layer(filling.name.split("/")[0]))
        else:
            values = features_range
        own = _range_of(layer)
        own["min"].assign(values["min"])
        own["max"].assign(values["max"])


def _input_quantizers(core: Any):
    return (layer for layer in core.layers if type(layer).__name__ == "QuantizeLayer")


def _range_of(layer: Any, prefixes: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """Returns the variables `min` and `max` of a layer's output."""
    found = {}
    for variable in layer.weights:
        name = variable.name.split(":")[0].split("/")[-1]
        tail = name.rsplit("_", 1)[-1]
        if tail in ("min", "max") and name.startswith(prefixes):
            found[tail] = variable
    return found


def _no_range_config(api: Any) -> type:
    class _NoRange(api.QuantizeConfig):
        """Leaves a layer without quantizers of its own."""

        def get_weights_and_quantizers(self, layer):
            return []

        def get_activations_and_quantizers(self, layer):
            return []

        def set_quantize_weights(self, layer, quantize_weights):
            pass

        def set_quantize_activations(self, layer, quantize_activations):
            pass

        def get_output_quantizers(self, layer):
            return []

        def get_config(self):
            return {}

    return _NoRange
