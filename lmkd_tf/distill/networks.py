# SPDX-License-Identifier: Apache-2.0
"""Runs student and teacher as an objective wants them mixed."""

from typing import Any

from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.mixture import Mixer
from lmkd_tf.distill.objective import Objective
from lmkd_tf.distill.streams import (
    Streams,
    run_blended,
    run_mixed,
    run_mixed_at_drawn_tap,
    run_plain,
)
from lmkd_tf.distill.views import Pair, blend_per_band


def blend_inputs(objective: Objective, pair: Pair, mixer: Mixer, frame: StftConfig | None):
    """Returns the mixed input `(B, ...)`, or None where only latents are mixed.

    Args:
        objective: Where the mixture is made.
        pair: The signals.
        mixer: The coefficients.
        frame: Frame of the student's transform, for λ per band, or None.

    Raises:
        ValueError: If λ is drawn per band and there is no frame to find bands with.
    """
    if objective.mixing not in ("teacher", "student", "input"):
        return None
    if mixer.band_lambda is None:
        return mixer.of_input(ops.concatenate([pair.first, pair.second]))
    if frame is None:
        raise ValueError(
            "λ per band needs a student with an STFT. "
            "Received one without the attribute `stft`. "
            'Use granularity="sample".'
        )
    return blend_per_band(pair.first, pair.second, mixer.band_lambda, frame)


def run_student(
    network: Any, objective: Objective, both, blend, mixer: Mixer, *, training: bool
) -> Streams:
    """Runs the student on both views and on what is mixed.

    Args:
        network: The student's `TappedModel`.
        objective: Where the mixture is made.
        both: Both views, `(2B, ...)`.
        blend: Mixed input, `(B, ...)`, or None.
        mixer: The coefficients.
        training: Whether the layers run in training mode.
    """
    if objective.is_tap_drawn:
        return run_mixed_at_drawn_tap(network, both, mixer, training=training)
    if objective.mixing in ("both", "student"):
        is_propagated = objective.propagation != "none"
        return run_mixed(network, both, mixer, training=training, is_propagated=is_propagated)
    if objective.mixing in ("teacher", "input"):
        return run_blended(network, both, blend, training=training)
    latents, output = run_plain(network, both, training=training)
    return Streams(latents, latents, output)


def run_teacher(
    network: Any, objective: Objective, both, blend, mixer: Mixer, *, cached: Any = None
) -> Streams:
    """Runs the teacher in inference mode; what is not used is not computed, as graphs are pruned.

    Args:
        network: The teacher's `TappedModel`.
        objective: Where the mixture is made.
        both: Both views, `(2B, ...)`.
        blend: Mixed input, `(B, ...)`, or None.
        mixer: The coefficients.
        cached: Latents from `distill.cache`, `(B, 2, ...)` per tap, or None.

    Raises:
        ValueError: If latents are cached that the objective does not use.
    """
    if cached is not None:
        return _from_cache(objective, cached, mixer, both.dtype)
    if objective.mixing in ("both", "teacher"):
        is_propagated = objective.propagation == "both"
        return run_mixed(network, both, mixer, training=False, is_propagated=is_propagated)
    if objective.mixing in ("student", "input"):
        latents, mixed_output = run_plain(network, blend, training=False)
        return Streams(latents, latents, None, mixed_output)
    latents, output = run_plain(network, both, training=False)
    return Streams(latents, latents, output)


def _from_cache(objective: Objective, cached: Any, mixer: Mixer, dtype: Any) -> Streams:
    if not objective.takes_cached_latents:
        raise ValueError(
            "Cached latents are those of the two views, and the objective must need no others. "
            f"Received mixing={objective.mixing!r}, propagation={objective.propagation!r}, "
            f"pairing={objective.pairing!r}, output_weight={objective.output_weight}. "
            "Train on pairs without the cache."
        )
    latents = [ops.cast(ops.concatenate([z[:, 0], z[:, 1]]), dtype) for z in cached]
    if objective.mixing in ("none", "split"):
        return Streams(latents, latents, None)
    return Streams(latents, [mixer.at_tap(z, tap) for tap, z in enumerate(latents)], None)
