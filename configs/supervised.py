# SPDX-License-Identifier: Apache-2.0
r"""Any network without a teacher, from random weights: what every preset starts from.

lmkd-train --config=supervised --network=nano --data=FOLDER --workdir=runs/nano

`nano`, `small` and `base` as they ship went on from presets of before, by `network_start`, for as
long as the configurations of their names say.
"""

from dataclasses import replace

from configs.default import get_config as get_default
from lmkd_tf.config.schema import ExperimentConfig, LossConfig, TrainConfig


def get_config() -> ExperimentConfig:
    """Returns the default training of one network with a PESQ-shaped term in its loss."""
    default = get_default()
    return replace(
        default,
        name="supervised",
        data=replace(
            default.data,
            level_max_dbfs=-5.0,
            speed_probability=0.3,
            speech_tilt_probability=0.3,
            room_tone_probability=0.3,
        ),
        loss=LossConfig(si_sdr_weight=0.03, pesq_shaped_weight=0.3),
        # The weights of the last step, whose learning rate is a hundredth of the highest.
        network_training=TrainConfig(
            epochs=72, steps_per_epoch=300, batch_size=8, learning_rate=3e-3
        ),
    )
