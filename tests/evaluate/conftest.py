# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig


class IdentityBackend:
    """Gains of one: the signal must come out unchanged."""

    stft, num_bands, name = StftConfig(), 32, "identity"

    def reset(self):
        pass

    def gains(self, features):
        return np.ones_like(features)


class MemoryBackend:
    """Gains that follow the smoothed level of the past, frame by frame."""

    stft, num_bands, name = StftConfig(), 32, "memory"

    def __init__(self):
        self.num_resets = 0
        self.reset()

    def reset(self):
        self.num_resets += 1
        self.level = np.zeros(self.num_bands, np.float32)

    def gains(self, features):
        gains = np.empty_like(features)
        for index, frame in enumerate(features):
            self.level = np.float32(0.8) * self.level + np.float32(0.2) * frame
            gains[index] = 1.0 / (1.0 + np.exp(-self.level))
        return gains


@pytest.fixture
def identity_backend():
    return IdentityBackend()


@pytest.fixture
def memory_backend():
    return MemoryBackend()


@pytest.fixture
def make_identity():
    return IdentityBackend


@pytest.fixture
def make_memory():
    return MemoryBackend


@pytest.fixture
def signal():
    return (0.1 * np.random.default_rng(0).standard_normal(20000)).astype(np.float32)
