# SPDX-License-Identifier: Apache-2.0
"""The control: the same student on the same pairs, without the teacher."""

from dataclasses import replace

from configs.default import get_config as get_default
from lmkd_tf.config.schema import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Returns the default road without distillation."""
    default = get_default()
    return replace(
        default,
        name="student_scratch",
        teacher_preset="base",
        distill=replace(default.distill, method="no_kd"),
    )
