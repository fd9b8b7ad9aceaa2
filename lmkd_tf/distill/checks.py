# SPDX-License-Identifier: Apache-2.0
"""What a distiller refuses, when it is built or at its first step."""

from collections.abc import Sequence
from typing import Any

from lmkd_tf.distill.objective import Objective
from lmkd_tf.distill.views import Pair
from lmkd_tf.models.taps import FeatureTap

VIEWS = ("first_view", "second_view")
# Optional entry of a batch: the teacher's latents, one `(B, 2, ...)` per tap.
CACHED = "teacher_latents"


def check_models(positional: tuple[Any, ...], teacher: Any, student: Any, taps: Any) -> None:
    """Refuses models given by position, missing, or sharing variables.

    Args:
        positional: What was given by position.
        teacher: Teacher or None.
        student: Student or None.
        taps: Taps.

    Raises:
        TypeError: If a model is given by position or is missing.
        ValueError: If there are no taps or the student is part of the teacher.
    """
    if positional or teacher is None or student is None:
        missing = [n for n, v in (("teacher", teacher), ("student", student)) if v is None]
        raise TypeError(
            "Teacher and student must be given by name, since they are easily swapped. "
            f"Received {len(positional)} arguments by position, without {missing}. "
            "Use LatentMixupDistiller(teacher=..., student=..., taps=...)."
        )
    if not taps:
        raise ValueError(
            "`taps` must name at least one pair of layers. Received an empty list. "
            'Use for example [("bottleneck", "bottleneck", "bottleneck")].'
        )
    shared = {id(v) for v in teacher.variables} & {id(v) for v in student.variables}
    if shared:
        raise ValueError(
            "Teacher and student must not share variables: the teacher is frozen. "
            f"Received a student with {len(shared)} variables of the teacher. "
            "Build the student anew or clone it with keras.models.clone_model."
        )


def check_weights(mixup_alpha: float, distillation_weight: float) -> None:
    """Refuses an α or a weight out of range.

    Raises:
        ValueError: If one is.
    """
    if not mixup_alpha > 0:
        raise ValueError(
            "`mixup_alpha` must be positive. "
            f"Received mixup_alpha={mixup_alpha}. Use 1.0 for a uniform coefficient."
        )
    if not distillation_weight >= 0:
        raise ValueError(
            "`distillation_weight` must not be negative. "
            f"Received distillation_weight={distillation_weight}. Use 0 for the plain student."
        )


def find_mix_index(taps: Sequence[FeatureTap], objective: Objective) -> int:
    """Returns the index of the tap that is mixed; the last one if it is drawn.

    Raises:
        ValueError: If there is no such tap, or not one weight per tap.
    """
    if objective.tap_weights and len(objective.tap_weights) != len(taps):
        raise ValueError(
            "`tap_weights` must hold one weight per tap. "
            f"Received {len(objective.tap_weights)} weights for {len(taps)} taps. "
            "Leave them out for equal weights."
        )
    if not objective.mix_tap or objective.is_tap_drawn:
        return len(taps) - 1
    names = [tap.name for tap in taps]
    if objective.mix_tap not in names:
        raise ValueError(
            "`mix_tap` must name one of the taps. "
            f"Received {objective.mix_tap!r}. Use one of: {', '.join(names)}, random."
        )
    return names.index(objective.mix_tap)


def check_equal_widths(
    taps: Sequence[FeatureTap], student_shapes: Any, teacher_shapes: Any
) -> None:
    """Refuses latents of different width where no projector matches them.

    Raises:
        ValueError: Naming the tap.
    """
    for tap, student_shape, teacher_shape in zip(taps, student_shapes, teacher_shapes, strict=True):
        if student_shape[-1] != teacher_shape[-1]:
            raise ValueError(
                "Without a projector both latents of a tap must have one width. "
                f"Received {student_shape[-1]} of the student and {teacher_shape[-1]} of the "
                f'teacher for tap {tap.name!r}. Use projector="linear".'
            )


def check_views(views: Any) -> None:
    """Refuses a batch that is not a pair of views of one shape.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(views, dict) or set(views) - {CACHED} != set(VIEWS):
        raise ValueError(
            "Latent mixup needs two noisy views of the same clean speech. "
            f"Received {_describe(views)}. "
            "Use batches ({'first_view': x_a, 'second_view': x_b}, speech)."
        )
    shapes = [tuple(views[name].shape) for name in VIEWS]
    differ = [a != b for a, b in zip(*shapes, strict=False) if None not in (a, b)]
    if len(shapes[0]) != len(shapes[1]) or any(differ):
        raise ValueError(
            "The two views of a pair must have the same shape. "
            f"Received {shapes[0]} and {shapes[1]}. Cut both from the same clean crop."
        )


def check_sample_weight(pair: Pair, sample_weight: Any) -> None:
    """Refuses weights of examples where a mixture is made of two examples.

    Raises:
        ValueError: If there are weights and the two signals have different targets.
    """
    if sample_weight is not None and not pair.is_same_clean:
        raise ValueError(
            "Examples can be weighted only where each is mixed with itself. "
            "Received `sample_weight` with mixtures of two utterances. "
            'Leave it out or use pairing="same_clean".'
        )


def _describe(x: Any) -> str:
    if isinstance(x, dict):
        return f"a dict with the keys {sorted(x)}"
    return f"{type(x).__name__} of shape {getattr(x, 'shape', 'unknown')}"
