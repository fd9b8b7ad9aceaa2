# SPDX-License-Identifier: Apache-2.0
"""`lmkd-train --network`: one network on its own, also after `kill -9`."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lmkd_tf.cli.common import config_path
from lmkd_tf.cli.road import Listener, Road
from lmkd_tf.cli.training import read_history
from lmkd_tf.config.loader import load
from lmkd_tf.models.enhancer import load_enhancer
from tests.workflow.road import finish, run_program

OVERRIDES = (
    "network.channels=16",
    "network.dilations=1,2",
    "network.num_bands=32",
    "network_training.epochs=3",
    "network_training.steps_per_epoch=5",
    "network_training.batch_size=2",
    "network_training.num_scored_clips=2",
    "data.crop_seconds=0.512",
    "data.num_validation_batches=2",
)
# How far a resumed run may be from an uninterrupted one: sums of several threads.
LOSS_TOLERANCE = WEIGHT_TOLERANCE = 1e-4

_KILLED = """
import os, signal, sys
from pathlib import Path
import keras
from lmkd_tf.cli.road import Listener
from tests.cli.test_train import open_road

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 2):
            os.kill(os.getpid(), signal.SIGKILL)

road = open_road(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
road.run("network", Listener((Kill(),)))
"""


def open_road(corpus, workdir, *overrides):
    config = load(config_path("default"), ["network.architecture=tcn", *OVERRIDES, *overrides])
    return Road(config, workdir, corpus, is_distilling=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Trees of noise in bursts and steady noise, which need no other program to be made."""
    root, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    bursts = np.arange(32000) / 8000 % 1 < 0.5
    for number in range(12):
        for tree, shape in (("speech", bursts), ("noise", 1.0)):
            path = root / tree / f"g{number}" / f"{number}.wav"
            path.parent.mkdir(parents=True)
            soundfile.write(path, rng.normal(0.0, 0.1, 32000) * shape, 16000)
    return root


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    open_road(corpus, workdir).run("network", Listener())
    return workdir / "network"


def test_network_is_trained_scored_and_saved(whole):
    names = {path.name for path in whole.iterdir()}
    assert names == {"history.json", "network.keras", "record.json", "stage.json"}
    history = read_history(whole)
    assert {"loss", "val_loss", "val_pesq_wb", "val_si_sdr_db"} <= history.keys()
    assert all(len(values) == 3 for values in history.values())
    assert not {"metric_loss", "discriminator_loss"} & history.keys()
    assert load_enhancer(whole / "network.keras").core.get_layer("encoder").filters == 16


def run_and_kill(corpus, workdir, *overrides):
    """Starts a run that is killed in its second epoch."""
    root = Path(__file__).resolve().parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(corpus), str(workdir), *overrides],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert len(read_history(workdir / "network")["loss"]) == 1
    assert not (workdir / "network" / "network.keras").exists()


def assert_same_run(folder, wanted_folder):
    wanted = read_history(wanted_folder)
    for name, values in read_history(folder).items():
        assert values == pytest.approx(wanted[name], rel=LOSS_TOLERANCE, abs=LOSS_TOLERANCE)
    models = [load_enhancer(path / "network.keras") for path in (folder, wanted_folder)]
    for weight, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(weight, other, atol=WEIGHT_TOLERANCE)


def test_run_that_was_killed_goes_on_as_if_it_had_not_been(corpus, whole, tmp_path):
    run_and_kill(corpus, tmp_path)
    open_road(corpus, tmp_path).run("network", Listener())
    assert_same_run(tmp_path / "network", whole)


def test_killed_run_against_a_discriminator_goes_on_as_if_it_had_not_been(corpus, tmp_path):
    overrides = ("network_training.metric_weight=0.5", "network_training.epochs=2")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    open_road(corpus, whole, *overrides).run("network", Listener())
    run_and_kill(corpus, resumed, *overrides)
    open_road(corpus, resumed, *overrides).run("network", Listener())
    assert {"metric_loss", "discriminator_loss"} <= read_history(whole / "network").keys()
    assert_same_run(resumed / "network", whole / "network")


def test_program_trains_the_network_that_the_flag_names(corpus, tmp_path):
    arguments = [f"--override={override}" for override in OVERRIDES]
    arguments += [f"--data={corpus}", f"--workdir={tmp_path}", "--network=nano"]
    arguments += ["--override=network_training.epochs=1"]
    run = finish(run_program("train", *arguments))
    assert run.status == 0, run.stderr
    pattern = (
        rf"network: {re.escape(str(tmp_path / 'network'))}\nnetwork: trained at \d+ x real time"
    )
    assert re.fullmatch(pattern + "\n", run.stdout)
    assert run.leftovers == ()
    assert load_enhancer(tmp_path / "network" / "network.keras").num_bands == 32
