# SPDX-License-Identifier: Apache-2.0
"""Runs a tapped network on two views and on their mixture, every layer once."""

from typing import Any, NamedTuple

from keras import ops

from lmkd_tf.distill.mixture import Mixer


class Streams(NamedTuple):
    """What a network made of a batch.

    Args:
        latents: Taps of the two views, one `(2B, ...)` per tap.
        mixed_latents: Taps of the mixture, one `(B, ...)` per tap.
        output: Output for the two views, `(2B, ...)`.
        mixed_output: Output for the mixture, `(B, ...)`, or None.
    """

    latents: list[Any]
    mixed_latents: list[Any]
    output: Any
    mixed_output: Any = None


def run_plain(network: Any, inputs, *, training: bool) -> tuple[list[Any], Any]:
    """Runs all segments; returns the latents of the taps and the output."""
    x, context = network.start(inputs)
    latents = []
    for segment in range(network.num_segments):
        found, x = network.run(segment, x, context, training)
        latents += found
    return latents, x


def run_blended(network: Any, views, blend, *, training: bool) -> Streams:
    """Runs two views and a mixture of their inputs as one batch.

    Args:
        network: A `TappedModel`.
        views: Both views, `(2B, ...)`.
        blend: Mixed input, `(B, ...)`.
        training: Whether the layers run in training mode.
    """
    latents, output = run_plain(network, ops.concatenate([views, blend]), training=training)
    *parts, outputs = (_split(x) for x in (*latents, output))
    return Streams([both for both, _ in parts], [mixed for _, mixed in parts], *outputs)


def run_mixed(
    network: Any, views, mixer: Mixer, *, training: bool, is_propagated: bool = True
) -> Streams:
    """Runs two views and mixes their latents at the cut of the network.

    Args:
        network: A `TappedModel` with one cut.
        views: Both views, `(2B, ...)`.
        mixer: The coefficients.
        training: Whether the layers run in training mode.
        is_propagated: Whether the mixed latent goes on to the output. If not, taps
            behind the cut are mixed like those before it.
    """
    x, context = network.start(views)
    latents, x = network.run(0, x, context, training)
    mixed = [mixer.at_tap(latent, tap) for tap, latent in enumerate(latents)]
    if not is_propagated:
        later, output = network.run(1, x, context, training)
        mixed += [mixer.at_tap(latent, len(mixed) + tap) for tap, latent in enumerate(later)]
        return Streams(latents + later, mixed, output)
    context = [ops.concatenate([c, mixer.of_input(c)]) for c in context]
    later, x = network.run(1, ops.concatenate([x, mixed[-1]]), context, training)
    *parts, outputs = (_split(tensor) for tensor in (*later, x))
    latents = latents + [both for both, _ in parts]
    return Streams(latents, mixed + [third for _, third in parts], *outputs)


def run_mixed_at_drawn_tap(network: Any, views, mixer: Mixer, *, training: bool) -> Streams:
    """Runs two views and mixes their latents at the tap `mixer.chosen`.

    A mixture of the inputs runs beside the views from the start and is replaced by
    the mixed latent at the chosen tap: one graph for all choices.

    Args:
        network: A `TappedModel` that is cut at every tap.
        views: Both views, `(2B, ...)`.
        mixer: The coefficients.
        training: Whether the layers run in training mode.
    """
    x, context = network.start(ops.concatenate([views, mixer.of_input(views)]))
    latents, mixed = [], []
    for tap in range(network.num_segments - 1):
        _, x = network.run(tap, x, context, training)
        both, third = _split(x)
        latents.append(both)
        mixed.append(mixer.at_tap(both, tap))
        is_here = ops.cast(mixer.chosen[tap], third.dtype)
        x = ops.concatenate([both, is_here * mixed[-1] + (1.0 - is_here) * third])
    _, x = network.run(network.num_segments - 1, x, context, training)
    return Streams(latents, mixed, *_split(x))


def _split(three):
    """Splits `(3B, ...)` into the views `(2B, ...)` and the mixture `(B, ...)`."""
    first, second, third = ops.split(three, 3, axis=0)
    return ops.concatenate([first, second]), third
