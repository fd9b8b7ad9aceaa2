# SPDX-License-Identifier: Apache-2.0
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.models.builder import build_core
from tests.workflow.road import FinishedRoad, finished_road

NUM_BANDS = 12
SIZE = {"num_bands": NUM_BANDS, "channels": 8, "dilations": (1, 2)}


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> FinishedRoad:
    return finished_road(tmp_path_factory)


@pytest.fixture
def build() -> Callable[..., Any]:
    """Builder of a very small student."""
    return functools.partial(build_core, "tcn", **SIZE)


@pytest.fixture
def core(build, seeded) -> Any:
    """Keras core whose normalization statistics are not those of a fresh network."""
    core = build()
    rng = np.random.default_rng(seeded)
    for layer in core.layers:
        if "norm" in layer.name:
            gamma, beta, mean, variance = layer.get_weights()
            gamma = rng.uniform(0.5, 1.5, gamma.shape)
            beta, mean = rng.normal(0, 0.3, beta.shape), rng.normal(0, 0.3, mean.shape)
            layer.set_weights([gamma, beta, mean, rng.uniform(0.5, 1.5, variance.shape)])
    return core


@pytest.fixture
def features() -> np.ndarray:
    """Features, float32, `(3, 20, 1, E)`."""
    rng = np.random.default_rng(7)
    return rng.normal(0.1, 0.5, (3, 20, 1, NUM_BANDS)).astype(np.float32)


@pytest.fixture
def distill(build) -> Callable[..., LatentMixupDistiller]:
    """Function that trains a `tf_keras` core inside the distiller, on features and masks."""

    def train(core: Any, num_steps: int, callbacks: tuple[Any, ...] = (), epochs: int = 1):
        taps = [("bottleneck", "block_2", "block_2")]
        distiller = LatentMixupDistiller(teacher=build(), student=core, taps=taps)
        distiller.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
        rng = np.random.default_rng(0)
        draw = rng.normal(0, 0.5, (2, 8 * num_steps, 10, 1, NUM_BANDS)).astype(np.float32)
        views = {"first_view": draw[0], "second_view": draw[1]}
        target = (draw[0] > 0).astype(np.float32)
        examples: Any = (views, target)
        pairs = tf.data.Dataset.from_tensor_slices(examples).batch(8).repeat()
        distiller.fit(
            pairs,
            epochs=epochs,
            steps_per_epoch=num_steps // epochs,
            callbacks=list(callbacks),
            shuffle=False,
            verbose=0,
        )
        return distiller

    return train
