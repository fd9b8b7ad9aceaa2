# SPDX-License-Identifier: Apache-2.0
"""One way to train anything: schedule, resume, history, progress."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from lmkd_tf.cli.validation import BestEpoch
from lmkd_tf.config.files import atomic_path, read_json, sha256_of, write_json
from lmkd_tf.config.schema import TrainConfig

_HISTORY = "history.json"
_RESUME = "resume"
_RECORD = "checkpoint.json"
_BEST = "best.npz"


def make_optimizer(train: TrainConfig) -> keras.optimizers.Optimizer:
    """Builds AdamW (Adam without weight decay) with warm-up, cosine decay and EMA weights."""
    num_steps = train.epochs * train.steps_per_epoch
    warmup_steps = min(train.warmup_steps, num_steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        train.learning_rate / 100,
        decay_steps=max(1, num_steps - warmup_steps),
        alpha=0.01,
        warmup_target=train.learning_rate,
        warmup_steps=warmup_steps,
    )
    settings = {
        "global_clipnorm": train.clip_norm,
        "use_ema": train.ema_momentum > 0,
        "ema_momentum": train.ema_momentum,
    }
    if not train.weight_decay:
        return keras.optimizers.Adam(schedule, **settings)
    return keras.optimizers.AdamW(schedule, weight_decay=train.weight_decay, **settings)


def epochs_done(folder: Path) -> int:
    """Returns how many epochs an interrupted `fit_stage` in `folder` has finished.

    A checkpoint that is missing or damaged counts as none: the stage starts over.
    """
    record_path = folder / _RESUME / _RECORD
    try:
        record = read_json(record_path)
        if sha256_of(record_path.with_name(record["file"])) == record["sha256"]:
            return int(record["epochs"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, OSError):
        pass  # damaged as well
    logging.warning("The checkpoint in %s is damaged; this stage starts over.", record_path.parent)
    return 0


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

    With `ema_momentum` the averaged weights are validated, with batch statistics of their own,
    and the model has them at the end; a checkpoint holds both. With `monitor` the model has
    those of the best epoch. Call `remove_checkpoint` once the result is saved.

    Args:
        model: Compiled model.
        pairs: Training batches from batch `epochs_done(folder) * steps_per_epoch` on.
        validation: Validation batches.
        train: Length of the stage.
        folder: Where `history.json` and the checkpoint go.
        callbacks: Further callbacks, such as scores and progress; they come first.
        is_resumable: Whether the model's weights hold everything there is to resume.
    """
    done = epochs_done(folder) if is_resumable else 0
    history = HistoryFile(folder / _HISTORY, keep=done)
    own: list[Any] = [history]
    best = None
    if train.monitor:
        path, before = folder / _RESUME / _BEST, history.values_of(train.monitor)
        best = BestEpoch(path, train.monitor, train.patience, before)
        own.append(best)
    if is_resumable:
        # Built now, so that its variables have one order whether resumed or not.
        model.optimizer.build(model.trainable_variables)
        own.append(Checkpoint(folder / _RESUME))
    if train.ema_momentum:
        own.append(SwapAverages(validation))  # last: swaps back after the others
    if done:
        model.load_weights(folder / _RESUME / read_json(folder / _RESUME / _RECORD)["file"])
    model.fit(
        pairs,
        epochs=done if best and best.is_over(done) else train.epochs,
        initial_epoch=done,
        steps_per_epoch=train.steps_per_epoch,
        validation_data=validation,
        callbacks=[*callbacks, *own],
        shuffle=False,  # drawn at random already; Keras warns about its own default
        verbose=0,
    )
    if best:
        best.restore(model)


class SwapAverages(keras.callbacks.SwapEMAWeights):
    """Validates and ends with averaged weights that have batch statistics of their own.

    Keras averages what is trained. Batch normalization would go on with the moving
    statistics of the weights that are not averaged, and a network of both is worse than
    either; so those of the averaged weights are measured on noisy speech of the validation,
    which is the same before and after an interruption.

    Args:
        validation: Validation batches.
    """

    def __init__(self, validation: Any):
        super().__init__()
        self._validation = validation
        self._before: list[Any] = []

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Puts the averages in."""
        super().on_test_begin(logs)
        self._before = [
            [np.array(v) for v in layer.non_trainable_variables] for layer in self._norms()
        ]
        self._measure()

    def on_test_end(self, logs: dict | None = None) -> None:
        """Puts the trained weights and their statistics back."""
        super().on_test_end(logs)
        for layer, values in zip(self._norms(), self._before, strict=True):
            for variable, value in zip(layer.non_trainable_variables, values, strict=True):
                variable.assign(value)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Measures the statistics of the averages, which Keras leaves in the model."""
        self._measure()

    def _network(self) -> Any:
        return getattr(self.model, "student", self.model)

    def _norms(self) -> list[Any]:
        return [
            x for x in _layers(self._network()) if isinstance(x, keras.layers.BatchNormalization)
        ]

    def _measure(self) -> None:
        norms = self._norms()
        if not norms:
            return
        momenta = [layer.momentum for layer in norms]
        for index, (views, *_) in enumerate(self._validation):
            for layer in norms:
                layer.momentum = index / (index + 1)  # the plain mean over the batches
            self._network()(_noisy_of(views), training=True)
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum


def _layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)


def _noisy_of(views: Any) -> Any:
    return views["first_view"] if isinstance(views, dict) else views


def remove_checkpoint(folder: Path) -> None:
    """Removes what `fit_stage` keeps in `folder` to resume from."""
    shutil.rmtree(folder / _RESUME, ignore_errors=True)


class Checkpoint(keras.callbacks.Callback):
    """Writes weights, optimizer and seeds after every epoch.

    The record with the number of epochs and the SHA-256 of the weights is written
    last, so whatever interrupts, the newest whole checkpoint is the one that counts.

    Args:
        folder: Folder of its own.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        """Replaces the checkpoint."""
        path = self._folder / f"epoch_{epoch + 1}.keras"
        # Not `save_weights`: HDF5 on a full disk crashes the process, an archive raises.
        with atomic_path(path) as temporary:
            self.model.save(temporary)
        record = {"epochs": epoch + 1, "file": path.name, "sha256": sha256_of(path)}
        write_json(self._folder / _RECORD, record)
        for other in self._folder.glob("epoch_*"):
            if other != path:
                other.unlink()


def read_history(folder: Path) -> dict[str, list[float]]:
    """Returns the metrics per epoch that `fit_stage` wrote into `folder`."""
    path = folder / _HISTORY
    return _read_history_file(path) if path.is_file() else {}


def _read_history_file(path: Path) -> dict[str, list[float]]:
    """Returns what `HistoryFile` wrote; JSON has null for a value that was not finite."""
    return {
        name: [float("nan") if value is None else value for value in values]
        for name, values in read_json(path).items()
    }


class HistoryFile(keras.callbacks.Callback):
    """Writes the metrics of every epoch to a JSON file, across interruptions.

    Args:
        path: File to write.
        keep: Epochs of an interrupted run to keep.
    """

    def __init__(self, path: Path, keep: int = 0):
        super().__init__()
        self._path = path
        stored = _read_history_file(path) if keep and path.is_file() else {}
        self._history = {name: values[:keep] for name, values in stored.items()}

    def values_of(self, name: str) -> list[float]:
        """Returns the values of a metric in the epochs so far."""
        return self._history.get(name, [])

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        """Appends one value per metric."""
        for name, value in (logs or {}).items():
            self._history.setdefault(name, [])[epoch:] = [float(value)]
        write_json(self._path, self._history)
