# SPDX-License-Identifier: Apache-2.0
r"""The 12-channel CMGAN, which sees the future, without a teacher; no preset of it ships.

lmkd-train --config=cmgan_student --network=cmgan_student --data=FOLDER --workdir=runs/cmgan
python -m lmkd_tf.cli.preset --role=network --workdir=runs/cmgan

Crops of 1 s and few pairs per step, so that a step is affordable on a CPU.
"""

from dataclasses import replace

from configs.supervised import get_config as get_supervised
from lmkd_tf.config.schema import ExperimentConfig, LossConfig, ModelConfig, TrainConfig


def get_config() -> ExperimentConfig:
    """Returns the training of `cmgan_student` with the usual supervised loss."""
    supervised = get_supervised()
    return replace(
        supervised,
        name="cmgan_student",
        data=replace(supervised.data, crop_seconds=1.0, num_validation_batches=8),
        loss=LossConfig(),
        network=ModelConfig("cmgan_student"),
        network_training=TrainConfig(
            epochs=20,
            steps_per_epoch=200,
            batch_size=2,
            learning_rate=1e-3,
            ema_momentum=0.995,
            num_scored_clips=4,
            monitor="val_pesq_wb",
        ),
    )
