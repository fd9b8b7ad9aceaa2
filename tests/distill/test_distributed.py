# SPDX-License-Identifier: Apache-2.0
"""Several replicas and several processes against one process with the whole batch."""

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import keras
import numpy as np
import pytest

WORKER = Path(__file__).with_name("worker.py")
NUM_WORKERS = 2
# Gradients and moments are summed in another order, and Adam divides by their size.
TOLERANCE = 1e-6

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute belongs to TensorFlow"
)


def start(result, project_root, *arguments, **variables):
    environment = {
        **os.environ,
        "PYTHONPATH": str(project_root),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **variables,
    }
    command = [sys.executable, str(WORKER), str(result), *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process, result):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return json.loads(result.read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory, project_root):
    """Result of one process."""
    result = tmp_path_factory.mktemp("alone") / "result.json"
    return finish(start(result, project_root), result)


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def assert_same(found, expected):
    for one, other in zip(found["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)
    for name, values in expected["history"].items():
        np.testing.assert_allclose(found["history"][name], values, rtol=1e-5)
    assert found["scores"] == pytest.approx(expected["scores"], rel=1e-5)


def test_two_replicas_train_and_evaluate_as_one_with_the_whole_batch(alone, tmp_path, project_root):
    result = tmp_path / "result.json"
    assert_same(finish(start(result, project_root, "2"), result), alone)


def test_two_processes_train_and_evaluate_as_one_with_the_whole_batch(
    alone, tmp_path, project_root
):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(NUM_WORKERS)]
    runs = []
    for index in range(NUM_WORKERS):
        task = {"type": "worker", "index": index}
        cluster = json.dumps({"cluster": {"worker": addresses}, "task": task})
        result = tmp_path / f"result_{index}.json"
        runs.append((start(result, project_root, TF_CONFIG=cluster), result))
    for run in runs:
        assert_same(finish(*run), alone)
