# SPDX-License-Identifier: Apache-2.0
r"""The shipped preset `small`: like `nano`, a little shorter.

lmkd-quickstart --config=small --data=FOLDER --workdir=runs/small_int8 \
        --override=student_start=runs/small/network/network.keras
"""

from dataclasses import replace

from configs.nano import get_config as get_nano
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig


def get_config() -> ExperimentConfig:
    """Returns the distillation of `nano` for the larger student."""
    nano = get_nano()
    return replace(
        nano,
        name="small",
        student=ModelConfig("small"),
        distillation_training=replace(nano.distillation_training, epochs=1),
        compress=replace(
            nano.compress,
            quantization=replace(nano.compress.quantization, steps_per_epoch=150),
        ),
    )
