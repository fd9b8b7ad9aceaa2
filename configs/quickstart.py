# SPDX-License-Identifier: Apache-2.0
"""The whole road in a few minutes on two cores."""

from dataclasses import replace

from configs.default import get_config as get_default
from lmkd_tf.config.schema import CompressConfig, ExperimentConfig, TrainConfig


def get_config() -> ExperimentConfig:
    """Returns the default road, shortened."""
    default = get_default()
    brief = TrainConfig(epochs=2, steps_per_epoch=60, weight_decay=0.0, warmup_steps=10)
    return replace(
        default,
        name="quickstart",
        teacher_preset="base",
        data=replace(default.data, num_validation_batches=4, num_evaluation_clips=20),
        distillation_training=TrainConfig(epochs=6, steps_per_epoch=75, batch_size=16),
        compress=CompressConfig(
            sparsity=0.5,
            pruning=replace(brief, learning_rate=5e-4),
            quantization=replace(brief, learning_rate=2e-4),
        ),
    )
