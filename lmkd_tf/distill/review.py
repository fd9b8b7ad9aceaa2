# SPDX-License-Identifier: Apache-2.0
"""ReviewKD: fused student latents and the hierarchical context loss.

Chen et al., "Distilling Knowledge via Knowledge Review", arXiv 2104.09044; *read* in the
authors' code. The student's latents are fused from deep to shallow, each fused latent has
the width of a teacher's latent, and the two are compared on grids of several sizes.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lmkd_tf.distill.latent_pairs import check_equal_shapes, grid_pair, mean_square

_MAX_WIDTH = 512  # that of the source
_POOLED_CELLS = (4, 2, 1)  # per axis, after the full grid


@keras.saving.register_keras_serializable(package="lmkd_tf")
class ReviewFusion(keras.layers.Layer):
    """Fuses the student's latents from deep to shallow; training only, never exported.

    From the deepest latent on, with a residual r handed to the next shallower one:

        x = norm(1x1(latent))
        r = a_1 x + a_2 resize(r),   [a_1, a_2] = sigmoid(1x1([x, resize(r)]))
        fused = norm(3x3(r))

    where the deepest has r = x. As in the source, `resize` repeats or drops cells (nearest
    neighbor), norm is batch normalization, and a fused latent has the grid of its student
    latent; the caller brings the teacher's latents to those grids.

    Args:
        teacher_widths: Widths of the fused latents, shallow to deep.
        width: Width of x and r; None takes that of the deepest student latent, at most 512.

    Input shape:
        Student latents, a list from shallow to deep, each `(B, T_l, F_l, C_l)`.

    Output shape:
        As many latents, shallow to deep, each `(B, T_l, F_l, teacher_widths[l])`.

    Raises:
        ValueError: If a width is not positive, or the number or rank of the latents is wrong.
    """

    def __init__(self, teacher_widths: Sequence[int], width: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        widths = [*teacher_widths, 1 if width is None else width]
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(
                "`teacher_widths` and `width` must be positive. "
                f"Received teacher_widths={list(teacher_widths)}, width={width}. "
                "Give one teacher width per latent, shallow to deep."
            )
        self.teacher_widths = tuple(teacher_widths)
        self.width = width

    def build(self, input_shape):
        """Builds the convolutions for the widths of the student's latents."""
        self._check(input_shape)
        width = self.width or min(_MAX_WIDTH, input_shape[-1][-1])
        self.inward = [_ConvAndNorm(width, 1) for _ in input_shape]
        self.outward = [_ConvAndNorm(teacher_width, 3) for teacher_width in self.teacher_widths]
        self.attention = [keras.layers.Conv2D(2, 1, activation="sigmoid") for _ in input_shape[:-1]]
        for inward, outward, shape in zip(self.inward, self.outward, input_shape, strict=True):
            inward.build((None, None, None, shape[-1]))
            outward.build((None, None, None, width))
        for attention in self.attention:
            attention.build((None, None, None, 2 * width))

    def call(self, latents, training=None):
        """Fuses the latents; see the class."""
        self._check([latent.shape for latent in latents])
        deepest = len(latents) - 1
        residual, fused = None, []
        for i in range(deepest, -1, -1):
            x = self.inward[i](latents[i], training=training)
            if i < deepest:
                residual = _resize_like(residual, x)
                share = self.attention[i](ops.concatenate([x, residual], axis=-1))
                x = share[..., :1] * x + share[..., 1:] * residual
            residual = x
            fused.append(self.outward[i](residual, training=training))
        return fused[::-1]

    def compute_output_shape(self, input_shape):
        """Returns the shapes of the fused latents."""
        pairs = zip(input_shape, self.teacher_widths, strict=True)
        return [(*shape[:-1], width) for shape, width in pairs]

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        own = {"teacher_widths": list(self.teacher_widths), "width": self.width}
        return {**super().get_config(), **own}

    def _check(self, shapes) -> None:
        shapes = [tuple(shape) for shape in shapes]
        if len(shapes) != len(self.teacher_widths) or any(len(shape) != 4 for shape in shapes):
            raise ValueError(
                "`ReviewFusion` takes one latent (B, T, F, C) for each of `teacher_widths`. "
                f"Received {len(self.teacher_widths)} widths and latents of shapes {shapes}. "
                "Give the latents as a list, shallow to deep."
            )


def hierarchical_context(student_latent, teacher_latent, teacher_variance):
    """Squared error on the full grid and on grids of 4, 2 and 1 cells per axis.

    The weights are 1, 1/2, 1/4 and 1/8 over their sum. An axis with no more than that many
    cells keeps its own, and a grid on which both axes do is left out; a latent with a single
    frequency is pooled along time alone.

    Args:
        student_latent: Fused or projected latent, `(B, T, D)` or `(B, T, F, D)`.
        teacher_latent: Same shape.
        teacher_variance: Variance of the teacher's latent, scalar; the division is ours.

    Returns:
        Loss per example, `(B,)`.

    Raises:
        ValueError: If the shapes differ or have another rank.

    References:
        HCL: Chen et al., arXiv 2104.09044; *read* in the authors' code for square grids.
    """
    check_equal_shapes(student_latent, teacher_latent)
    student, teacher = grid_pair(student_latent, teacher_latent)
    error = student - teacher  # pooling is linear, so the error is pooled
    total, weights, weight = mean_square(error), 1.0, 1.0
    for cells in _POOLED_CELLS:
        axes = [axis for axis in (1, 2) if (error.shape[axis] or cells + 1) > cells]
        if not axes:
            continue
        pooled = error
        for axis in axes:
            pooled = _pool(pooled, axis, cells)
        weight = 0.5 * weight
        total, weights = total + weight * mean_square(pooled), weights + weight
    return total / (weights * ops.cast(teacher_variance, "float32"))


class _ConvAndNorm(keras.layers.Layer):
    """Convolution without bias and batch normalization."""

    def __init__(self, width: int, kernel_size: int):
        super().__init__()
        self.conv = keras.layers.Conv2D(width, kernel_size, padding="same", use_bias=False)
        self.norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], self.conv.filters))

    def call(self, inputs, training=None):
        return self.norm(self.conv(inputs), training=training)


def _resize_like(latent, like):
    """Brings `(B, T, F, C)` to the grid of another latent by nearest neighbors."""
    for axis in (1, 2):
        if latent.shape[axis] is None or latent.shape[axis] != like.shape[axis]:
            size, new_size = ops.shape(latent)[axis], ops.shape(like)[axis]
            latent = ops.take(latent, ops.arange(new_size) * size // new_size, axis=axis)
    return latent


def _pool(latent, axis: int, cells: int):
    """Means over `cells` equal, if need be overlapping, intervals along axis 1 or 2."""
    size = ops.shape(latent)[axis]
    position, cell = ops.arange(size), ops.arange(cells)[:, None]
    first, end = cell * size // cells, ((cell + 1) * size + cells - 1) // cells
    inside = ops.logical_and(position >= first, position < end)  # (cells, size)
    share = ops.cast(inside, "float32") / ops.cast(end - first, "float32")
    return ops.einsum("btfd,ct->bcfd" if axis == 1 else "btfd,cf->btcd", latent, share)
