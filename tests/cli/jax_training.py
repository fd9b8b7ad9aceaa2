# SPDX-License-Identifier: Apache-2.0
"""A process that trains on JAX where TensorFlow cannot be imported; see test_train_on_jax.py.

Usage: jax_training.py CORPUS WORKDIR first|second
"""

import importlib.abc
import os
import signal
import sys
from pathlib import Path

_ABSENT = ("tensorflow", "tf_keras", "tensorflow_model_optimization", "ai_edge_litert")


class _Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        del path, target
        if fullname.split(".")[0] in _ABSENT:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


if __name__ == "__main__":  # a test run that only collects this file needs TensorFlow
    os.environ["KERAS_BACKEND"] = "jax"
    sys.meta_path.insert(0, _Refuse())

import keras  # noqa: E402

from lmkd_tf.cli.common import config_path  # noqa: E402
from lmkd_tf.cli.road import Listener, Road  # noqa: E402
from lmkd_tf.config.loader import load  # noqa: E402

NETWORK = (
    "network.architecture=tcn",
    "network.channels=8",
    "network.dilations=1",
    "network.num_bands=32",
    "network_training.epochs=2",
    "network_training.steps_per_epoch=4",
    "network_training.batch_size=2",
    "network_training.num_scored_clips=2",
    "data.crop_seconds=0.512",
    "data.num_validation_batches=1",
)
DISTILLING = (
    *("teacher.architecture=tcn", "student.architecture=tcn"),
    *("teacher.channels=8", "teacher.dilations=1", "teacher.num_bands=32"),
    *("student.channels=4", "student.dilations=1", "student.num_bands=32"),
    "distill.taps=(('bottleneck','block_1','block_1'),)",
    *(
        f"{stage}_training.{setting}"
        for stage in ("teacher", "distillation")
        for setting in ("epochs=1", "steps_per_epoch=2", "batch_size=2")
    ),
    *("data.crop_seconds=0.512", "data.num_validation_batches=1"),
)


class Kill(keras.callbacks.Callback):
    """`kill -9` in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)


def train(corpus: Path, workdir: Path, *callbacks: keras.callbacks.Callback) -> None:
    road = Road(load(config_path("default"), NETWORK), workdir, corpus, is_distilling=False)
    road.run("network", Listener(callbacks))


def distill(corpus: Path, workdir: Path) -> None:
    road = Road(load(config_path("smoke"), DISTILLING), workdir, corpus)
    for stage in ("teacher", "student"):
        road.run(stage, Listener())


def resume_by_program(corpus: Path, workdir: Path) -> None:
    from lmkd_tf.cli.train import run

    chosen = [f"--override={override}" for override in NETWORK]
    places = [f"--data={corpus}", f"--workdir={workdir}"]
    sys.argv = ["lmkd-train", "--backend=jax", "--network=tcn", *places, *chosen]
    run()


def main(corpus: Path, workdir: Path, run: str) -> None:
    if run == "first":
        train(corpus, workdir / "whole")
        train(corpus, workdir / "cut", Kill())
    distill(corpus, workdir / "distilled")
    resume_by_program(corpus, workdir / "cut")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
