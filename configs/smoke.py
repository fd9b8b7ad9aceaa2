# SPDX-License-Identifier: Apache-2.0
"""Every stage of the road in about a minute of training: for tests and notebooks."""

from dataclasses import replace

from configs.default import get_config as get_default
from lmkd_tf.config.schema import CompressConfig, ExperimentConfig, ModelConfig, TrainConfig


def get_config() -> ExperimentConfig:
    """Returns a tiny road; its networks are too small and too briefly trained to be good."""
    default = get_default()
    brief = TrainConfig(
        epochs=2, steps_per_epoch=10, batch_size=4, weight_decay=0.0, warmup_steps=2
    )
    small = {"num_bands": 64, "dilations": (1, 2)}
    return replace(
        default,
        name="smoke",
        data=replace(
            default.data, crop_seconds=1.024, num_validation_batches=2, num_evaluation_clips=5
        ),
        teacher=ModelConfig(architecture="tcn", channels=48, **small),
        student=ModelConfig(architecture="tcn", channels=24, **small),
        teacher_training=brief,
        distillation_training=brief,
        distill=replace(default.distill, taps=(("bottleneck", "block_2", "block_2"),)),
        compress=CompressConfig(pruning=brief, quantization=brief, num_calibration_frames=200),
    )
