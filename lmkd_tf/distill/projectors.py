# SPDX-License-Identifier: Apache-2.0
"""From the student's latent to the teacher's grid and width; training only, never exported."""

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

# Expansion of the linear inverted bottleneck, as in MobileNetV2 (Sandler et al., 2018).
_EXPANSION = 4

Shape = Sequence[int | None]


def linear(student_width: int, teacher_width: int, name: str) -> keras.layers.Layer:
    """Builds the 1x1 convolution P without activation (default).

    On a last axis of channels a 1x1 convolution is a dense layer.
    """
    del student_width
    return keras.layers.Dense(teacher_width, name=name)


def inverted_bottleneck(student_width: int, teacher_width: int, name: str) -> keras.layers.Layer:
    """Builds a linear inverted bottleneck: expand, ReLU, project (arXiv 2505.03442, *sketch*)."""
    expand = keras.layers.Dense(_EXPANSION * student_width, activation="relu")
    return keras.Sequential([expand, keras.layers.Dense(teacher_width)], name=name)


def identity(student_width: int, teacher_width: int, name: str) -> keras.layers.Layer:
    """Builds the parameter-free projector, for latents of one width or losses of none."""
    del student_width, teacher_width
    return keras.layers.Identity(name=name)


PROJECTORS: dict[str, Callable[[int, int, str], keras.layers.Layer]] = {
    "linear": linear,
    "inverted_bottleneck": inverted_bottleneck,
    "none": identity,
}


def build_projector(
    kind: str, student_shape: Shape, teacher_shape: Shape, tap: str
) -> keras.layers.Layer:
    """Builds the projector of a tap.

    Args:
        kind: Name in `PROJECTORS`.
        student_shape: Shape of the student's latent, `(B, ..., C)`.
        teacher_shape: Shape of the teacher's latent, as many axes.
        tap: Name of the tap.

    Returns:
        Built layer from `(B, ..., student width)` to `(B, ..., teacher width)`.

    Raises:
        ValueError: If the latents have different numbers of axes.
    """
    if len(student_shape) != len(teacher_shape):
        raise ValueError(
            f"The latents of tap {tap!r} must have equally many axes. "
            f"Received {tuple(student_shape)} of the student and {tuple(teacher_shape)} of the "
            "teacher. Tap layers of the same kind."
        )
    student_width, teacher_width = width_of(student_shape), width_of(teacher_shape)
    projector = PROJECTORS[kind](student_width, teacher_width, f"projector_{tap}")
    projector.build((None, *teacher_shape[1:-1], student_width))
    return projector


def width_of(shape: Shape) -> int:
    """Returns the size of the last axis, which is always static."""
    return int(shape[-1] or 0)


def align_grid(latent, like):
    """Resamples the axes between batch and width to those of another latent.

    Each new cell is the mean of the old cells under it, weighted by overlap: frames
    and bands of a coarser grid are averages, those of a finer one are repeated.
    The sum over an axis stays the same but for its length, and equal grids are left
    alone.

    Args:
        latent: Student latent `(B, ..., C)`.
        like: Latent of the wanted grid, `(B, ..., D)`.

    Returns:
        Latent of shape `(B, ..., C)` on the grid of `like`.
    """
    for axis in range(1, len(latent.shape) - 1):
        old, new = latent.shape[axis], like.shape[axis]
        if None in (old, new) or old == new:  # lengths that are not static are taken as equal
            continue
        matrix = ops.cast(overlap_matrix(old, new), latent.dtype)
        latent = ops.moveaxis(ops.tensordot(latent, matrix, axes=[[axis], [1]]), -1, axis)
    return latent


@functools.lru_cache(maxsize=32)
def overlap_matrix(num_old: int, num_new: int) -> np.ndarray:
    """Returns the weights of `num_old` cells in each of `num_new` cells of the same span.

    Returns:
        float32 array `(num_new, num_old)` whose rows sum to one.
    """
    old, new = np.linspace(0, 1, num_old + 1), np.linspace(0, 1, num_new + 1)
    low = np.maximum(new[:-1, None], old[None, :-1])
    high = np.minimum(new[1:, None], old[None, 1:])
    return (num_new * np.maximum(high - low, 0.0)).astype(np.float32)
