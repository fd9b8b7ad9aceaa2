# SPDX-License-Identifier: Apache-2.0
r"""The shipped preset `cmgan_student`: the 12-channel CMGAN, which sees the future, untaught.

lmkd-train --config=cmgan_student --network=cmgan_student --data=FOLDER --workdir=runs/cmgan
python -m lmkd_tf.cli.preset --role=network --workdir=runs/cmgan

Crops of 1 s and one pair per step, so that a step is affordable on a CPU: 3.4 s on one core.
"""

from dataclasses import replace

from configs.supervised import get_config as get_supervised
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig, TrainConfig


def get_config() -> ExperimentConfig:
    """Returns the training of `cmgan_student` with the loss of `supervised`."""
    supervised = get_supervised()
    return replace(
        supervised,
        name="cmgan_student",
        data=replace(supervised.data, crop_seconds=1.0, num_validation_batches=8),
        network=ModelConfig("cmgan_student"),
        network_training=TrainConfig(
            epochs=5, steps_per_epoch=300, batch_size=1, learning_rate=1e-3, num_scored_clips=4
        ),
    )
