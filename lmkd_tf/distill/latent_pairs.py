# SPDX-License-Identifier: Apache-2.0
"""What every loss between two latents starts with: types, gradient and static shapes."""

from keras import ops


def stopped_pair(student_latent, teacher_latent):
    """Returns both latents in float32, the teacher's without gradient."""
    teacher = ops.stop_gradient(ops.cast(teacher_latent, "float32"))
    return ops.cast(student_latent, "float32"), teacher


def grid_pair(student_latent, teacher_latent):
    """Returns `stopped_pair` as `(B, T, F, C)`, from `(B, T, C)` with a single frequency.

    Raises:
        ValueError: If the latents have another rank or differ in more than width.
    """
    pair = stopped_pair(student_latent, teacher_latent)
    shapes = [tuple(latent.shape) for latent in pair]
    ranks = {len(shape) for shape in shapes}
    if ranks not in ({3}, {4}) or shapes_differ(shapes[0][:-1], shapes[1][:-1]):
        raise ValueError(
            "This loss compares latents (B, T, C) or (B, T, F, C) on one grid. "
            f"Received a student latent of shape {shapes[0]} and a teacher latent of shape "
            f"{shapes[1]}. Tap layers with equal frames and frequencies, or resample one of them."
        )
    return [ops.expand_dims(z, 2) if len(z.shape) == 3 else z for z in pair]


def check_equal_shapes(student_latent, teacher_latent) -> None:
    """Checks that two latents have the same static shape.

    Raises:
        ValueError: If not.
    """
    shapes = tuple(student_latent.shape), tuple(teacher_latent.shape)
    if shapes_differ(*shapes):
        raise ValueError(
            "This distance compares latents of equal shape. "
            f"Received {shapes[0]} from the student and {shapes[1]} from the teacher. "
            "Project the student's latent to the teacher's width first."
        )


def mean_square(error):
    """Returns the mean square per example, `(B,)`, of an error `(B, ...)`."""
    return ops.mean(ops.square(error), axis=tuple(range(1, len(error.shape))))


def shapes_differ(first: tuple, second: tuple) -> bool:
    """Returns whether two static shapes contradict each other; an unknown size fits any."""
    if len(first) != len(second):
        return True
    return any(a != b for a, b in zip(first, second, strict=True) if None not in (a, b))
