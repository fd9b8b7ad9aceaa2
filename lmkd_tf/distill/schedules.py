# SPDX-License-Identifier: Apache-2.0
"""How the weights of supervised and distillation terms change over the steps."""

from collections.abc import Callable

from keras import ops


def joint(step, num_steps: int):
    """Both from the first step to the last (default)."""
    del step, num_steps
    return 1.0, 1.0


def two_step(step, num_steps: int):
    """Distillation alone for `num_steps` steps, then supervision alone (arXiv 2309.08144)."""
    is_first = ops.cast(step < num_steps, "float32")
    return 1.0 - is_first, is_first


def warm_up(step, num_steps: int):
    """Distillation grows linearly over the first `num_steps` steps."""
    return 1.0, ops.minimum(step / num_steps, 1.0)


def decay(step, num_steps: int):
    """Distillation falls linearly to nothing after `num_steps` steps."""
    return 1.0, ops.maximum(1.0 - step / num_steps, 0.0)


# name -> function of (step, num_steps) that returns the factors on the supervised term and on
# all distillation terms; `step` is a float scalar that counts from 0.
SCHEDULES: dict[str, Callable] = {
    "joint": joint,
    "two_step": two_step,
    "warm_up": warm_up,
    "decay": decay,
}
