# SPDX-License-Identifier: Apache-2.0
r"""The shipped preset `nano`: trained alone (see `supervised`), then distilled and quantized.

lmkd-train --config=nano --network=nano --data=FOLDER --workdir=runs/nano \
        --override=network_start=EARLIER.keras
lmkd-quickstart --config=nano --data=FOLDER --workdir=runs/nano_int8 \
        --override=student_start=runs/nano/network/network.keras

As it ships, both ran with `loss.magnitude_asymmetry=0` (commit c0ddb70), and then the second once
more, from the student of the first time.
"""

from dataclasses import replace

from configs.supervised import get_config as get_supervised
from lmkd_tf.config.schema import CompressConfig, ExperimentConfig, ModelConfig, TrainConfig


def get_config() -> ExperimentConfig:
    """Returns a distillation under the preset `small` that goes on from a trained student."""
    supervised = get_supervised()
    return replace(
        supervised,
        name="nano",
        teacher_preset="small",
        teacher=ModelConfig("small"),
        student=ModelConfig("nano"),
        network=ModelConfig("nano"),
        network_training=replace(supervised.network_training, epochs=40, learning_rate=0.002),
        # Such a small network takes too much of the speech with the noise (docs/search.md).
        loss=replace(supervised.loss, magnitude_asymmetry=0.5),
        distill=replace(supervised.distill, method="path_mixup"),
        distillation_training=TrainConfig(
            epochs=2, steps_per_epoch=300, batch_size=8, learning_rate=2e-4
        ),
        compress=CompressConfig(
            sparsity=0.0,  # zeros among weights cost quality and save no cycle
            quantization=TrainConfig(
                epochs=1, steps_per_epoch=300, batch_size=8, learning_rate=5e-5, weight_decay=0.0
            ),
        ),
    )
