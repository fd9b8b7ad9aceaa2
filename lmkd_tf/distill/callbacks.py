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
        self._step = first_step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Checks the loss of the step."""
        loss = float((logs or {}).get("loss", 0.0))
        step, self._step = self._step, self._step + 1
        if np.isfinite(loss):
            return
        described = self._describe_batch(step) if self._describe_batch else []
        files = f", made of {', '.join(described)}" if described else ""
        raise FloatingPointError(
            "Every step must have a finite loss. "
            f"Received {loss} in step {step}{files}. "
            "Look for NaN in these files, or lower the learning rate; the last checkpoint is whole."
        )
