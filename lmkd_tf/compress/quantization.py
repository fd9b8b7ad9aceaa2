# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training (QAT) of a `tf_keras` core, and its step graph."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lmkd_tf.compress.recurrence import (
    LOGIT_LIMIT,
    fake_quantized_gru,
    observed_extremes,
    recurrence_config,
    recurrences_of,
)
from lmkd_tf.compress.toolkit import load_tfmot
from lmkd_tf.compress.twin import CoreBuilder
from lmkd_tf.models.gru import plain_gru
from lmkd_tf.models.layers import state_concatenate


def quantize(core: Any) -> Any:
    """Adds fake quantization to every tensor of a core and keeps its zeros.

    Weights are int8 per channel and activations int8 per tensor, with batch
    normalization folded, as the int8 converter will do it. Zeros of a pruned
    core stay zero (tfmot's prune-preserving scheme). Products, differences and
    the plain recurrence, for which tfmot has no rule, get rules of our own, and so do
    depthwise kernels, to which tfmot gives one range for all channels.

    Args:
        core: `tf_keras` core, stripped of pruning wrappers.

    Returns:
        `tf_keras` core to train on.

    Raises:
        ValueError: If the core is no flat functional graph or holds a layer that cannot be
            quantized, naming it and what to use instead.
    """
    check_quantizable(core)
    tfmot = load_tfmot()
    api = tfmot.quantization.keras
    no_range, output_range = _no_range_config(api), _output_range_config(api)
    recurrence, joined = recurrence_config(), state_concatenate(tf_keras)
    depthwise = _depthwise_config(api)
    recurrent, rounding = plain_gru(tf_keras), fake_quantized_gru()

    def annotate(layer: Any) -> Any:
        if isinstance(layer, tf_keras.layers.InputLayer):
            return layer
        config = None
        # The two inputs of a state join have one common range already, and what only moves
        # values has the range of its input.
        if isinstance(layer, (joined, tf_keras.layers.Permute)):
            config = no_range()
        elif isinstance(layer, (tf_keras.layers.Multiply, tf_keras.layers.Subtract)):
            config = output_range()
        elif isinstance(layer, recurrent):
            layer, config = rounding.from_config(layer.get_config()), recurrence()
        return api.quantize_annotate_layer(layer, config)

    ours = (no_range, output_range, recurrence, depthwise, joined, rounding)
    scope = {kind.__name__: kind for kind in ours}
    with api.quantize_scope(scope):
        annotated = tf_keras.models.clone_model(core, clone_function=annotate)
        _copy_weights(core, annotated)
        return api.quantize_apply(annotated, _scheme(tfmot, depthwise))


def _scheme(tfmot: Any, depthwise: type) -> Any:
    """Returns tfmot's prune-preserving scheme with our rule for depthwise kernels.

    The rule is not an annotation, because tfmot folds no normalization into annotated layers.
    """
    scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    registry = scheme.get_quantize_registry()
    known = registry.get_quantize_config

    def config_of(layer: Any) -> Any:
        is_depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
        return depthwise() if is_depthwise else known(layer)

    registry.get_quantize_config = config_of
    scheme.get_quantize_registry = lambda: registry
    return scheme


def _copy_weights(core: Any, annotated: Any) -> None:
    for layer in annotated.layers:
        own = getattr(layer, "layer", layer)
        weights = core.get_layer(own.name).get_weights()
        # A recurrence has its ranges behind its kernels; they are new.
        own.set_weights([*weights, *own.get_weights()[len(weights) :]])


