# SPDX-License-Identifier: Apache-2.0
"""Callbacks for training a distiller."""

from collections.abc import Callable

import keras
import numpy as np


class RaiseOnNan(keras.callbacks.Callback):
    """Stops training with an error at the first step whose loss is not finite.

    `keras.callbacks.TerminateOnNaN` ends the run as if it had finished; what follows then
    saves a spoilt network. This one raises, so nothing after `fit` runs and the last
    checkpoint stays.

    Args:
        describe_batch: Function from the number of a step, from 0 over all epochs, to what
            its batch was made of, such as file names; None if that is not known.
        first_step: Number of the first step, when training is resumed.

    Raises:
        FloatingPointError: In `fit`, naming the step and its files.
    """

    def __init__(
        self, describe_batch: Callable[[int], list[str]] | None = None, first_step: int = 0
    ):
        super().__init__()
        self._describe_batch = describe_batch
        self._epoch_start = self._next_step = first_step

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Notes where the epoch starts."""
        self._epoch_start = self._next_step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Checks the loss of the steps up to `batch` (several with `steps_per_execution`)."""
        loss = float((logs or {}).get("loss", 0.0))
        first, last = self._next_step, self._epoch_start + batch
        self._next_step = last + 1
        if np.isfinite(loss):
            return
        describe = self._describe_batch or (lambda step: [])
        described = [name for step in range(first, last + 1) for name in describe(step)]
        files = f", made of {', '.join(described)}" if described else ""
        where = f"step {last}" if first == last else f"steps {first} to {last}"
        raise FloatingPointError(
            "Every step must have a finite loss. "
            f"Received {loss} in {where}{files}. "
            "Look for NaN in these files, or lower the learning rate; the last checkpoint is whole."
        )
