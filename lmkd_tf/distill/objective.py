# SPDX-License-Identifier: Apache-2.0
"""The settings of an objective, and the methods that are named points among them."""

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmkd_tf.distill.feature_losses import POINTWISE, RELATIONAL
from lmkd_tf.distill.lambda_laws import LAMBDA_LAWS
from lmkd_tf.distill.output_losses import OUTPUT_LOSSES
from lmkd_tf.distill.projectors import PROJECTORS
from lmkd_tf.distill.schedules import SCHEDULES
from lmkd_tf.distill.views import PAIRINGS

RANDOM_TAP = "random"
REVIEW = "review"
_CHOICES = {
    "pairing": tuple(PAIRINGS),
    # Where the mixture is made: in the latents of both networks (F2), of the teacher (F3, the
    # student is fed the mixed input) or of the student, at the input of both (F1), between student
    # and teacher (F5), nowhere (matching of both views), or resolved into m and d without λ.
    "mixing": ("both", "teacher", "student", "input", "cross", "none", "split"),
    "propagation": ("none", "student", "both"),
    "lambda_law": tuple(LAMBDA_LAWS),
    "granularity": ("sample", "batch", "tap", "band"),
    "distance": ("mse", *POINTWISE, *RELATIONAL),
    "projector": (*PROJECTORS, REVIEW),
    "position_weight": ("equal", "teacher_advantage"),
    "output_loss": tuple(OUTPUT_LOSSES),
    "schedule": tuple(SCHEDULES),
}
_WEIGHTS = ("mixed_weight", "latent_weight", "output_weight", "noise_specific_weight")


