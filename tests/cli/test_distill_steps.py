# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import keras
import numpy as np
import pytest

from lmkd_tf.cli.distill_steps import StepFactory
from lmkd_tf.config.schema import (
    DataConfig,
    DistillConfig,
    ExperimentConfig,
    ModelConfig,
    TrainConfig,
)

TINY = ModelConfig("tcn", num_bands=16, channels=4, dilations=(1,))
CONFIG = ExperimentConfig(
    teacher=replace(TINY, channels=6),
    student=TINY,
    data=DataConfig(crop_seconds=0.112),
    distillation_training=TrainConfig(batch_size=2),
    distill=DistillConfig(taps=(("bottleneck", "block_1", "block_1"),)),
)


@pytest.fixture(scope="module")
def factory():
    return StepFactory(CONFIG)


def test_keras_and_our_distiller_train_the_same_student_on_the_same_views(factory):
    pytest.importorskip("keras.distillation")
    expected = factory.distillation("no_kd")()["supervised_loss"]
    found = factory.keras_distillation()()
    assert float(found["student_loss"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(found["distillation_loss"]) > 0.0


def test_a_step_with_cached_latents_has_the_loss_of_one_without(factory):
    expected = factory.distillation("latent_mixup")()
    found = factory.distillation("latent_mixup", is_cached=True)()
    assert float(found["latent_loss"]) == pytest.approx(float(expected["latent_loss"]), rel=1e-2)


def test_passes_return_what_a_step_needs_of_them(factory):
    gradients, latents, tail_gradients = (step() for step in factory.passes().values())
    # Encoder, depthwise and pointwise kernels, a scale and an offset behind each, the mask.
    assert len(gradients) == 3 * 3 + 2
    assert all(np.any(keras.ops.convert_to_numpy(g)) for g in gradients)
    assert [latent.shape for latent in latents] == [(4, 8, 1, 6)]  # (2B, T, 1, C)
    assert [tuple(g.shape) for g in tail_gradients] == [(2, 8, 1, 4), (1, 1, 4, 16), (16,)]
