# SPDX-License-Identifier: Apache-2.0
"""Latent mixup knowledge distillation: the formula, and only that.

A reconstruction after Gholami, El-Khamy and Song, IEEE JSTSP 18(8), 2024. Two
noisy views x_a = s + n_a and x_b = s + n_b share one clean utterance s. T and S
are the teacher's and the student's latents at one tap, P the projector:

    mix(u, v) = λ u + (1 - λ) v,          λ ~ Beta(α, α), one per example
    z_T = stop_gradient(mix(T(x_a), T(x_b)))
    z_S = mix(S(x_a), S(x_b))             same λ, same pair, same tap
    latent loss = mean over positions of D(P z_S, z_T), D = |P z_S - z_T|^2 / Var T

*read*: that intermediate latents are mixed (title and abstracts).
*reconstructed*: same-clean pairs, the law of λ, both sides, D, the normalization.
"""

from keras import ops

from lmkd_tf.distill.beta import symmetric_beta


def sample_mixup_lambda(batch_size, mixup_alpha: float, seed):
    """Draws one mixing coefficient λ ~ Beta(α, α) per example (*reconstructed*).

    Args:
        batch_size: Number of examples B.
        mixup_alpha: α > 0. Towards 0 it is plain feature matching; α = 1 is the
            uniform law; towards infinity λ = 1/2.
        seed: `keras.random.SeedGenerator`, so that a run repeats.

    Returns:
        λ in [0, 1], shape `(B,)`.
    """
    return symmetric_beta((batch_size,), mixup_alpha, seed)


def mix_latents(first_latent, second_latent, mixup_lambda):
    """Mixes two latents of one tap: λ first + (1 - λ) second (*read*).

    Args:
        first_latent: Tap output for the first view, `(B, ...)`.
        second_latent: Tap output for the second view, same shape.
        mixup_lambda: λ, shape `(B,)` or scalar; teacher and student must get the
            same values.

    Returns:
        Mixed latent of the same shape.

    Raises:
        ValueError: If the two latents differ in static shape.

    Example:
        >>> z = mix_latents(ops.ones((1, 2, 3, 4)), ops.zeros((1, 2, 3, 4)), 0.25)
        >>> float(z[0, 0, 0, 0])
        0.25
    """
    if tuple(first_latent.shape) != tuple(second_latent.shape):
        raise ValueError(
            "The two latents of a pair must have the same shape. "
            f"Received {tuple(first_latent.shape)} and {tuple(second_latent.shape)}. "
            "Tap the same layer of the same network for both views."
        )
    λ = ops.cast(mixup_lambda, first_latent.dtype)
    λ = ops.reshape(λ, (-1, *(1,) * (len(first_latent.shape) - 1)))  # (B, 1, ..., 1)
    return λ * first_latent + (1.0 - λ) * second_latent


def latent_distance(projected_student_latent, teacher_latent, teacher_variance):
    """Distance D between the mixed latents at every position (*reconstructed*).

    Normalized squared error. The variance must not depend on λ, so that over λ the
    expectation stays `|m|^2 + |d|^2 / (2 α + 1)` in units of the variance, with m
    and d the mean and half difference of the two views' errors.

    Args:
        projected_student_latent: P z_S, shape `(B, ..., D)`.
        teacher_latent: z_T, same shape; its gradient is stopped here.
        teacher_variance: Running variance of the unmixed teacher latent, scalar.

    Returns:
        Mean over the width, one distance per position, shape `(B, ...)`.

    Raises:
        ValueError: If the two latents differ in static shape.
    """
    shapes = tuple(projected_student_latent.shape), tuple(teacher_latent.shape)
    pairs = zip(*shapes, strict=False)
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in pairs if None not in (a, b)):
        raise ValueError(
            "The latent of the teacher and the projected one of the student must have one shape. "
            f"Received {shapes[1]} and {shapes[0]}. Use a projector or tap other layers."
        )
    error = projected_student_latent - ops.stop_gradient(teacher_latent)
    return ops.mean(ops.square(error), axis=-1) / teacher_variance


def latent_mixup_loss(distances):
    """Averages D over the positions of each example: `(B, ...)` to `(B,)` (*reconstructed*)."""
    return ops.mean(ops.reshape(distances, (ops.shape(distances)[0], -1)), axis=-1)