def check_quantizable(core: Any) -> None:
    """Refuses what would stay float in the int8 graph, or fail in the converter.

    Args:
        core: `tf_keras` core.

    Raises:
        ValueError: If the core is no flat functional graph or holds a layer that cannot be
            quantized, naming it and what to use instead.
    """
    if not getattr(core, "_is_graph_network", False):
        raise ValueError(
            "A student to be quantized must be a functional model. "
            f"Received a {type(core).__name__}. Build it with Model(inputs, outputs) from layers."
        )
    for layer in core.layers:
        reason = _why_not(layer)
        if reason:
            why, _, remedy = reason.partition(". ")
            raise ValueError(
                "Every layer of a student must have a form in integers. "
                f"Received {layer.name!r}, a {type(layer).__name__}: {why}. {remedy}."
            )


def _why_not(layer: Any) -> str | None:
    kind = type(layer).__name__
    if isinstance(layer, tf_keras.Model):
        return "a model within a model. Use its layers in the outer model"
    if kind in _REMEDIES:
        return _REMEDIES[kind]
    if kind == "BatchNormalization":
        source = layer.input._keras_history.layer
        before = type(getattr(source, "layer", source)).__name__  # within a wrapper of tfmot
        if before not in ("Conv2D", "DepthwiseConv2D"):
            return f"behind a {before} it would stay float. Put it behind a convolution"
    elif kind not in _QUANTIZABLE:
        return f"no rule for it is known. Use one of {', '.join(sorted(_QUANTIZABLE))}"
    return _why_not_so(layer, kind)


def _why_not_so(layer: Any, kind: str) -> str | None:
    """Why a layer has no integer form with its arguments, though others of its kind have."""
    config = layer.get_config()
    if config.get("activation", "linear") not in _ACTIVATIONS:
        return f"its function has no integer form. Use one of {', '.join(_ACTIVATIONS)}"
    if kind == "ReLU":
        is_plain = not config["negative_slope"] and not config["threshold"]
        if not is_plain or config["max_value"] not in (None, 6.0):
            return "only 0 and 6 are limits of an operator. Use ReLU() or ReLU(6)"
    if kind in ("Add", "Multiply") and len(layer.input) > 2:
        return f"its operator has two inputs, not {len(layer.input)}. Use one layer after another"
    return None


_ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")
_QUANTIZABLE = {
    "InputLayer", "Conv2D", "DepthwiseConv2D", "Dense", "BatchNormalization",
    "ReLU", "Activation", "Add", "Multiply", "Subtract", "Concatenate", "StateConcatenate",
    "Cropping2D", "ZeroPadding2D", "Reshape", "Permute", "AveragePooling2D", "MaxPooling2D",
    "Dropout", "PlainGru",
}  # fmt: skip
_RECURRENCE = "a loop in the graph. Use lmkd_tf.models.gru, whose state goes in and out"
_REMEDIES = {
    "LayerNormalization": "int8 does not survive it. Use BatchNormalization behind a convolution",
    "PReLU": "it has no 16-bit kernel. Use ReLU",
    "LeakyReLU": "its kernels differ between runtimes. Use ReLU",
    "GRU": _RECURRENCE,
    "LSTM": _RECURRENCE,
    "SimpleRNN": _RECURRENCE,
    "RNN": _RECURRENCE,
    "Bidirectional": "it needs the future. Use causal layers",
    "Lambda": "its code cannot be read. Use a layer in its place",
    "TFOpLambda": "an operator without a layer. Use the layer of that name, such as Multiply",
    "SlicingOpLambda": "an operator without a layer. Use Cropping2D",
    "Conv2DTranspose": "tfmot finds no kernel in it. Use Conv2D and Reshape, as build_grid does",
    "Conv1D": "tfmot does not know it. Use Conv2D on (B, T, 1, C)",
    "SeparableConv1D": "tfmot does not know it. Use DepthwiseConv2D and Conv2D",
}


