# SPDX-License-Identifier: Apache-2.0
r"""The shipped preset `base`: the teacher of `small`, and a student like the others in int8.

lmkd-train --config=base --network=base --data=FOLDER --workdir=runs/base \
        --override=network_start=EARLIER.keras --override=network_start_is_partial=true
lmkd-quickstart --config=base --data=FOLDER --workdir=runs/base_int8 \
        --override=student_start=runs/base/network/network.keras

EARLIER is the preset before, which had no recurrences (commit c0ddb70).
"""

from dataclasses import replace

from configs.nano import get_config as get_nano
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig


def get_config() -> ExperimentConfig:
    """Returns the road of `nano` for the largest student, which has nobody to learn from."""
    nano = get_nano()
    return replace(
        nano,
        name="base",
        student=ModelConfig("base"),
        network=ModelConfig("base"),
        loss=replace(nano.loss, magnitude_asymmetry=0.0),
        network_training=replace(nano.network_training, epochs=10, learning_rate=0.0025),
        distill=replace(nano.distill, method="no_kd"),
        distillation_training=replace(nano.distillation_training, epochs=1),
    )
