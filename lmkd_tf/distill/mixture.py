# SPDX-License-Identifier: Apache-2.0
"""Draws the mixing coefficients of one step."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from lmkd_tf.distill.lambda_laws import LAMBDA_LAWS, keep_some_unmixed
from lmkd_tf.distill.latent_mixup import mix_latents
from lmkd_tf.distill.objective import Objective
from lmkd_tf.distill.training import num_replicas, replica_slice
from lmkd_tf.distill.views import NUM_LAMBDA_BANDS, Pair, snr_difference_db


class Mixer(NamedTuple):
    """The mixing coefficients of one step, the same for teacher and student.

    Args:
        tap_lambdas: λ at each tap, `(K, B)`.
        mixup_lambda: λ of what is linear in the input, and of the target, `(B,)`.
        chosen: One-hot weights `(K,)` of the tap where the latents are mixed if it
            is drawn in each step, else None.
        band_lambda: λ per band of the input, `(B, E)`, or None.
    """

    tap_lambdas: Any
    mixup_lambda: Any
    chosen: Any = None
    band_lambda: Any = None

    def at_tap(self, pair, tap: int):
        """Mixes the two halves of a latent `(2B, ...)` to `(B, ...)`."""
        first, second = ops.split(pair, 2, axis=0)
        return mix_latents(first, second, self.tap_lambdas[tap])

    def of_input(self, pair):
        """Mixes the two halves `(2B, ...)` of something linear in the input."""
        first, second = ops.split(pair, 2, axis=0)
        return mix_latents(first, second, self.mixup_lambda)


class MixtureSource:
    """Draws a `Mixer` per step.

    Args:
        objective: Law, range and granularity of λ.
        mixup_alpha: α of the Beta laws.
        num_taps: Number of taps K.
        mix_index: Index of the tap that is mixed.
        seed: `keras.random.SeedGenerator`.
    """

    def __init__(
        self, objective: Objective, mixup_alpha: float, num_taps: int, mix_index: int, seed: Any
    ):
        self._objective = objective
        self._mixup_alpha = mixup_alpha
        self._num_taps = num_taps
        self._mix_index = mix_index
        self._seed = seed
        rows = {"tap": num_taps, "band": NUM_LAMBDA_BANDS}
        self._num_rows = rows.get(objective.granularity, 1)

    def draw(self, pair: Pair, training: bool) -> tuple[Mixer, Any]:
        """Returns the coefficients for a pair, and λ as drawn, `(., B)`; 1/2 in evaluation.

        Where nothing is mixed λ is 1 and none is drawn.
        """
        size = ops.shape(pair.first)[0]
        if self._objective.mixing in ("none", "split"):
            ones = ops.ones((self._num_taps, size))
            return Mixer(ones, ones[0]), None
        drawn = self._draw_lambda(pair, size) if training else ops.full((self._num_rows, size), 0.5)
        if self._objective.granularity == "band":
            mean = ops.mean(drawn, axis=0)
            per_tap = ops.broadcast_to(mean, (self._num_taps, size))
            return Mixer(per_tap, mean, band_lambda=ops.transpose(drawn)), drawn
        per_tap = ops.broadcast_to(drawn, (self._num_taps, size))
        if not self._objective.is_tap_drawn:
            per_tap = self._as_decoded(per_tap)
            return Mixer(per_tap, per_tap[self._mix_index]), drawn
        chosen = self._choose_tap(training)
        return Mixer(per_tap, ops.sum(chosen[:, None] * per_tap, axis=0), chosen), drawn

    def _as_decoded(self, per_tap):
        """Gives the taps behind a mixed latent that is decoded the λ of that latent."""
        if self._objective.propagation == "none":
            return per_tap
        rows = np.minimum(np.arange(self._num_taps), self._mix_index)
        return ops.take(per_tap, rows, axis=0)

    def _draw_lambda(self, pair: Pair, size: Any):
        """Draws λ of all replicas, so that they train as one machine would."""
        objective, total = self._objective, size * num_replicas()
        shape = (self._num_rows, 1 if objective.granularity == "batch" else total)
        options: dict[str, Any] = {"lambda_range": objective.lambda_range}
        if objective.lambda_law == "snr_aware":
            options["snr_difference_db"] = ops.tile(snr_difference_db(pair), (num_replicas(),))
        drawn = LAMBDA_LAWS[objective.lambda_law](shape, self._mixup_alpha, self._seed, **options)
        drawn = ops.broadcast_to(drawn, (self._num_rows, total))
        return replica_slice(keep_some_unmixed(drawn, objective.mix_prob, self._seed), size)

    def _choose_tap(self, training: bool):
        """Returns a one-hot choice; the last tap in evaluation."""
        index = self._num_taps - 1
        if training:
            index = keras.random.randint((), 0, self._num_taps, seed=self._seed)
        return ops.one_hot(index, self._num_taps)
