# SPDX-License-Identifier: Apache-2.0
"""Feature taps: named pairs of teacher and student layers, checked when built."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class FeatureTap:
    """One pair of layers whose outputs are compared.

    Args:
        name: Name of the pair in logs and messages.
        teacher_layer: Layer of the teacher.
        student_layer: Layer of the student.
    """

    name: str
    teacher_layer: str
    student_layer: str


class TappedModel:
    """A functional model split at named layers, sharing its weights.

    `encode` runs from the input to the taps and `decode` from the last tap to the
    output, so that a latent can be changed in between and every layer still runs
    once per step. What `decode` needs besides the latent is the *context*: a list
    of tensors that are linear in the input, so that mixed inputs have mixed
    contexts.

    Args:
        model: Functional Keras 3 or `tf_keras` model with one input and output.
        layer_names: Layers to tap, from input to output.

    Raises:
        ValueError: If a layer does not exist, or one tap lies behind the last.
    """

    def __init__(self, model: Any, layer_names: Sequence[str]):
        outputs = [_layer_output(model, name) for name in layer_names]
        make = _model_class(model)
        self._model = model
        self._encoder = make(model.inputs, outputs)
        self._decoder, self._decoder_sees_input = _build_decoder(make, model, outputs[-1])
        self._check_order(layer_names)
        self._run_twice = _stateful_names(self._encoder) & _stateful_names(self._decoder)
        self.widths = [int(output.shape[-1]) for output in outputs]

    @property
    def trainable_variables(self) -> list[Any]:
        """Variables that the optimizer may change."""
        return self._model.trainable_variables

    def _check_order(self, layer_names: Sequence[str]) -> None:
        behind = {_plain_name(layer.name) for layer in self._decoder.layers}
        late = [name for name in layer_names[:-1] if name in behind]
        if late:
            raise ValueError(
                "Taps must be listed from input to output. "
                f"Received {list(layer_names)}, where {late} come after the last one. "
                "Move them to the end of `taps`."
            )

    def encode(self, inputs, training: bool) -> tuple[list[Any], list[Any]]:
        """Returns the latents of all taps and the context for `decode`."""
        latents = self._encoder(inputs, training=training)
        latents = list(latents) if isinstance(latents, (list, tuple)) else [latents]
        return latents, [inputs]

    def decode(self, latent, context: list[Any], training: bool):
        """Returns the model's output for a (possibly mixed) latent of the last tap.

        Raises:
            ValueError: If a layer before the tap would be trained on both sides of it.
        """
        if training and self._run_twice:
            raise ValueError(
                "All paths but those straight from the input must go through the last tap. "
                f"Received a tap that a path through {sorted(self._run_twice)} goes around. "
                "Tap the layer where the paths meet."
            )
        seen = context if self._decoder_sees_input else []
        return self._decoder([latent, *seen], training=training)


def tap_model(model: Any, layer_names: Sequence[str]) -> Any:
    """Splits a model at named layers.

    Args:
        model: A functional model, or one that declares taps by a method
            `tapped(layer_names)` (as `SpeechEnhancer` does).
        layer_names: Layers to tap, from input to output.

    Returns:
        Object with the methods and properties of `TappedModel`.

    Raises:
        TypeError: If the model is neither.
        ValueError: If a layer does not exist.
    """
    if hasattr(model, "tapped"):
        return model.tapped(list(layer_names))
    if not getattr(model, "inputs", None):
        raise TypeError(
            "Taps need a functional model or one with a method `tapped(layer_names)`. "
            f"Received {type(model).__name__}. Build it with keras.Model(inputs, outputs)."
        )
    return TappedModel(model, layer_names)


def _layer_output(model: Any, name: str) -> Any:
    by_name = {_plain_name(layer.name): layer for layer in model.layers}
    if name not in by_name:
        raise ValueError(
            f"A tap must name a layer of the model. Received {name!r}. "
            f"Use one of: {', '.join(by_name)}."
        )
    return by_name[name].output


def _build_decoder(make: Any, model: Any, latent: Any) -> tuple[Any, bool]:
    """Builds latent -> output, with the model's input only where it is needed.

    tf_keras refuses inputs that are not used, so the narrow graph comes first.
    """
    try:
        return make([latent], model.outputs[0]), False
    except ValueError:  # a skip connection from the input: the graph is disconnected
        return make([latent, *model.inputs], model.outputs[0]), True


def _stateful_names(model: Any) -> set[str]:
    return {layer.name for layer in model.layers if layer.variables}


def _plain_name(name: str) -> str:
    """Strips what tfmot puts before the name of a wrapped layer."""
    for prefix in ("prune_low_magnitude_", "quant_"):
        name = name.removeprefix(prefix)
    return name


def _model_class(model: Any) -> Any:
    """Returns `Model` of the namespace (Keras 3 or tf_keras) the model is from."""
    if isinstance(model, keras.Model):
        return keras.Model
    base = next(c for c in type(model).__mro__ if c.__name__ == "Functional")
    return next(c for c in base.__mro__ if c.__name__ == "Model")