def calibrate_ranges(quantized: Any, core: Any, batches: Iterable[Any]) -> None:
    """Starts every activation range at what the float core produces, and kernels at their own.

    tfmot starts at [-6, 6] and moves by a thousandth per step, so without this a
    stage of a few hundred steps ends with ranges several times too wide. Kernels get
    theirs at the first training step; an export without training needs them before.

    Args:
        quantized: Core returned by `quantize`; its ranges are changed.
        core: `tf_keras` core with the same weights, without fake quantization.
        batches: Features `(B, T, 1, E)`; the ranges are the mean over batches of
            the extremes within a batch, which is what training converges to.

    Raises:
        ValueError: If there is no batch.
    """
    recurrences = dict(recurrences_of(quantized))
    found = dict(_activation_ranges(quantized))
    ranges = {name: own for name, own in found.items() if name not in recurrences}
    probe = tf_keras.Model(core.inputs, [core.get_layer(name).output for name in ranges])
    extremes: list[Any] = []
    within: dict[str, list[Any]] = {name: [] for name in recurrences}
    for features in batches:
        extremes.append([(np.min(v), np.max(v)) for v in probe(features, training=False)])
        for name, seen in within.items():
            layer = core.get_layer(name)
            gates = tf_keras.Model(core.inputs, layer.input)(features, training=False)
            seen.append(observed_extremes(layer, gates))
    if not extremes:
        raise ValueError(
            "Calibration needs at least one batch of features. "
            "Received none. Pass batches of the validation split."
        )
    for own, (low, high) in zip(ranges.values(), np.mean(extremes, axis=0), strict=True):
        own["min"].assign(min(low, 0.0))
        own["max"].assign(max(high, 0.0))
    limit_logits(quantized)
    _start_kernel_ranges(quantized)
    for name, seen in within.items():
        recurrences[name].set_limits(
            {n: tuple(np.mean([e[n] for e in seen], axis=0)) for n in seen[0]}
        )


def limit_logits(quantized: Any) -> None:
    """Ends the range of what a sigmoid reads where its int8 output does not change any more.

    Logits far below zero give a mask of zero, but a range that holds them makes the steps of all
    others coarse: a mask moves by up to a quarter of a step of its logit.

    Args:
        quantized: Core returned by `quantize`; to be called after training, whose ranges move.
    """
    for layer in quantized.layers:
        function = getattr(getattr(layer, "layer", None), "activation", None)
        if getattr(function, "activation", function) is not tf_keras.activations.sigmoid:
            continue
        own = _range_coming_into(layer)
        if own:
            own["min"].assign(max(float(own["min"]), -LOGIT_LIMIT))
            own["max"].assign(min(float(own["max"]), LOGIT_LIMIT))


def set_activation_bits(quantized: Any, num_bits: int) -> None:
    """Rounds activations to another number of bits, for training alone; kernels keep 8.

    With 16 bits only the kernels are trained for int8: an int8 graph then takes its ranges from
    calibration (see `dequantized_core`), and none follows from `quantized` itself.

    Args:
        quantized: Core returned by `quantize`; to be called before it is compiled.
        num_bits: 2 to 16.
    """
    for layer in quantized.layers:
        for quantizer in _activation_quantizers(layer):
            quantizer.num_bits = num_bits
    for _, recurrence in recurrences_of(quantized):
        recurrence.num_bits = dict.fromkeys(recurrence.num_bits, num_bits)


def _activation_quantizers(layer: Any) -> Iterator[Any]:
    if type(layer).__name__ == "QuantizeLayer":
        yield layer.quantizer
        return
    yield from getattr(layer, "_output_quantizers", ())
    yield from (wrapped.quantizer for wrapped in getattr(layer, "_quantize_activations", ()))


def _start_kernel_ranges(quantized: Any) -> None:
    variables = {
        tuple(part.removeprefix("quant_") for part in v.name.split(":")[0].split("/")[-2:]): v
        for v in quantized.variables
    }
    for (layer, leaf), kernel in variables.items():
        low, high = (variables.get((layer, f"{leaf}_{end}")) for end in ("min", "max"))
        if low is not None and high is not None:
            values = np.abs(kernel.numpy())
            largest = (
                values.reshape(-1, low.shape[0]).max(axis=0) if len(low.shape) else values.max()
            )
            low.assign(-np.broadcast_to(largest, low.shape))
            high.assign(np.broadcast_to(largest, high.shape))