@dataclass(frozen=True)
class Objective:
    """What a distiller minimizes; the defaults are the reconstruction of `docs/formula.md`.

    Args:
        pairing: Which signals are mixed; name in `lmkd_tf.distill.views.PAIRINGS`.
        mixing: Where: "both" networks' latents, those of the "teacher" or the "student"
            alone, the "input", "cross" between the networks, "none", or "split".
        propagation: Which network decodes the mixed latent: "none", "student", or
            "both" (then later taps and outputs are matched too).
        mix_tap: Name of the tap that is mixed, "" for the last, "random" for one
            drawn in every step.
        lambda_law: Name in `lmkd_tf.distill.lambda_laws.LAMBDA_LAWS`.
        lambda_range: Range (low, high) of the law "uniform".
        granularity: One λ per "sample", "batch", "tap" (and sample) or "band".
        mix_prob: Share of the examples that is mixed, in [0, 1].
        distance: "mse", or a name in `feature_losses`.
        projector: Name in `projectors.PROJECTORS`, or "review".
        tap_weights: c_l of each tap; empty for equal ones. They are divided by their sum.
        position_weight: "equal", or "teacher_advantage" for frames in which the
            teacher's output is better than the student's (our own candidate).
        noise_specific_weight: ρ of the mixing "split": |m|^2 + ρ |d|^2.
        output_loss: Name in `output_losses.OUTPUT_LOSSES`.
        mixed_weight: w_m of the decoded mixture.
        latent_weight: w_f of the latent distance.
        output_weight: w_o of the distance of the outputs.
        schedule: Name in `lmkd_tf.distill.schedules.SCHEDULES`.
        schedule_steps: Steps until the schedule is through.

    Raises:
        ValueError: If a name is unknown, a number out of range, or two settings
            exclude each other.
    """

    pairing: str = "same_clean"
    mixing: str = "both"
    propagation: str = "student"
    mix_tap: str = ""
    lambda_law: str = "beta"
    lambda_range: tuple[float, float] = (0.0, 1.0)
    granularity: str = "sample"
    mix_prob: float = 1.0
    distance: str = "mse"
    projector: str = "linear"
    tap_weights: tuple[float, ...] = ()
    position_weight: str = "equal"
    noise_specific_weight: float = 1.0
    output_loss: str = "waveform"
    mixed_weight: float = 1.0
    latent_weight: float = 1.0
    output_weight: float = 0.0
    schedule: str = "joint"
    schedule_steps: int = 1000

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            check_choice(name, getattr(self, name), known)
        for name in ("lambda_range", "tap_weights"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        self._check_numbers()
        self._check_combination()

    @property
    def is_pointwise(self) -> bool:
        """Whether the distance compares position by position, in one width."""
        return self.distance == "mse" or self.distance in POINTWISE

    @property
    def takes_cached_latents(self) -> bool:
        """Whether the teacher's latents of the two views are all that is needed of it."""
        return (
            self.pairing == "same_clean"
            and self.mixing in ("both", "teacher", "none", "split")
            and self.propagation != "both"
            and not self.output_weight
            and self.position_weight == "equal"
        )

    @property
    def is_tap_drawn(self) -> bool:
        """Whether the tap that is mixed is drawn in every step."""
        return self.mix_tap == RANDOM_TAP

    def _check_numbers(self) -> None:
        negative = [name for name in _WEIGHTS if not getattr(self, name) >= 0]
        if negative or any(not weight >= 0 for weight in self.tap_weights):
            _refuse(
                "The weights of an objective must not be negative.",
                self,
                negative or ["tap_weights"],
                "Use 0 to switch a term off.",
            )
        if self.tap_weights and not sum(self.tap_weights) > 0:
            _refuse(
                "One tap must have a weight.", self, ["tap_weights"], "Leave them out for equal."
            )
        low, high = self.lambda_range
        if not (0.0 <= low <= high <= 1.0 and 0.0 <= self.mix_prob <= 1.0):
            _refuse(
                "λ and the share of mixed examples must lie in [0, 1].",
                self,
                ["lambda_range", "mix_prob"],
                "Use for example (0.5, 1.0) and 1.0.",
            )
        if self.schedule_steps < 1:
            _refuse("A schedule needs steps.", self, ["schedule_steps"], "Use at least 1.")

    def _check_combination(self) -> None:
        for holds, rule, names, remedy in _COMBINATIONS:
            if not holds(self):
                _refuse(rule, self, names, remedy)


# Settings that exclude each other: what has to hold, rule, settings, remedy.
_COMBINATIONS: list[tuple[Callable[[Objective], bool], str, list[str], str]] = [
    (
        lambda o: o.propagation != "both" or o.mixing == "both",
        "Both networks can decode a mixed latent only where both mix theirs.",
        ["propagation", "mixing"],
        'Use mixing="both".',
    ),
    (
        lambda o: (
            not o.is_tap_drawn or (o.mixing in ("both", "student") and o.propagation == "student")
        ),
        "The tap can be drawn only where the student's mixed latent is decoded.",
        ["mix_tap", "mixing", "propagation"],
        'Use mixing="both" and propagation="student".',
    ),
    (
        lambda o: o.granularity != "band" or o.mixing == "input",
        "λ can be drawn per band only for signals, since latents have no bands in common.",
        ["granularity", "mixing"],
        'Use mixing="input".',
    ),
    (
        lambda o: o.granularity != "tap" or o.mixing == "both",
        "λ can be drawn per tap only where both networks mix their latents.",
        ["granularity", "mixing"],
        'Use mixing="both".',
    ),
    (
        lambda o: o.mixing not in ("split", "cross") or o.distance == "mse",
        "This mixing is defined for the squared error.",
        ["mixing", "distance"],
        'Use distance="mse".',
    ),
    (
        lambda o: o.position_weight == "equal" or o.is_pointwise,
        "Positions can be weighted only where the distance compares them one by one.",
        ["position_weight", "distance"],
        'Use distance="mse".',
    ),
    (
        lambda o: o.position_weight == "equal" or o.mixing in ("both", "teacher", "none"),
        "The advantage of the teacher is known only where it enhances both views.",
        ["position_weight", "mixing"],
        'Use mixing="both".',
    ),
    (
        lambda o: o.mixing != "student" or o.propagation != "none" or not o.output_weight,
        "The output of a mixture is compared only where the student decodes it.",
        ["mixing", "propagation", "output_weight"],
        'Use propagation="student".',
    ),
    (
        lambda o: o.lambda_law != "snr_aware" or o.granularity != "batch",
        "A λ that follows the SNR is drawn for each example.",
        ["lambda_law", "granularity"],
        'Use granularity="sample".',
    ),
]


def _refuse(rule: str, objective: Objective, names: list[str], remedy: str) -> None:
    received = ", ".join(f"{name}={getattr(objective, name)!r}" for name in names)
    raise ValueError(f"{rule} Received {received}. {remedy}")


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuses a value that is not among the known ones.

    Raises:
        ValueError: Naming the near values.
    """
    if value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=3) or known
    raise ValueError(
        f"`{name}` must be a name that exists. Received {value!r}. Use one of: {', '.join(near)}."
    )


# No mixing and no propagation: the networks are compared on both views as they are.
_MATCHING = Objective(mixing="none", propagation="none", mixed_weight=0.0)
_OUTPUT = dataclasses.replace(_MATCHING, latent_weight=0.0, output_weight=1.0)
_MIXUP = Objective()


def _matching(distance: str, weight: float, **changes: Any) -> Objective:
    settings = {"projector": "none", **changes}
    return dataclasses.replace(_MATCHING, distance=distance, latent_weight=weight, **settings)


def _output(loss: str, weight: float) -> Objective:
    return dataclasses.replace(_OUTPUT, output_loss=loss, output_weight=weight)


def _mixup(**changes: Any) -> Objective:
    return dataclasses.replace(_MIXUP, **changes)


# The methods that can be run by name. `docs/formula.md` has the source of each.
METHODS: dict[str, Objective] = {
    # the reconstruction, its parts and its control
    "latent_mixup": _MIXUP,
    "no_kd": dataclasses.replace(_MATCHING, latent_weight=0.0),
    "lambda_free": Objective(
        mixing="split", propagation="none", mixed_weight=0.0, noise_specific_weight=1.0 / 3.0
    ),
    "latent_mixup_matching": _mixup(propagation="none", mixed_weight=0.0),
    "latent_mixup_augmentation": _mixup(latent_weight=0.0),
    # other readings of the abstract (method F1, F3, F4, F5) and manifold mixup
    "input_mixup": _mixup(mixing="input", latent_weight=0.0, output_weight=1.0),
    "linearized_teacher": _mixup(mixing="teacher"),
    "propagated_mixup": _mixup(propagation="both", output_weight=1.0),
    "cross_mixup": _mixup(mixing="cross", propagation="none", mixed_weight=0.0),
    "student_mixup": _mixup(mixing="student"),
    "manifold_mixup": _mixup(pairing="other_clean", mix_tap=RANDOM_TAP, granularity="batch"),
    # our own candidates
    "advantage_mixup": _mixup(position_weight="teacher_advantage"),
    "snr_mixup": _mixup(lambda_law="snr_aware"),
    "band_mixup": _mixup(mixing="input", granularity="band"),
    "path_mixup": _mixup(mixing="input"),
    # rivals; each weight brings the gradient on the student to about the norm of the supervised one
    "output_waveform": _output("waveform", 200.0),
    "output_spectrum": _output("spectrum", 12.0),
    "output_mask": _output("mask", 5.0),
    "dispatch": _output("dispatch", 0.7),
    "dispatch_multi_scale": _output("dispatch_multi_scale", 0.6),
    "frequency_adaptive": _output("frequency_adaptive", 0.12),
    "fitnets": dataclasses.replace(_MATCHING),
    "attention_transfer": _matching("attention", 40.0),
    "similarity_preserving": _matching("similarity", 20.0),
    "frame_similarity": _matching("frame_similarity", 100.0),
    "fine_grained_similarity": _matching("fine_grained", 200.0, schedule="two_step"),
    "multi_view_attention": _matching("multi_view", 80.0),
    "attention_kl": _matching("attention_kl", 0.015),
    "review": _matching("hierarchical", 4.0, projector=REVIEW),
    "cosine": _matching("cosine", 3.0, projector="inverted_bottleneck"),
}


def objective_of(method: str, **changes: Any) -> Objective:
    """Returns the objective of a method, with some of its settings changed.

    Args:
        method: Name in `METHODS`.
        **changes: Settings of `Objective`.

    Raises:
        ValueError: If the name is unknown or the settings exclude each other.

    Example:
        >>> objective_of("fitnets", distance="cosine").mixing
        'none'
    """
    check_choice("method", method, tuple(METHODS))
    return dataclasses.replace(METHODS[method], **changes)
