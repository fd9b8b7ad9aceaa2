# SPDX-License-Identifier: Apache-2.0
import itertools
import socket
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.service import serve
from lmkd_tf.data.sharded_pairs import served_pairs, write_pair_shards

NUM_PAIRS = 60


@pytest.fixture
def folder(make_store, tmp_path):
    speech = make_store([0.2 * np.sin(np.arange(9000) * step) for step in (0.1, 0.2)])
    noise = make_store([0.01 * np.random.default_rng(0).uniform(-1, 1, 9000)])
    source = PairSource(speech, noise, MixSettings(crop_seconds=0.1), 1, 0)
    write_pair_shards(source, tmp_path / "pairs", num_pairs=NUM_PAIRS, pairs_per_shard=6)
    return tmp_path / "pairs"


@pytest.fixture
def start():
    """Function `(role, *arguments) -> (process, its first line)`; all are ended afterwards."""
    processes = []

    def run(role, *arguments):
        command = [sys.executable, "-m", "lmkd_tf.cli.data", "serve", role, *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield run
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def pairs_of(batches):
    return [int(pair) for _, _, numbers in batches for pair in numbers.numpy()]


def test_two_worker_processes_visit_every_pair_exactly_once(folder, start):
    _, line = start("dispatcher")
    address = line.removeprefix("ready: ")
    for _ in range(2):
        _, ready = start("worker", f"--dispatcher={address}")
        assert ready == f"ready: worker of {address}"
    for epoch in (0, 1):
        batches = served_pairs(folder, address=address, batch_size=4, seed=0, epoch=epoch)
        assert Counter(pairs_of(batches)) == Counter(range(NUM_PAIRS))
    # Two trainers with one job share an epoch: nothing twice, nothing left out.
    trainers = [
        iter(served_pairs(folder, address=address, batch_size=4, seed=0, epoch=2, job="run"))
        for _ in range(2)
    ]
    taken = [batch for both in itertools.zip_longest(*trainers) for batch in both if batch]
    assert Counter(pairs_of(taken)) == Counter(range(NUM_PAIRS))


def test_worker_that_is_killed_and_comes_back_repeats_no_pair(folder, start):
    _, line = start("dispatcher")
    arguments = [f"--dispatcher={line.removeprefix('ready: ')}"]
    ports = [f"--port={free_port()}" for _ in range(2)]
    workers = [start("worker", *arguments, port)[0] for port in ports]
    served = {"address": line.removeprefix("ready: "), "batch_size": 1, "seed": 0}
    batches = iter(served_pairs(folder, **served))
    seen = pairs_of(next(batches) for _ in range(5))
    workers[0].kill()
    workers[0].wait()
    start("worker", *arguments, ports[0])
    seen += pairs_of(batches)
    assert max(Counter(seen).values()) == 1
    assert len(seen) >= NUM_PAIRS / 3  # the shards of one worker of two may be lost
    again = served_pairs(folder, epoch=1, **served)
    assert Counter(pairs_of(again)) == Counter(range(NUM_PAIRS))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(("role", "dispatcher"), [("king", None), ("worker", None)])
def test_wrong_role_and_worker_without_dispatcher_are_refused(role, dispatcher):
    with pytest.raises(ValueError, match=f"Received role='{role}', dispatcher=None"):
        serve(role, dispatcher=dispatcher)
