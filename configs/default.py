# SPDX-License-Identifier: Apache-2.0
"""The whole road from random weights; what the other configurations are made from."""

from dataclasses import replace

from lmkd_tf.config.schema import CompressConfig, ExperimentConfig, ModelConfig, TrainConfig


def get_config() -> ExperimentConfig:
    """Returns the configuration; other files replace parts of it."""
    brief = TrainConfig(steps_per_epoch=300, batch_size=8, weight_decay=0.0)
    return ExperimentConfig(
        name="default",
        teacher=ModelConfig(architecture="base"),
        student=ModelConfig(architecture="nano"),
        teacher_training=TrainConfig(
            epochs=16, steps_per_epoch=250, batch_size=8, learning_rate=1.5e-3
        ),
        distillation_training=TrainConfig(
            epochs=24, steps_per_epoch=400, batch_size=8, learning_rate=2e-3
        ),
        network_training=TrainConfig(
            epochs=24,
            steps_per_epoch=400,
            batch_size=8,
            learning_rate=2e-3,
            ema_momentum=0.999,
            num_scored_clips=8,
            monitor="val_pesq_wb",
        ),
        compress=CompressConfig(
            sparsity=0.5,
            pruning=replace(brief, epochs=3, learning_rate=5e-4),
            quantization=replace(brief, epochs=4, learning_rate=2e-4),
        ),
    )
