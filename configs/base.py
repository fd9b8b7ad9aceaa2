# SPDX-License-Identifier: Apache-2.0
r"""The shipped preset `base`: the teacher of `small`, and a student like the others in int8.

lmkd-train --config=base --network=base --data=FOLDER --workdir=runs/base \
        --override=data.crop_seconds=2 --override=network_start=EARLIER.keras
lmkd-quickstart --config=base --data=FOLDER --workdir=runs/base_int8 \
        --override=student_start=runs/base/network/network.keras

EARLIER was the preset before (commit 4982fa9), saved as configs/small.py says.
"""

from dataclasses import replace

from configs.small import get_config as get_small
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig


def get_config() -> ExperimentConfig:
    """Returns the road of `small` for the largest student, which has nobody to learn from."""
    small = get_small()
    quantization = replace(small.compress.quantization, steps_per_epoch=200)
    return replace(
        small,
        name="base",
        teacher_preset="small",  # a trained network that is not asked
        teacher=ModelConfig("small"),
        student=ModelConfig("base"),
        network=ModelConfig("base"),
        loss=replace(small.loss, magnitude_asymmetry=0.0),
        network_training=replace(small.network_training, epochs=15),
        distill=replace(small.distill, method="no_kd"),
        distillation_training=replace(small.distillation_training, steps_per_epoch=150),
        compress=replace(small.compress, quantization=quantization),
    )
