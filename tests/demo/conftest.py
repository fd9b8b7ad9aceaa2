# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.demo.server import Demo, Limits, open_socket, server_of
from tests.demo.browser import wait_for


class MemoryBackend:
    """Gains that follow the smoothed level of the past, frame by frame."""

    stft, num_bands, name = StftConfig(), 32, "memory"

    def __init__(self):
        self.reset()

    def reset(self):
        self.level = np.zeros(self.num_bands, np.float32)

    def gains(self, features):
        gains = np.empty_like(features)
        for index, frame in enumerate(features):
            self.level = np.float32(0.8) * self.level + np.float32(0.2) * frame
            gains[index] = 1.0 / (1.0 + np.exp(-self.level))
        return gains


@dataclass(frozen=True)
class Served:
    """A demo that runs on a port of its own."""

    demo: Demo
    host: str

    @property
    def page(self) -> str:
        return f"http://{self.host}/?token={self.demo.token}"

    @property
    def stream(self) -> str:
        return f"ws://{self.host}/stream?token={self.demo.token}"


@pytest.fixture
def make_backend():
    return MemoryBackend


@pytest.fixture
def serve(make_backend) -> Iterator[Callable[..., Served]]:
    """Function that starts a demo with certain limits."""
    running = []

    def start(
        limits: Limits | None = None, model_name: str = "memory", name: str = "127.0.0.1"
    ) -> Served:
        socket = open_socket("127.0.0.1", 0)
        host = f"{name}:{socket.getsockname()[1]}"
        demo = Demo(make_backend, model_name, [host], limits)
        server = server_of(demo.app())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        running.append((server, thread, socket))
        wait_for(lambda: server.started, "server")
        return Served(demo, host)

    yield start
    for server, thread, socket in running:
        server.should_exit = True
        thread.join(timeout=30)
        socket.close()


@pytest.fixture
def recording():
    """A second and a bit of int16 samples, no whole number of hops."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(20001)
    return np.round(32768 * samples).astype(np.int16)
