# SPDX-License-Identifier: Apache-2.0
"""Distances between latents: the rivals of the normalized mean squared error.

Every function takes `(student_latent, teacher_latent, teacher_variance)` and stops the
teacher's gradient. *Pointwise* distances compare projected latents of equal shape and
keep the positions; *relational* losses compare maps or similarities, so that the two
widths may differ and no projector is needed, and give one value per example. All compute
in float32. *read*: the formula was seen in its source; *sketch*: our reading of an abstract.
"""

from keras import ops

from lmkd_tf.distill.latent_pairs import (
    check_equal_shapes,
    grid_pair,
    mean_square,
    stopped_pair,
)
from lmkd_tf.distill.review import hierarchical_context

# Norms below these count as the floor, so that a gradient at zero stays finite.
_COSINE_FLOOR = 1e-4
_MAP_FLOOR = 1e-12


def normalized_l1(student_latent, teacher_latent, teacher_variance):
    """Mean absolute error in standard deviations of the teacher: `mean |e| / sqrt(Var T)`.

    Args:
        student_latent: Projected latent, `(B, ..., D)`.
        teacher_latent: Same shape.
        teacher_variance: Variance of the teacher's latent, scalar.

    Returns:
        Distance per position, `(B, ...)`.

    References:
        FitNets (Romero et al., arXiv 1412.6550) with another distance; *sketch*.
    """
    return ops.mean(ops.abs(_error(student_latent, teacher_latent, teacher_variance)), axis=-1)


def normalized_smooth_l1(student_latent, teacher_latent, teacher_variance):
    """Huber loss with δ = 1 of the error in standard deviations of the teacher.

    Args:
        student_latent: Projected latent, `(B, ..., D)`.
        teacher_latent: Same shape.
        teacher_variance: Variance of the teacher's latent, scalar.

    Returns:
        Distance per position, `(B, ...)`.

    References:
        FitNets (Romero et al., arXiv 1412.6550) with the loss of Huber (1964); *sketch*.
    """
    error = ops.abs(_error(student_latent, teacher_latent, teacher_variance))
    huber = ops.where(error < 1.0, 0.5 * ops.square(error), error - 0.5)
    return ops.mean(huber, axis=-1)


def cosine_distance(student_latent, teacher_latent, teacher_variance=None):
    """One minus the cosine of the angle between the latents along the last axis.

    The distance to a zero vector is 1, with a finite gradient.

    Args:
        student_latent: Projected latent, `(B, ..., D)`.
        teacher_latent: Same shape.
        teacher_variance: Unused, since an angle has no scale.

    Returns:
        Distance in [0, 2] per position, `(B, ...)`.

    References:
        Luong et al., arXiv 2505.03442; *sketch*, since only the abstract was readable.
    """
    del teacher_variance
    student, teacher = stopped_pair(student_latent, teacher_latent)
    check_equal_shapes(student, teacher)
    student, teacher = (_unit(latent, _COSINE_FLOOR) for latent in (student, teacher))
    return 1.0 - ops.sum(student * teacher, axis=-1)


def attention_transfer(student_latent, teacher_latent, teacher_variance=None):
    """Mean squared difference of the attention maps `Q(z) = unit(vec(mean_c z^2))`.

    Args:
        student_latent: `(B, T, C_s)` or `(B, T, F, C_s)`.
        teacher_latent: `(B, T, C_t)` or `(B, T, F, C_t)`.
        teacher_variance: Unused, since a map has unit norm.

    Returns:
        Loss per example, `(B,)`.

    References:
        AT with p = 2: Zagoruyko and Komodakis, arXiv 1612.03928; *read* in the code of
        RepDistiller.
    """
    del teacher_variance
    maps = [_attention(latent, (3,)) for latent in grid_pair(student_latent, teacher_latent)]
    return mean_square(maps[0] - maps[1])


def similarity_preserving(student_latent, teacher_latent, teacher_variance=None):
    """Mean squared difference of the similarities between the examples of a batch.

    `G = rows(Q Q^T)` with Q the latents as `(B, features)` and rows of unit norm. An
    example gets the mean over its own row, so that the mean over the batch is the published
    `|G_T - G_S|^2 / B^2`. Nearly void below eight examples.

    Args:
        student_latent: `(B, ...)`.
        teacher_latent: `(B, ...)`; the rest of the shape may differ.
        teacher_variance: Unused, since a row has unit norm.

    Returns:
        Loss per example, `(B,)`.

    References:
        SPKD: Tung and Mori, arXiv 1907.09682; *read* in the code of RepDistiller.
    """
    del teacher_variance
    flat = [
        ops.reshape(z, (ops.shape(z)[0], -1)) for z in stopped_pair(student_latent, teacher_latent)
    ]
    return mean_square(_similarity(flat[0]) - _similarity(flat[1]))


def frame_similarity(
    student_latent, teacher_latent, teacher_variance=None, *, across_batch: bool = False
):
    """Mean squared difference of the similarities between the frames of an utterance.

    Args:
        student_latent: `(B, T, C_s)` or `(B, T, F, C_s)`.
        teacher_latent: `(B, T, C_t)` or `(B, T, F, C_t)`.
        teacher_variance: Unused, since a row has unit norm.
        across_batch: Compares, frame by frame, the examples of the batch (`T` matrices of
            `B x B`) instead of the frames of each example (`B` matrices of `T x T`).

    Returns:
        Loss per example, `(B,)`.

    References:
        After CLSKD: Cheng et al., Interspeech 2022, pp. 926-930; *sketch*.
    """
    del teacher_variance
    grids = grid_pair(student_latent, teacher_latent)
    frames = [ops.reshape(z, (*ops.shape(z)[:2], -1)) for z in grids]
    if across_batch:
        frames = [ops.transpose(z, (1, 0, 2)) for z in frames]  # (T, B, F*C)
    error = ops.square(_similarity(frames[0]) - _similarity(frames[1]))
    return ops.mean(error, axis=(0, 2) if across_batch else (1, 2))


