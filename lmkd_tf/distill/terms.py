# SPDX-License-Identifier: Apache-2.0
"""Distances between what teacher and student made of a batch, one value per example."""

from typing import Any

from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.feature_losses import POINTWISE, RELATIONAL
from lmkd_tf.distill.latent_mixup import latent_distance, latent_mixup_loss
from lmkd_tf.distill.projectors import overlap_matrix
from lmkd_tf.dsp.mask import compress
from lmkd_tf.dsp.stft import stft

_DISTANCES = {"mse": latent_distance, **POINTWISE}
_EPSILON = 1e-3


def latent_term(name: str, projected, teacher_latent, teacher_variance, position_weight=None):
    """Compares two latents.

    Args:
        name: A distance: "mse", or a name in `feature_losses`.
        projected: Student latent on the teacher's grid, `(B, ..., D)`.
        teacher_latent: Teacher latent.
        teacher_variance: Running variance of the teacher's latent, scalar.
        position_weight: Weights `(B,)` or `(B, T)`, or None; they are spread over
            the other positions.

    Returns:
        One distance per example, `(B,)`.
    """
    if name in RELATIONAL:
        return RELATIONAL[name](projected, teacher_latent, teacher_variance)
    distances = _DISTANCES[name](projected, teacher_latent, teacher_variance)
    if position_weight is not None:
        distances = distances * _spread(position_weight, distances)
    return latent_mixup_loss(distances)


def lambda_free_term(projected, teacher_latent, teacher_variance, noise_specific_weight: float):
    """The control without λ: `|m|^2 + ρ |d|^2` of the two views' errors.

    With ρ = 1 / (2 α + 1) it is the expectation of the formula's latent loss.

    Args:
        projected: Projected student latents of both views, `(2B, ..., D)`.
        teacher_latent: Teacher latents of both views, same shape.
        teacher_variance: Running variance of the teacher's latent, scalar.
        noise_specific_weight: ρ.

    Returns:
        One distance per example, `(B,)`.
    """
    first, second = ops.split(projected - ops.stop_gradient(teacher_latent), 2, axis=0)
    mean, half_difference = 0.5 * (first + second), 0.5 * (first - second)
    zero = ops.zeros_like(mean)
    shared = latent_mixup_loss(latent_distance(mean, zero, teacher_variance))
    specific = latent_mixup_loss(latent_distance(half_difference, zero, teacher_variance))
    return shared + noise_specific_weight * specific


def teacher_advantage(student_output, teacher_output, speech, frame: StftConfig | None):
    """Weighs the frames in which the teacher's output beats the student's (our own candidate).

    The idea is that of DISPatch (arXiv 2509.15922), moved from the output to the latent.

    Args:
        student_output: Output of the student, `(B, ...)`.
        teacher_output: Output of the teacher, same shape.
        speech: Clean target, same shape.
        frame: Frame of the transform for signals `(B, N)`, or None to compare whole examples.

    Returns:
        Weights of mean one, `(B, T)`, or `(B,)` without a frame.
    """
    errors = [_error(x, speech, frame) for x in (student_output, teacher_output)]
    is_better = ops.cast(errors[1] < errors[0], student_output.dtype)
    return ops.stop_gradient(is_better / (ops.mean(is_better) + _EPSILON))


def weighted_mean(per_example, sample_weight=None):
    """Averages `(B,)`, or `(2B,)` with the two views of an example first averaged.

    Args:
        per_example: One value per example or per view.
        sample_weight: Weights `(B,)` or `(B, 1)`, or None.
    """
    if sample_weight is None:
        return ops.mean(per_example)
    weight = ops.cast(ops.reshape(sample_weight, (-1,)), per_example.dtype)
    values = ops.reshape(per_example, (-1, ops.shape(weight)[0]))  # (1 or 2, B)
    return ops.mean(values * weight)


def _error(output, speech, frame: StftConfig | None):
    if frame is None:
        square = ops.square(output - speech)
        return ops.mean(ops.reshape(square, (ops.shape(square)[0], -1)), axis=-1)
    magnitude, _ = compress(stft(output, frame), 0.3)
    clean, _ = compress(stft(speech, frame), 0.3)
    return ops.mean(ops.square(magnitude - clean), axis=-1)


def _spread(weight: Any, distances: Any):
    """Brings weights `(B,)` or `(B, T)` to the frames and the rank of the distances."""
    if len(weight.shape) > 1:
        if len(distances.shape) == 1:
            return ops.mean(weight, axis=-1)
        old, new = weight.shape[1], distances.shape[1]
        if None not in (old, new) and old != new:
            weight = ops.matmul(weight, overlap_matrix(old, new).T)
    for _ in range(len(distances.shape) - len(weight.shape)):
        weight = weight[..., None]
    return weight
