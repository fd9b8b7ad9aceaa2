# SPDX-License-Identifier: Apache-2.0
"""Measures what a step of distillation costs, side by side in one run.

Usage:
  ./x bench distill [--config=bench_kd] [--rounds=15] [--xla]

Compares a training step of the distiller with the passes that it cannot do without (both views
forward and backward through the student, forward through the teacher up to the tap, the student's
tail on the mixed latent), and with `keras.distillation.Distiller` on the same two views with one
feature loss. All rows take turns, so that a busy machine is busy for all of them; times are
medians of the rounds, ratios are medians of the rounds' ratios.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from lmkd_tf.cli.common import config_path, run_program

OURS = "latent_mixup"
KERAS = "keras.distillation.Distiller, one feature loss"
_NUM_WARM_UPS = 2
_MS_PER_S = 1000.0


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    from lmkd_tf.cli.distill_steps import StepFactory
    from lmkd_tf.config.loader import load

    values = flags.FLAGS
    factory = StepFactory(load(config_path(values.config), values.override), values.xla)
    passes = factory.passes()
    times_s = measure({**passes, **_steps(factory)}, values.rounds)
    sys.stdout.write(to_table(times_s, list(passes)))


def _steps(factory: Any) -> dict[str, Callable[[], Any]]:
    steps = {method: factory.distillation(method) for method in (OURS, "fitnets", "no_kd")}
    steps[f"{OURS}, teacher's latents cached"] = factory.distillation(OURS, is_cached=True)
    if importlib.util.find_spec("keras.distillation"):
        steps[KERAS] = factory.keras_distillation()
    else:
        sys.stdout.write("keras.distillation: skipped, this Keras is older than 3.12\n")
    return steps


def measure(steps: dict[str, Callable[[], Any]], num_rounds: int) -> dict[str, np.ndarray]:
    """Runs steps in turns.

    Args:
        steps: Name to step.
        num_rounds: How often each is timed.

    Returns:
        Name to wall and process CPU time of each round, `(num_rounds, 2)`, in s.
    """
    from lmkd_tf.cli.progress import Progress

    times_s: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    total = (_NUM_WARM_UPS + num_rounds) * len(steps)
    with Progress("steps", total) as progress:
        for index in range(total):
            name = list(steps)[index % len(steps)]
            times_s[name].append(_time(steps[name]))
            progress.update(index + 1, name)
    return {name: np.array(rows[_NUM_WARM_UPS:]) for name, rows in times_s.items()}


def _time(step: Callable[[], Any]) -> tuple[float, float]:
    import tensorflow as tf

    start = time.perf_counter(), time.process_time()
    step()
    tf.test.experimental.sync_devices()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def to_table(times_s: dict[str, np.ndarray], passes: list[str]) -> str:
    """Formats times as a table in ms, followed by the ratios.

    Args:
        times_s: What `measure` returned.
        passes: Names of the passes that a step of latent mixup cannot do without.

    Returns:
        Text of several lines.
    """
    lines = [f"{'one step':48s} {'wall ms':>9s} {'CPU ms':>9s}"]
    for name, rows in times_s.items():
        wall_ms, cpu_ms = _MS_PER_S * np.median(rows, axis=0)
        lines.append(f"{name:48s} {wall_ms:9.1f} {cpu_ms:9.1f}")
    unavoidable = sum(times_s[name] for name in passes)
    lines += ["", _ratio(f"{OURS} / its passes (target 1.15)", times_s[OURS] / unavoidable)]
    if KERAS in times_s:
        lines += [
            _ratio(f"{name} / keras.distillation", times_s[name] / times_s[KERAS])
            for name in (OURS, "fitnets")
        ]
    return "\n".join(lines) + "\n"


def _ratio(name: str, ratios: np.ndarray) -> str:
    wall, cpu = np.median(ratios, axis=0)
    return f"{name:48s} {wall:9.3f} {cpu:9.3f}"


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("config", "bench_kd", "Configuration: a file, or a name in configs/.")
    flags.DEFINE_multi_string("override", [], "Setting to change.")
    flags.DEFINE_integer("rounds", 15, "How often each step is timed.", lower_bound=1)
    flags.DEFINE_boolean("xla", False, "Compile the steps with XLA.")
    run_program(main, __doc__ or "", ("config", "override", "rounds", "xla"))


if __name__ == "__main__":
    run()
