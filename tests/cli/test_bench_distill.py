# SPDX-License-Identifier: Apache-2.0
import numpy as np

from lmkd_tf.cli.bench_distill import KERAS, OURS, measure, to_table


def test_steps_take_turns_and_the_first_rounds_are_not_counted():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in ("one", "other")}
    times_s = measure(steps, num_rounds=3)
    assert calls == ["one", "other"] * 5
    assert {name: rows.shape for name, rows in times_s.items()} == {"one": (3, 2), "other": (3, 2)}


def test_ratios_are_medians_of_the_ratios_of_the_rounds():
    def rounds(*wall_s):
        return np.stack([wall_s, np.full(3, 0.5)], axis=1)

    times_s = {
        "head": rounds(0.1, 0.2, 0.9),
        "tail": rounds(0.1, 0.2, 0.1),
        OURS: rounds(0.3, 0.4, 3.0),  # 1.5, 1.0 and 3.0 times its passes
        "fitnets": rounds(0.1, 0.1, 0.1),
        KERAS: rounds(0.2, 0.8, 1.0),  # ours takes 1.5, 0.5 and 3.0 times as long
    }
    lines = to_table(times_s, ["head", "tail"]).splitlines()
    assert lines[1].split()[-2:] == ["200.0", "500.0"]
    assert lines[3].split()[-2:] == ["400.0", "500.0"]
    assert lines[-3].split()[-2:] == ["1.500", "0.500"]
    assert lines[-2].split()[-2:] == ["1.500", "1.000"]
    assert lines[-1].split()[-2:] == ["0.125", "1.000"]
