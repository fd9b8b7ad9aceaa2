# SPDX-License-Identifier: Apache-2.0
"""Fake quantization within the plain recurrence, which tfmot knows nothing of."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from lmkd_tf.compress.toolkit import load_tfmot
from lmkd_tf.models.gru import KERNELS, ROUNDED, plain_gru

# Values whose range follows from the formula. TFLite has no other for sigmoid and tanh, and the
# state has the one of tanh, so that it leaves a step as it came in.
_UNIT, _SIGNED = (0.0, 255.0 / 256.0), (-1.0, 127.0 / 128.0)
KNOWN_RANGES = {"gate_z": _UNIT, "gate_r": _UNIT, "candidate": _SIGNED, "state": _SIGNED}
# Beyond these, sigmoid and tanh are within half an int8 step of their ends.
LOGIT_LIMIT = math.log(511.0)
_LIMITS = {"sum_z": LOGIT_LIMIT, "sum_r": LOGIT_LIMIT, "sum_n": math.atanh(255.0 / 256.0)}


def fake_quantized_gru() -> type:
    """Returns the layer class of a recurrence that rounds every value within a step.

    Its ranges do not move in training: a range that moves while an error goes round the loop is
    what makes the training of recurrences with fake quantization drift.
    """
    return _FakeQuantizedGru


@tf_keras.saving.register_keras_serializable(package="lmkd_tf")
class _FakeQuantizedGru(plain_gru(tf_keras)):
    def build(self, input_shape):
        super().build(input_shape)
        self.num_bits: dict[str, int] = dict.fromkeys(ROUNDED, 8)
        self._limits = {}
        for name in ROUNDED:
            ends = KNOWN_RANGES.get(name, (-6.0, 6.0))
            self._limits[name] = [
                self.add_weight(
                    name=f"{name}_{end}",
                    shape=(),
                    initializer=tf_keras.initializers.Constant(value),
                    trainable=False,
                )
                for end, value in zip(("min", "max"), ends, strict=True)
            ]
            setattr(self, f"round_{name}", self._rounding(name))

    def _rounding(self, name: str) -> Any:
        return lambda value: tf.quantization.fake_quant_with_min_max_vars(
            value, *self._limits[name], num_bits=self.num_bits[name]
        )

    def limits_of(self, name: str) -> list[Any]:
        """Returns the variables of the lowest and highest value of one of `ROUNDED`."""
        return self._limits[name]

    def set_limits(self, extremes: dict[str, tuple[float, float]]) -> None:
        """Sets every range that is not known beforehand.

        What a sigmoid or tanh reads ends where their int8 output does not change any more: a
        range beyond would make all steps coarser.

        Args:
            extremes: Lowest and highest value by name.
        """
        for name in ROUNDED:
            if name not in KNOWN_RANGES:
                low, high = extremes[name]
                limit = _LIMITS.get(name, math.inf)
                self._limits[name][0].assign(max(-limit, min(0.0, low)))
                self._limits[name][1].assign(min(limit, max(0.0, high)))


def observed_extremes(layer: Any, inputs: Any) -> dict[str, tuple[float, float]]:
    """Runs a float recurrence over frames and notes the extremes within its steps.

    Args:
        layer: Layer of `plain_gru`, float; it is left as it was.
        inputs: What it is called with, of real frames.

    Returns:
        Lowest and highest value by the names of `ROUNDED`.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ROUNDED}

    def recorder(name: str) -> Any:
        def record(value: Any) -> Any:
            found[name].append((float(np.min(value)), float(np.max(value))))
            return value

        return record

    before = {name: getattr(layer, f"round_{name}") for name in ROUNDED}
    try:
        for name in ROUNDED:
            setattr(layer, f"round_{name}", recorder(name))
        state = tf.zeros_like(inputs[0][:, :1])
        for frame in range(inputs[0].shape[1]):
            state = layer.call([*(value[:, frame : frame + 1] for value in inputs), state])
    finally:
        for name, function in before.items():
            setattr(layer, f"round_{name}", function)
    return {
        name: (min(low for low, _ in pairs), max(high for _, high in pairs))
        for name, pairs in found.items()
    }


def recurrence_config() -> type:
    """Returns tfmot's `QuantizeConfig` of the recurrence: int8 kernels, one scale per output."""
    api = load_tfmot().quantization.keras

    class _Recurrence(api.QuantizeConfig):
        def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            return [(getattr(layer, name), _kernel_quantizer(api)) for name in KERNELS]

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            for name, value in zip(KERNELS, quantize_weights, strict=True):
                setattr(layer, name, value)

        def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
            pass

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return []

        def get_config(self) -> dict[str, Any]:
            return {}

    return _Recurrence


def _kernel_quantizer(api: Any) -> Any:
    return api.quantizers.LastValueQuantizer(
        num_bits=8, per_axis=True, symmetric=True, narrow_range=True
    )


def recurrences_of(quantized: Any) -> Iterator[tuple[str, Any]]:
    """Yields the recurrences of a quantization-aware core with the names of their float layers."""
    for layer in quantized.layers:
        inner = getattr(layer, "layer", layer)
        if isinstance(inner, _FakeQuantizedGru):
            yield inner.name, inner
