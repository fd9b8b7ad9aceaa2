# SPDX-License-Identifier: Apache-2.0
"""What the conformance suite needs; also the program that runs every network on JAX.

    KERAS_BACKEND=jax python -m tests.models.conformance FOLDER

reads `<name>.npz` (weights and features) and writes `<name>.npy` (what the core computes).
"""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lmkd_tf.models.builder import ARCHITECTURES, build, build_core, is_streaming

NETWORKS = list(ARCHITECTURES)
STREAMING = [name for name in NETWORKS if is_streaming(name)]
# Sizes other than an architecture's own, where that would take a test too long.
SMALLER: dict[str, dict[str, Any]] = {
    "cmgan": {"channels": 8, "num_blocks": 1},
    "cmgan_student": {"num_blocks": 1},
}


def random_enhancer(name, seed=0):
    """An untrained `SpeechEnhancer` with statistics and slopes far from their initial ones."""
    keras.utils.set_random_seed(seed)
    model = build(name, **SMALLER.get(name, {}))
    rng = np.random.default_rng(seed)
    for layer in model.core.layers:
        if "Normalization" in type(layer).__name__:
            values = [rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()]
            layer.set_weights(values)
    return model


def random_features(core, num_frames, seed=1):
    """Features `(1, T, ...)` about as large as those of speech."""
    shape = (1, num_frames, *core.input_shape[2:])
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def run_steps(step, features):
    """Masks `(1, T, ...)` of a step graph, the state carried from zeros."""
    import tensorflow as tf

    run = tf.function(lambda *values: step(list(values), training=False))
    states = [np.zeros(tensor.shape, np.float32) for tensor in step.inputs[1:]]
    masks = []
    for frame in range(features.shape[1]):
        mask, *states = run(features[:, frame : frame + 1], *states)
        masks.append(np.asarray(mask))
    return np.concatenate(masks, axis=1)


def snr_db(reference, other):
    """Energy of the reference over that of the difference, in dB."""
    reference = np.asarray(reference, np.float64)
    error = np.sum((reference - other) ** 2)
    return 10 * np.log10(np.sum(reference**2) / max(error, 1e-30))


def main(folder):
    """Runs the networks of a folder on the back-end of this process."""
    for path in sorted(Path(folder).glob("*.npz")):
        core = build_core(path.stem, **SMALLER.get(path.stem, {}))
        with np.load(path) as stored:
            count = len(core.get_weights())
            core.set_weights([stored[f"arr_{index}"] for index in range(count)])
            output = core.predict(stored["features"], verbose=0)
        np.save(path.with_suffix(".npy"), np.asarray(output))


if __name__ == "__main__":
    main(sys.argv[1])
