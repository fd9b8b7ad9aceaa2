# SPDX-License-Identifier: Apache-2.0
"""Latent mixup knowledge distillation (a reconstruction), its rivals and its losses."""

from lmkd_tf.distill.cache import cache_teacher
from lmkd_tf.distill.callbacks import RaiseOnNan
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.losses import SpeechLoss
from lmkd_tf.distill.objective import METHODS, Objective, objective_of
from lmkd_tf.distill.perceptual_loss import PesqShapedLoss

__all__ = [
    "METHODS",
    "LatentMixupDistiller",
    "Objective",
    "PesqShapedLoss",
    "RaiseOnNan",
    "SpeechLoss",
    "cache_teacher",
    "objective_of",
]
