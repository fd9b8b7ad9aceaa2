# SPDX-License-Identifier: Apache-2.0
"""The budget of `./x bench kd`: the smallest student, briefly trained, from a shipped teacher."""

from dataclasses import replace

from configs.default import get_config as get_default
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig, TrainConfig


def get_config() -> ExperimentConfig:
    """Returns the default road with a short distillation."""
    default = get_default()
    return replace(
        default,
        name="bench_kd",
        teacher_preset="small",
        teacher=ModelConfig("small"),
        data=replace(
            default.data, crop_seconds=1.024, num_validation_batches=4, num_evaluation_clips=50
        ),
        distillation_training=TrainConfig(
            epochs=6, steps_per_epoch=100, batch_size=8, learning_rate=2e-3
        ),
    )
