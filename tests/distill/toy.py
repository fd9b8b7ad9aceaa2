# SPDX-License-Identifier: Apache-2.0
"""A tapped network of three taps that counts how often each segment runs."""

import numpy as np
from keras import ops

RATES = (1.0, 0.5, 2.0)


class Toy:
    """z_i = tanh(rate_i z_{i-1} + input), output = 3 z_3 - input; cut where one wants.

    The input is the context, so that a mixed latent needs the mixed input.
    """

    def __init__(self, cuts=(0, 1, 2)):
        self.num_segments = len(cuts) + 1
        self.runs = []
        self._ends = [cut + 1 for cut in cuts] + [len(RATES)]

    def start(self, inputs):
        return inputs, [inputs]

    def run(self, segment, x, context, training):
        self.runs.append((segment, training))
        (inputs,) = context
        latents = []
        for rate in RATES[self._ends[segment - 1] if segment else 0 : self._ends[segment]]:
            x = ops.tanh(rate * x + inputs)
            latents.append(x)
        is_last = segment == self.num_segments - 1
        return latents, 3.0 * x - inputs if is_last else x


def latents_by_hand(inputs, latent=None, tap=-1):
    """Latents behind a tap (from the input on by default) and the output, in numpy."""
    x, latents = inputs if latent is None else latent, []
    for rate in RATES[tap + 1 :]:
        x = np.tanh(rate * x + inputs)
        latents.append(x)
    return latents, 3.0 * x - inputs
