# SPDX-License-Identifier: Apache-2.0
"""What the conformance suite needs; also the program that runs every network on JAX.

    KERAS_BACKEND=jax python -m tests.models.conformance FOLDER

reads `<name>.npz` (weights and features) and writes `<name>.out.npz` (what the core computes, and
the multiply-accumulate operations in the trace of its step graph).
"""

import sys
from math import prod
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lmkd_tf.models.builder import ARCHITECTURES, build, build_core, is_streaming

NETWORKS = list(ARCHITECTURES)
CAUSAL = [name for name in NETWORKS if not name.startswith("cmgan")]
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


def traced_macs(step):
    """Counts the multiply-accumulate operations of a step graph in what JAX traces."""
    import jax

    zeros = [np.zeros(tensor.shape, np.float32) for tensor in step.inputs]
    trace = jax.make_jaxpr(lambda *values: step(list(values), training=False))(*zeros)
    return sum(_macs_of(equation) for equation in _equations(trace.jaxpr))


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)  # a function that was compiled on its own
            if inner is not None:
                yield from _equations(inner)


def _macs_of(equation):
    """Values that come out, times the products that each of them sums."""
    name, size = equation.primitive.name, prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return size * prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return size * prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 0


def main(folder):
    """Runs the networks of a folder on JAX."""
    for path in sorted(Path(folder).glob("*.npz")):
        name = path.stem
        core = build_core(name, **SMALLER.get(name, {}))
        with np.load(path) as stored:
            count = len(core.get_weights())
            core.set_weights([stored[f"arr_{index}"] for index in range(count)])
            output = np.asarray(core.predict(stored["features"], verbose=0))
        macs = traced_macs(build_core(name, is_step=True)) if name in STREAMING else 0
        np.savez(path.with_suffix(".out.npz"), output=output, macs=macs)


if __name__ == "__main__":
    main(sys.argv[1])
