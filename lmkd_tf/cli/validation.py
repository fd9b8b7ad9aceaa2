# SPDX-License-Identifier: Apache-2.0
"""Scores of held-out clips after every epoch, and the weights of the best one."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lmkd_tf.config.files import atomic_path
from lmkd_tf.config.schema import MONITORS
from lmkd_tf.metrics.perceptual import pesq_wb
from lmkd_tf.metrics.si_sdr import si_sdr_db


class ValidationScores(keras.callbacks.Callback):
    """Adds `val_pesq_wb` and `val_si_sdr_db` of fixed clips to the logs of every epoch.

    It runs at the end of the validation, with the weights that are validated.

    Args:
        clips: Objects with `noisy` and `speech`, float32, shape `(N,)`, at least one; all
            are cut to the length of the shortest, so that they make one batch.

    Raises:
        ImportError: If `pesq` is not installed.
        ValueError: If no clip is long enough, or has speech enough, to be scored.
    """

    def __init__(self, clips: Sequence[Any]):
        super().__init__()
        length = min(clip.speech.size for clip in clips)
        self._noisy = np.stack([clip.noisy[:length] for clip in clips])
        speech = [clip.speech[:length] for clip in clips]
        # Before the first epoch rather than after it: whatever is missing is found out here.
        scores = [pesq_wb(s, n).value for s, n in zip(speech, self._noisy, strict=True)]
        usable = [index for index, score in enumerate(scores) if score is not None]
        if not usable:
            raise ValueError(
                "Validation scores need clips with speech that PESQ finds. "
                f"Received {len(clips)} clips of {length} samples without any. "
                "Set num_scored_clips=0 or put other speech into the split 'valid'."
            )
        self._noisy, self._speech = self._noisy[usable], [speech[index] for index in usable]
        self._scores: dict[str, float] = {}

    def on_test_end(self, logs: dict | None = None) -> None:
        """Enhances and scores the clips."""
        enhanced = np.asarray(self.model.predict(self._noisy, batch_size=8, verbose=0))
        pairs = list(zip(self._speech, enhanced, strict=True))
        # A network that returns silence or NaN has the lowest score there is.
        pesq = [pesq_wb(s, np.nan_to_num(e)).value or 1.0 for s, e in pairs]
        self._scores = {
            "pesq_wb": float(np.mean(pesq)),
            "si_sdr_db": float(np.mean([si_sdr_db(*pair) for pair in pairs])),
        }
        if logs is not None:
            logs.update(self._scores)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the scores to the logs, for the callbacks after this one."""
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in self._scores.items()})


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best validation, and may end the training.

    Args:
        path: File for the weights.
        monitor: Value in `MONITORS`.
        patience: Epochs without a better value after which training ends; 0 for never.
        before: Values of the epochs before, when training is resumed.
    """

    def __init__(self, path: Path, monitor: str, patience: int, before: Sequence[float] = ()):
        super().__init__()
        self._path, self._name = path, monitor.removeprefix("val_")
        self._sign = 1.0 if MONITORS[monitor] else -1.0
        self._patience, self._epoch = patience, 0
        self._best, self._best_epoch = -np.inf, -1
        for epoch, value in enumerate(before):
            self._note(epoch, value)

    def is_over(self, epochs: int) -> bool:
        """Tells whether training has ended after a number of epochs."""
        return 0 < self._patience <= epochs - 1 - self._best_epoch

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Notes the number of the epoch."""
        self._epoch = epoch

    def on_test_end(self, logs: dict | None = None) -> None:
        """Writes the weights if they are the best so far."""
        if self._note(self._epoch, (logs or {})[self._name]):
            with atomic_path(self._path) as temporary:
                np.savez(temporary, *self.model.get_weights())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Ends the training if it has not got better for too long."""
        if self.is_over(epoch + 1):
            self.model.stop_training = True

    def restore(self, model: Any) -> None:
        """Gives a model the weights of the best epoch.

        Raises:
            ValueError: If the file is missing or damaged.
        """
        try:
            with np.load(self._path) as stored:
                model.set_weights([stored[name] for name in stored.files])
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                "The weights of the best epoch must be as they were written. "
                f"Received {self._path}, which cannot be read ({error}). "
                "Remove the folder of this stage and run it again."
            ) from error

    def _note(self, epoch: int, value: float) -> bool:
        if not self._sign * value > self._best:  # NaN is never better
            return False
        self._best, self._best_epoch = self._sign * value, epoch
        return True
