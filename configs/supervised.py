# SPDX-License-Identifier: Apache-2.0
r"""Any network without a teacher: what the shipped presets started from.

lmkd-train --config=supervised --network=nano --data=FOLDER --workdir=runs/nano

The presets had 24 epochs (`nano`), 9 at a rate of 2.5e-3 (`small`) and 11 at 2e-3 (`base`);
--override=network_training.epochs=9 and the like. Their records say what else differed.
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