def ranges_of(quantized: Any) -> dict[str, tuple[float, float]]:
    """Returns the range of every activation, by the name of the float layer it belongs to."""
    return {
        name: (float(own["min"]), float(own["max"])) for name, own in _activation_ranges(quantized)
    }


def _activation_ranges(quantized: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the name of each float layer whose output has a range, and that range."""
    for layer in quantized.layers:
        if type(layer).__name__ == "QuantizeLayer":
            yield layer.input.name, _range_of(layer)
            continue
        found = _own_range(layer)
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
        values = _range_of_state(step, name) if name.startswith("state_") else features_range
        own = _range_of(layer)
        own["min"].assign(values["min"])
        own["max"].assign(values["max"])


def _range_of_state(step: Any, name: str) -> dict[str, Any]:
    """Returns the range of the layer whose output fills a state.

    `next_<state>` is cropped from a join of the state and the new frames.
    """
    join = step.get_layer(f"quant_next_{name}").input._keras_history.layer
    return _range_coming_into(join, 1)


def _range_coming_into(layer: Any, index: int | None = None) -> dict[str, Any]:
    """Returns the range of what a layer reads, behind those that only move values.

    It is empty where the values come from an input of the core.
    """
    tensor = layer.input if index is None else layer.input[index]
    source = tensor._keras_history.layer
    found = _own_range(source)
    is_input = type(source).__name__ == "InputLayer"
    return found if found or is_input else _range_coming_into(source)


def _own_range(layer: Any) -> dict[str, Any]:
    inner: Any = getattr(layer, "layer", None)
    if isinstance(inner, fake_quantized_gru()):
        return dict(zip(("min", "max"), inner.limits_of("state"), strict=True))
    return _range_of(layer, ("output_", "post_activation_"))


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


def _output_range_config(api: Any) -> type:
    class _OutputRange(_no_range_config(api)):
        """Gives the output of a layer a range, which moves with what it sees in training."""

        def get_output_quantizers(self, layer):
            return [
                api.quantizers.MovingAverageQuantizer(
                    num_bits=8, per_axis=False, symmetric=False, narrow_range=False
                )
            ]

    return _OutputRange


def _depthwise_config(api: Any) -> type:
    class _PerChannel(api.quantizers.LastValueQuantizer):
        """Gives every channel of a depthwise kernel `(height, width, channels, 1)` its range.

        tfmot takes the last axis for the channels. The converter quantizes each channel, so with
        one range for all of them it would round the rounded kernel once more.
        """

        def __init__(self):
            super().__init__(num_bits=8, per_axis=True, symmetric=True, narrow_range=True)

        def build(self, tensor_shape, name, layer):
            return {
                f"{end}_var": layer.add_weight(
                    name=f"{name}_{end}",
                    shape=(tensor_shape[2] * tensor_shape[3],),
                    initializer=tf_keras.initializers.Constant(value),
                    trainable=False,
                )
                for end, value in (("min", -6.0), ("max", 6.0))
            }

        def __call__(self, inputs, training, weights, **kwargs):
            height, width, channels, multiplier = inputs.shape
            flat = tf.reshape(inputs, (height, width, 1, channels * multiplier))
            return tf.reshape(super().__call__(flat, training, weights, **kwargs), inputs.shape)

        def get_config(self):
            return {}

    class _Depthwise(_no_range_config(api)):
        """Quantizes a depthwise kernel; what follows has the range of the output."""

        def get_weights_and_quantizers(self, layer):
            return [(layer.depthwise_kernel, _PerChannel())]

        def set_quantize_weights(self, layer, quantize_weights):
            layer.depthwise_kernel = quantize_weights[0]

    return _Depthwise


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
