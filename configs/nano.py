# SPDX-License-Identifier: Apache-2.0
r"""The shipped preset `nano`: trained alone (see `supervised`), then distilled and quantized.

lmkd-train --config=nano --network=nano --data=FOLDER --workdir=runs/nano \
        --override=data.crop_seconds=2 --override=network_start=EARLIER.keras \
        --override=network_start_is_partial=True
lmkd-quickstart --config=nano --data=FOLDER --workdir=runs/nano_int8 \
        --override=student_start=runs/nano/network/network.keras

EARLIER was the preset before, which had blocks that remember instead of a recurrence: in a checkout
of commit d1e860f, `lmkd_tf.models.from_preset("nano").save("EARLIER.keras")` writes it. The network
that came out went on once more, without the last flag.
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
        network_training=replace(supervised.network_training, epochs=36, learning_rate=0.003),
        # A recurrence learns from long crops to go on for longer (docs/compress.md).
        data=replace(supervised.data, crop_seconds=6.0),
        # Such a small network takes too much of the speech with the noise (docs/search.md).
        loss=replace(supervised.loss, magnitude_asymmetry=0.5),
        distill=replace(supervised.distill, method="path_mixup"),
        distillation_training=TrainConfig(
            epochs=2, steps_per_epoch=300, batch_size=3, learning_rate=2e-4
        ),
        compress=CompressConfig(
            sparsity=0.0,  # zeros among weights cost quality and save no cycle
            quantization=TrainConfig(
                epochs=1, steps_per_epoch=300, batch_size=3, learning_rate=5e-5, weight_decay=0.0
            ),
        ),
    )
