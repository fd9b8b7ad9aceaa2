# SPDX-License-Identifier: Apache-2.0
"""Projectors from student width to teacher width; training only, never exported."""

import keras


def build_projector(student_width: int, teacher_width: int, name: str) -> keras.layers.Layer:
    """Builds the 1x1 convolution P without activation.

    On a last axis of channels a 1x1 convolution is a dense layer.

    Args:
        student_width: Channels of the student's latent.
        teacher_width: Channels of the teacher's latent.
        name: Name of the tap.

    Returns:
        Built layer from `(B, ..., student_width)` to `(B, ..., teacher_width)`.
    """
    projector = keras.layers.Dense(teacher_width, name=f"projector_{name}")
    projector.build((None, student_width))
    return projector