def fine_grained_similarity(student_latent, teacher_latent, teacher_variance=None):
    """Mean squared difference of the similarities inside each activation.

    Half the error of the `T x T` similarities at every frequency plus half that of the
    `F x F` similarities in every frame, over channels. With a single frequency the second
    half is zero.

    Args:
        student_latent: `(B, T, C_s)` or `(B, T, F, C_s)`.
        teacher_latent: `(B, T, C_t)` or `(B, T, F, C_t)`.
        teacher_variance: Unused, since a row has unit norm.

    Returns:
        Loss per example, `(B,)`.

    References:
        After FGSP: Nathoo, Kegler and Stamenovic, arXiv 2309.08144; *sketch*.
    """
    del teacher_variance
    grids = grid_pair(student_latent, teacher_latent)
    over_frequency = [_similarity(z) for z in grids]  # (B, T, F, F)
    over_time = [_similarity(ops.transpose(z, (0, 2, 1, 3))) for z in grids]  # (B, F, T, T)
    pairs = (over_time, over_frequency)
    return 0.5 * sum(mean_square(student - teacher) for student, teacher in pairs)


def multi_view_attention(student_latent, teacher_latent, teacher_variance=None):
    """Attention transfer of three views: the energies over time, frequency and channels.

    The mean over the views; that over channels counts only where the widths are equal.

    Args:
        student_latent: `(B, T, C_s)` or `(B, T, F, C_s)`.
        teacher_latent: `(B, T, C_t)` or `(B, T, F, C_t)`.
        teacher_variance: Unused, since a map has unit norm.

    Returns:
        Loss per example, `(B,)`.

    References:
        After MV-AT: Shin et al., arXiv 2208.10367; *sketch*.
    """
    del teacher_variance
    student, teacher = grid_pair(student_latent, teacher_latent)
    views = _views(student, teacher)
    errors = [_attention(student, axes) - _attention(teacher, axes) for axes in views]
    return sum(mean_square(error) for error in errors) / len(views)


def attention_kl(
    student_latent, teacher_latent, teacher_variance=None, *, temperature: float = 1.0
):
    """Divergence of the attention over time, frequency and channels as distributions.

    The mean over the views of `KL(softmax(A_T / τ) || softmax(A_S / τ))`, where A is the
    mean of `z^2` over the other axes; channels count only where the widths are equal.

    Args:
        student_latent: `(B, T, C_s)` or `(B, T, F, C_s)`.
        teacher_latent: `(B, T, C_t)` or `(B, T, F, C_t)`.
        teacher_variance: Unused.
        temperature: τ, above zero.

    Returns:
        Loss per example, `(B,)`.

    References:
        After AT-KL of Distil-DCCRN: Han et al., arXiv 2408.04267; *sketch*.
    """
    del teacher_variance
    if temperature <= 0.0:
        raise ValueError(
            "`temperature` must be positive. "
            f"Received temperature={temperature}. Use 1.0, or more for flatter distributions."
        )
    student, teacher = grid_pair(student_latent, teacher_latent)
    views = _views(student, teacher)
    divergences = []
    for axes in views:
        log_student, log_teacher = (
            ops.log_softmax(_energy(latent, axes) / temperature) for latent in (student, teacher)
        )
        gap = ops.exp(log_teacher) * (log_teacher - log_student)
        divergences.append(ops.sum(gap, axis=-1))
    return sum(divergences) / len(views)


POINTWISE = {
    "l1": normalized_l1,
    "smooth_l1": normalized_smooth_l1,
    "cosine": cosine_distance,
}
RELATIONAL = {
    "attention": attention_transfer,
    "similarity": similarity_preserving,
    "frame_similarity": frame_similarity,
    "fine_grained": fine_grained_similarity,
    "multi_view": multi_view_attention,
    "attention_kl": attention_kl,
    "hierarchical": hierarchical_context,
}


def _error(student_latent, teacher_latent, teacher_variance):
    """Error in standard deviations of the teacher."""
    student, teacher = stopped_pair(student_latent, teacher_latent)
    check_equal_shapes(student, teacher)
    return (student - teacher) / ops.sqrt(ops.cast(teacher_variance, "float32"))


def _views(student, teacher) -> list[tuple[int, ...]]:
    """Axes to average over for the views time, frequency and, if comparable, channels."""
    over_channels = [(1, 2)] if student.shape[-1] == teacher.shape[-1] else []
    return [(2, 3), (1, 3), *over_channels]


def _energy(latent, axes: tuple[int, ...]):
    """Mean square over some axes, the rest flattened: `(B, positions)`."""
    energy = ops.mean(ops.square(latent), axis=axes)
    return ops.reshape(energy, (ops.shape(energy)[0], -1))


def _attention(latent, axes: tuple[int, ...]):
    """Energy map of unit norm, `(B, positions)`."""
    return _unit(_energy(latent, axes), _MAP_FLOOR)


def _similarity(rows):
    """Gram matrices `(..., N, N)` of rows `(..., N, D)`, each row of unit norm."""
    last = len(rows.shape) - 1
    swapped = ops.transpose(rows, (*range(last - 1), last, last - 1))
    return _unit(ops.matmul(rows, swapped), _MAP_FLOOR)


def _unit(vectors, floor: float):
    """Vectors along the last axis divided by their norm or, if that is larger, the floor."""
    square = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(square, floor**2))
