# SPDX-License-Identifier: Apache-2.0
"""One way to train anything: schedule, resume, history, progress."""

from pathlib import Path
from typing import Any

import keras

from lmkd_tf.config.files import read_json, write_json
from lmkd_tf.config.schema import TrainConfig

_HISTORY = "history.json"
_BACKUP = "resume"


def make_optimizer(train: TrainConfig) -> keras.optimizers.Optimizer:
    """Builds AdamW (Adam without weight decay) with warm-up and cosine decay."""
    num_steps = train.epochs * train.steps_per_epoch
    warmup_steps = min(train.warmup_steps, num_steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        train.learning_rate / 100,
        decay_steps=max(1, num_steps - warmup_steps),
        alpha=0.01,
        warmup_target=train.learning_rate,
        warmup_steps=warmup_steps,
    )
    if not train.weight_decay:
        return keras.optimizers.Adam(schedule, global_clipnorm=train.clip_norm)
    return keras.optimizers.AdamW(
        schedule, weight_decay=train.weight_decay, global_clipnorm=train.clip_norm
    )


def epochs_done(folder: Path) -> int:
    """Returns how many epochs an interrupted `fit_stage` in `folder` has finished."""
    if not (folder / _BACKUP).is_dir():
        return 0
    return len(next(iter(read_history(folder).values()), []))


def fit_stage(
    model: Any,
    pairs: Any,
    validation: Any,
    train: TrainConfig,
    folder: Path,
    callbacks: list[Any],
    *,
    is_resumable: bool = True,
) -> None:
    """Fits a compiled model, keeping history and a checkpoint per epoch.

    Args:
        model: Compiled model.
        pairs: Training batches from batch `epochs_done(folder) * steps_per_epoch` on.
        validation: Validation batches.
        train: Length of the stage.
        folder: Where `history.json` and the checkpoint go.
        callbacks: Further callbacks, such as progress.
        is_resumable: Whether the model's weights hold everything there is to resume.
    """
    own: list[Any] = [HistoryFile(folder / _HISTORY, keep=epochs_done(folder))]
    if is_resumable:
        # Before the checkpoint: an epoch counts once both files are written.
        own.append(keras.callbacks.BackupAndRestore(folder / _BACKUP))
    model.fit(
        pairs,
        epochs=train.epochs,
        steps_per_epoch=train.steps_per_epoch,
        validation_data=validation,
        callbacks=[*own, *callbacks],
        verbose=0,
    )


def read_history(folder: Path) -> dict[str, list[float]]:
    """Returns the metrics per epoch that `fit_stage` wrote into `folder`."""
    path = folder / _HISTORY
    return read_json(path) if path.is_file() else {}


class HistoryFile(keras.callbacks.Callback):
    """Writes the metrics of every epoch to a JSON file, across interruptions.

    Args:
        path: File to write.
        keep: Epochs of an interrupted run to keep.
    """

    def __init__(self, path: Path, keep: int = 0):
        super().__init__()
        self._path = path
        stored = read_json(path) if keep and path.is_file() else {}
        self._history = {name: values[:keep] for name, values in stored.items()}

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        """Appends one value per metric."""
        for name, value in (logs or {}).items():
            self._history.setdefault(name, [])[epoch:] = [float(value)]
        write_json(self._path, self._history)
