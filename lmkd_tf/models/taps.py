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
    """A functional model cut into segments at named layers, sharing its weights.

    A latent can be changed between two segments, and every layer still runs once
    per step. What a later segment needs besides the latent is the *context*: a list
    of tensors that are linear in the input, so that mixed inputs have mixed
    contexts.

    Args:
        model: Functional Keras 3 or `tf_keras` model with one input and output.
        layer_names: Layers to tap, from input to output.
        cut_names: Those of them to cut at; the last one by default.

    Attributes:
        shapes: Output shape of each tap, None where it is not static.
        num_segments: One more than there are cuts.

    Raises:
        ValueError: If a layer does not exist, the taps are not listed from input to
            output, or the model has several inputs or outputs.
    """

    def __init__(self, model: Any, layer_names: Sequence[str], cut_names: Sequence[str] = ()):
        _check_single(model)
        cut_names = list(cut_names) or [layer_names[-1]]
        latents = [_layer_output(model, name) for name in layer_names]
        self._model = model
        self.shapes = [tuple(latent.shape) for latent in latents]
        self.num_segments = len(cut_names) + 1
        make = _model_class(model)
        source, first, self._segments = None, 0, []
        for name in cut_names:
            last = list(layer_names).index(name) + 1
            self._segments.append(_segment(make, model, source, latents[first:last]))
            source, first = latents[last - 1], last
        rest = [*latents[first:], model.outputs[0]]
        self._segments.append(_segment(make, model, source, rest))
        self._check_order(layer_names, cut_names)
        stateful = [_stateful_names(graph) for graph, _ in self._segments]
        self._run_twice = set().union(
            *(one & other for i, one in enumerate(stateful) for other in stateful[:i])
        )

    @property
    def trainable_variables(self) -> list[Any]:
        """Variables that the optimizer may change."""
        return self._model.trainable_variables

    def _check_order(self, layer_names: Sequence[str], cut_names: Sequence[str]) -> None:
        """Every tap must lie between the cuts it is listed between."""
        behind = [
            {_plain_name(layer.name) for layer in graph.layers} for graph, _ in self._segments
        ]
        segment, wrong = 0, []
        for name in layer_names:
            is_cut = name in cut_names
            elsewhere = behind[:segment] + ([] if is_cut else behind[segment + 1 :])
            if name not in behind[segment] or name in set().union(*elsewhere):
                wrong.append(name)
            segment += is_cut
        if wrong:
            raise ValueError(
                "Taps must be listed from input to output. "
                f"Received {list(layer_names)}, where {wrong} stand in the wrong place. "
                "Put them in the order in which the model computes them."
            )

    def start(self, inputs) -> tuple[Any, list[Any]]:
        """Returns what the first segment takes, and the context of the others."""
        return inputs, [inputs]

    def run(self, segment: int, x, context: list[Any], training: bool) -> tuple[list[Any], Any]:
        """Runs one segment.

        Args:
            segment: Index of the segment.
            x: Latent (possibly mixed) of the cut before it, or what `start` returned.
            context: Context of the same batch.
            training: Whether the layers run in training mode.

        Returns:
            Latents of the taps in this segment, its own cut included, and what the
            next segment takes; after the last segment that is the model's output.

        Raises:
            ValueError: If a layer before a cut would be trained on both sides of it.
        """
        if training and self._run_twice:
            raise ValueError(
                "All paths but those straight from the input must go through the tap that "
                f"the model is cut at. Received a tap that a path through "
                f"{sorted(self._run_twice)} goes around. Tap the layer where the paths meet."
            )
        graph, sees_input = self._segments[segment]
        outputs = graph([x, *context] if sees_input else x, training=training)
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        is_last = segment == self.num_segments - 1
        return (outputs[:-1] if is_last else outputs), outputs[-1]


def tap_model(model: Any, layer_names: Sequence[str], cut_names: Sequence[str] = ()) -> Any:
    """Cuts a model at named layers.

    Args:
        model: A functional model, or one that declares taps by a method
            `tapped(layer_names, cut_names)` (as `SpeechEnhancer` does).
        layer_names: Layers to tap, from input to output.
        cut_names: Those of them to cut at; the last one by default.

    Returns:
        Object with the methods and properties of `TappedModel`.

    Raises:
        TypeError: If the model is neither.
        ValueError: If a layer does not exist.
    """
    if hasattr(model, "tapped"):
        return model.tapped(list(layer_names), list(cut_names))
    if not getattr(model, "inputs", None):
        raise TypeError(
            "Taps need a functional model or one with a method `tapped(layer_names, cut_names)`. "
            f"Received {type(model).__name__}. Build it with keras.Model(inputs, outputs)."
        )
    return TappedModel(model, layer_names, cut_names)


def _layer_output(model: Any, name: str) -> Any:
    by_name = {_plain_name(layer.name): layer for layer in model.layers}
    if name not in by_name:
        raise ValueError(
            f"A tap must name a layer of the model. Received {name!r}. "
            f"Use one of: {', '.join(by_name)}."
        )
    return by_name[name].output


def _segment(make: Any, model: Any, source: Any, outputs: list[Any]) -> tuple[Any, bool]:
    """Builds a graph from the cut `source`, with the model's input only where it is needed.

    tf_keras refuses inputs that are not used, so the narrow graph comes first.
    """
    if source is None:
        return make(model.inputs, outputs), False
    try:
        return make([source], outputs), False
    except ValueError:  # a skip connection from the input: the graph is disconnected
        return make([source, *model.inputs], outputs), True


def _stateful_names(model: Any) -> set[str]:
    return {layer.name for layer in model.layers if layer.variables}


def _plain_name(name: str) -> str:
    """Strips what tfmot puts before the name of a wrapped layer."""
    for prefix in ("prune_low_magnitude_", "quant_"):
        name = name.removeprefix(prefix)
    return name


def _check_single(model: Any) -> None:
    counts = len(model.inputs), len(model.outputs)
    if counts != (1, 1):
        raise ValueError(
            "A tapped model must have one input and one output. "
            f"Received {model.name!r} with {counts[0]} and {counts[1]}. "
            "Make a model of one of its outputs: keras.Model(model.inputs, model.outputs[0])."
        )


def _model_class(model: Any) -> Any:
    """Returns `Model` of the namespace (Keras 3 or tf_keras) the model is from."""
    if isinstance(model, keras.Model):
        return keras.Model
    base = next(c for c in type(model).__mro__ if c.__name__ == "Functional")
    return next(c for c in base.__mro__ if c.__name__ == "Model")
