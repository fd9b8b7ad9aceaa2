# SPDX-License-Identifier: Apache-2.0
"""Trains a small distiller alone or as one of several workers; run by test_distributed.py.

Usage: python worker.py RESULT [NUM_REPLICAS], with TF_CONFIG set for several workers.
"""

import json
import os
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.objective import Objective

WIDTH, GLOBAL_BATCH, NUM_BATCHES = 6, 8, 3


def network(channels: int) -> keras.Model:
    """Input (6) -> latent -> output (6), without batch norm: each replica has its own."""
    inputs = keras.Input((WIDTH,))
    x = keras.layers.Dense(channels, activation="tanh", name="early")(inputs)
    x = keras.layers.Dense(channels, activation="tanh", name="latent")(x)
    return keras.Model(inputs, keras.layers.Dense(WIDTH)(x))


def pairs() -> tf.data.Dataset:
    """The same batches in every process; each worker takes its part of each."""
    rng = np.random.default_rng(0)
    first, second, speech = rng.normal(size=(3, GLOBAL_BATCH * NUM_BATCHES, WIDTH))
    signals = [signal.astype(np.float32) for signal in (first, second, speech)]
    views = {"first_view": signals[0], "second_view": signals[1]}
    examples: Any = (views, signals[2])
    dataset = tf.data.Dataset.from_tensor_slices(examples).batch(GLOBAL_BATCH)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def strategy_of(num_replicas: int) -> tf.distribute.Strategy:
    """Several workers if TF_CONFIG says so, else several replicas on this machine."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if num_replicas == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * num_replicas
    tf.config.set_logical_device_configuration(cpu, logical)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_replicas)])


def main() -> None:
    """Trains two epochs, evaluates, and writes the weights and the logs."""
    strategy = strategy_of(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        distiller = LatentMixupDistiller(
            teacher=network(7),
            student=network(4),
            taps=[("bottleneck", "latent", "latent")],
            objective=Objective(output_weight=1.0),
            seed=1,
        )
        distiller.compile(keras.optimizers.Adam(0.01), loss="mse")
    history = distiller.fit(pairs(), epochs=2, verbose=0, shuffle=False).history
    scores = distiller.evaluate(pairs(), verbose=0, return_dict=True)
    result = {
        "weights": [np.asarray(w).tolist() for w in distiller.student.get_weights()],
        "history": history,
        "scores": {name: float(value) for name, value in scores.items()},
    }
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
