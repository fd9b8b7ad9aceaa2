# SPDX-License-Identifier: Apache-2.0
"""Any network without a teacher, at the length of the shipped presets.

lmkd-train --config=supervised --network=base --data=FOLDER --workdir=runs/base
"""

from dataclasses import replace

from configs.default import get_config as get_default
from lmkd_tf.config.schema import ExperimentConfig, LossConfig


def get_config() -> ExperimentConfig:
    """Returns the default training of one network with a PESQ-shaped term in its loss."""
    default = get_default()
    return replace(
        default,
        name="supervised",
        data=replace(default.data, level_min_dbfs=-40.0, level_max_dbfs=-5.0),
        loss=LossConfig(pesq_shaped_weight=0.5),
        network_training=replace(
            default.network_training, epochs=24, steps_per_epoch=300, learning_rate=3e-3
        ),
    )
