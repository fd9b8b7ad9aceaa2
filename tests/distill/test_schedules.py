# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.distill.schedules import SCHEDULES


@pytest.mark.parametrize(
    ("name", "step", "supervised", "distillation"),
    [
        ("joint", 0, 1.0, 1.0),
        ("joint", 99, 1.0, 1.0),
        ("two_step", 0, 0.0, 1.0),
        ("two_step", 9, 0.0, 1.0),
        ("two_step", 10, 1.0, 0.0),
        ("two_step", 99, 1.0, 0.0),
        ("warm_up", 0, 1.0, 0.0),
        ("warm_up", 5, 1.0, 0.5),
        ("warm_up", 10, 1.0, 1.0),
        ("warm_up", 99, 1.0, 1.0),
        ("decay", 0, 1.0, 1.0),
        ("decay", 4, 1.0, 0.6),
        ("decay", 10, 1.0, 0.0),
        ("decay", 99, 1.0, 0.0),
    ],
)
def test_factors_on_supervision_and_distillation(name, step, supervised, distillation):
    factors = SCHEDULES[name](np.float32(step), 10)
    np.testing.assert_allclose([float(f) for f in factors], [supervised, distillation], atol=1e-6)
