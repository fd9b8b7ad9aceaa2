# SPDX-License-Identifier: Apache-2.0
"""Measures a student on every back-end, side by side in one run.

Usage:
  ./x bench [--preset=NAME] [--seconds=60]

Prints the speed over real time (transforms included) and its ratio to Keras.
"""

import sys
import time
from typing import Any

import numpy as np
from absl import flags

from lmkd_tf.cli.common import run_program

_NUM_ROUNDS = 3


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    from lmkd_tf.cli.enhance import choose_backend
    from lmkd_tf.evaluate.backends import BACKENDS

    preset, seconds = flags.FLAGS.preset, flags.FLAGS.seconds
    enhancers = {kind: _Timed(choose_backend(preset, None, kind)()) for kind in BACKENDS}
    noise = np.random.default_rng(0).normal(0.0, 0.1, int(seconds * 16000)).astype(np.float32)
    for _ in range(_NUM_ROUNDS):  # in turns, so that a busy machine is busy for all of them
        for enhancer in enhancers.values():
            enhancer.run(noise)
    keras_s = enhancers["keras"].best_s
    for kind, enhancer in enhancers.items():
        speed = seconds / enhancer.best_s
        ratio = keras_s / enhancer.best_s
        sys.stdout.write(f"{kind:8s} {speed:8.1f} x real time   {ratio:6.2f} x keras\n")


class _Timed:
    def __init__(self, backend: Any):
        from lmkd_tf.evaluate.streaming import StreamingEnhancer

        self._enhancer = StreamingEnhancer(backend)
        self._enhancer.enhance(np.zeros(16000, np.float32))  # builds graphs
        self.best_s = float("inf")

    def run(self, samples: np.ndarray) -> None:
        start_s = time.perf_counter()
        self._enhancer.enhance(samples)
        self.best_s = min(self.best_s, time.perf_counter() - start_s)


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("preset", "nano", "Network that ships with the package.")
    flags.DEFINE_float("seconds", 60.0, "Length of the test signal, in s.", lower_bound=1.0)
    run_program(main, __doc__ or "", ("preset", "seconds"))


if __name__ == "__main__":
    run()
