# SPDX-License-Identifier: Apache-2.0
r"""The shipped preset `small`: like `nano`, but under `base`.

lmkd-train --config=small --network=small --data=FOLDER --workdir=runs/small \
        --override=data.crop_seconds=2 --override=network_start=EARLIER.keras
lmkd-quickstart --config=small --data=FOLDER --workdir=runs/small_int8 \
        --override=student_start=runs/small/network/network.keras

EARLIER is the preset before: in a checkout of commit 790838b,
`lmkd_tf.models.from_preset("small").save("EARLIER.keras")` writes it. What `lmkd-quickstart` does
before its scores and report, `lmkd-train`, `lmkd-distill`, `lmkd-compress` and `lmkd-export` do
with the same flags.
"""

from dataclasses import replace

from configs.nano import get_config as get_nano
from lmkd_tf.config.schema import ExperimentConfig, ModelConfig


def get_config() -> ExperimentConfig:
    """Returns the road of `nano` for the larger student."""
    nano = get_nano()
    return replace(
        nano,
        name="small",
        teacher_preset="base",
        teacher=ModelConfig("base"),
        student=ModelConfig("small"),
        network=ModelConfig("small"),
        # A little more suppression; chosen on clips of the valid split (docs/search.md).
        loss=replace(nano.loss, magnitude_asymmetry=-0.25),
        network_training=replace(nano.network_training, epochs=15, learning_rate=0.002),
        distillation_training=replace(nano.distillation_training, epochs=1),
    )
