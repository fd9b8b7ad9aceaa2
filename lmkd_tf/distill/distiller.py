# SPDX-License-Identifier: Apache-2.0
"""`LatentMixupDistiller`: taps, projectors and an objective behind `fit`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lmkd_tf.distill.checks import (
    CACHED,
    VIEWS,
    check_equal_widths,
    check_models,
    check_sample_weight,
    check_views,
    check_weights,
    find_mix_index,
)
from lmkd_tf.distill.latent_mixup import mix_latents
from lmkd_tf.distill.mixture import Mixer, MixtureSource
from lmkd_tf.distill.networks import blend_inputs, run_student, run_teacher
from lmkd_tf.distill.objective import REVIEW, Objective, objective_of
from lmkd_tf.distill.output_losses import OUTPUT_LOSSES
from lmkd_tf.distill.projectors import align_grid, build_projector, width_of
from lmkd_tf.distill.review import ReviewFusion
from lmkd_tf.distill.schedules import SCHEDULES
from lmkd_tf.distill.streams import run_plain
from lmkd_tf.distill.terms import (
    lambda_free_term,
    latent_term,
    teacher_advantage,
    weighted_mean,
)
from lmkd_tf.distill.training import PairTrainer, num_replicas, regularization, replica_mean
from lmkd_tf.distill.views import PAIRINGS, Pair
from lmkd_tf.models.taps import FeatureTap, tap_model

_TERMS = ("supervised_loss", "mixed_latent_loss", "latent_loss", "output_loss")
_VARIANCE_MOMENTUM = 0.99
_VARIANCE_FLOOR = 1e-6


@keras.saving.register_keras_serializable(package="lmkd_tf")
class LatentMixupDistiller(PairTrainer):
    """Distills a teacher into a student by mixing latents of two noisy views.

    A training batch is `({"first_view": x_a, "second_view": x_b}, s)`: two noisy
    versions of the same clean `s`. The loss, a reconstruction (`docs/formula.md`):

        1/2 [L(S(x_a), s) + L(S(x_b), s)]             supervised_loss
        + w (w_m L(S_tail(z_S), s)                     mixed_latent_loss
             + w_f sum over taps c_l D(P z_S, z_T)     latent_loss
             + w_o D_o(S(x), T(x)))                    output_loss

    with L the loss that the model is compiled with and w = `distillation_weight`; weight
    regularizers of the student add to it. Both views pass student and teacher once, as one
    batch of 2B. The teacher is frozen, runs in inference mode and is not part of the
    distiller's weights; it is saved with the distiller, so that training can go on.
    Prediction and `call` take noisy input alone.

    Logs: the loss, the four terms, `mixup_lambda` (mean of λ) and `mixup_spread` (mean of
    (2 λ - 1)^2, the weight of the noise-specific error: 1 / (2 α + 1) for Beta(α, α)).

    Args:
        *positional: Refused, since teacher and student are easily swapped.
        teacher: Trained model, same input and output as the student.
        student: Model to train: functional, or one with `tapped(layer_names, cut_names)`.
        taps: `FeatureTap`s or triples `(name, teacher_layer, student_layer)`, input
            to output.
        objective: An `Objective`, or the name of a method in `METHODS`.
        mixup_alpha: α of λ ~ Beta(α, α), above zero.
        distillation_weight: w; 0 trains the plain student on the same pairs.
        seed: Seed of λ.

    Raises:
        TypeError: If the models are given by position.
        ValueError: If a tap's layer does not exist, its two latents cannot be
            matched, a weight is out of range, or the student is part of the teacher.
    """

    def __init__(
        self,
        *positional: Any,
        teacher: Any = None,
        student: Any = None,
        taps: Sequence[FeatureTap | Sequence[str]] = (),
        objective: Objective | str = "latent_mixup",
        mixup_alpha: float = 1.0,
        distillation_weight: float = 1.0,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_models(positional, teacher, student, taps)
        check_weights(mixup_alpha, distillation_weight)
        self.taps = [tap if isinstance(tap, FeatureTap) else FeatureTap(*tap) for tap in taps]
        self.objective = _resolve(objective)
        self._mix_index = find_mix_index(self.taps, self.objective)
        teacher.trainable = False
        self.student = student
        # A plain object is not tracked: the teacher stays out of the distiller's weights,
        # checkpoints of it and the optimizer.
        self._frozen = _Frozen(teacher, self._cut(teacher, "teacher_layer", [self._mix_index]))
        every_tap = list(range(len(self.taps)))
        cuts = every_tap if self.objective.is_tap_drawn else [self._mix_index]
        self._tapped_student = self._cut(student, "student_layer", cuts)
        self.mixup_alpha = mixup_alpha
        self.distillation_weight = distillation_weight
        self.seed = seed
        self._lambda_seed = keras.random.SeedGenerator(seed)
        self._mixture = MixtureSource(
            self.objective, mixup_alpha, len(self.taps), self._mix_index, self._lambda_seed
        )
        self.projectors = self._build_projectors()
        self._add_state()
        self.built = True

    def _cut(self, model: Any, layer: str, cuts: list[int]) -> Any:
        names = [getattr(tap, layer) for tap in self.taps]
        return tap_model(model, names, [names[cut] for cut in cuts])

    def _add_state(self) -> None:
        # Per tap: running mean and mean square of the teacher's latent.
        self._teacher_moments = self.add_weight(
            shape=(2, len(self.taps)),
            initializer="zeros",
            trainable=False,
            aggregation="mean",
            name="teacher_moments",
        )
        self._num_updates = self.add_weight(
            shape=(), initializer="zeros", trainable=False, aggregation="mean", name="num_updates"
        )
        self._term_trackers = [keras.metrics.Mean(name=name) for name in _TERMS]
        self._lambda_tracker = keras.metrics.Mean(name="mixup_lambda")
        self._spread_tracker = keras.metrics.Mean(name="mixup_spread")

    @property
    def teacher(self) -> Any:
        """The frozen teacher."""
        return self._frozen.model

    @property
    def tapped_teacher(self) -> Any:
        """The frozen teacher as a `TappedModel`."""
        return self._frozen.tapped

    def call(self, inputs, training: bool = False):
        """Runs the student; of a pair of views it takes the first."""
        noisy = inputs[VIEWS[0]] if isinstance(inputs, dict) else inputs
        return self.student(noisy, training=training)

    def forward(self, data, *, training: bool):
        """Computes the loss of one batch of pairs, or of single views in evaluation.

        In evaluation λ = 1/2, and no weight, statistic or seed changes.
        """
        x, speech, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if training or isinstance(x, dict):
            terms, enhanced = self.terms(x, speech, sample_weight, training=training)
        else:
            enhanced = self(x, training=False)
            terms = [self._supervised(speech, enhanced, sample_weight), None, None, None]
        loss = self._weighted_sum(terms, training) + regularization(self.student)
        for tracker, term in zip(self._term_trackers, terms, strict=True):
            if term is not None:
                tracker.update_state(term)
        if training:
            self._num_updates.assign_add(1.0)
        return loss, (x, speech, enhanced, sample_weight)

    def terms(self, views: dict, speech, sample_weight=None, *, training: bool):
        """Computes the terms of the loss.

        Args:
            views: `{"first_view": x_a, "second_view": x_b}`, each `(B, ...)`, and, if
                they are cached, `"teacher_latents"`.
            speech: Clean target s, `(B, ...)`.
            sample_weight: One weight per example, `(B,)`, or None.
            training: Whether weights and statistics may change; if not, λ = 1/2.

        Returns:
            The four terms (None for one that is switched off), unweighted scalars,
            and the student's output for the first view.

        Raises:
            ValueError: If `views` is anything else, or the views differ in shape.
        """
        check_views(views)
        seed = self._lambda_seed if training else self.seed  # evaluation draws the same each time
        pair = PAIRINGS[self.objective.pairing](*(views[name] for name in VIEWS), speech, seed)
        check_sample_weight(pair, sample_weight)
        both = ops.concatenate([pair.first, pair.second])  # (2B, ...)
        if not self._distills():
            _, output = run_plain(self._tapped_student, both, training=training)
            supervised, enhanced = self._supervised_term(output, pair, sample_weight)
            return [supervised, None, None, None], enhanced
        mixer, drawn = self._mixture.draw(pair, training)
        if training and drawn is not None:
            self._lambda_tracker.update_state(drawn)
            self._spread_tracker.update_state(ops.square(2.0 * drawn - 1.0))
        blend = blend_inputs(self.objective, pair, mixer, self._frame)
        student = run_student(
            self._tapped_student, self.objective, both, blend, mixer, training=training
        )
        teacher = run_teacher(
            self._frozen.tapped, self.objective, both, blend, mixer, cached=views.get(CACHED)
        )
        supervised, enhanced = self._supervised_term(student.output, pair, sample_weight)
        mixed = None
        if student.mixed_output is not None and self.objective.mixed_weight:
            target = pair.mixed_speech(mixer.mixup_lambda)
            mixed = self._supervised(target, student.mixed_output, sample_weight)
        latent = output = None
        if self.objective.latent_weight and self.objective.mixing == "cross":
            latent = self._cross_term(student, teacher, both, mixer, pair, sample_weight, training)
        elif self.objective.latent_weight:
            latent = self._latent_term(student, teacher, pair, mixer, sample_weight, training)
        if self.objective.output_weight:
            output = self._output_term(student, teacher, pair, blend, mixer, sample_weight)
        return [supervised, mixed, latent, output], enhanced

    def _distills(self) -> bool:
        weights = (
            self.objective.mixed_weight,
            self.objective.latent_weight,
            self.objective.output_weight,
        )
        return bool(self.distillation_weight) and any(weights)

    @property
    def _frame(self) -> Any:
        return getattr(self.student, "stft", None)

    # ---- the terms

    def _supervised(self, speech, enhanced, sample_weight):
        """Applies the loss given to `compile`, unscaled by the number of replicas."""
        if self.loss is None:
            raise ValueError(
                "`compile` must be given the supervised loss. Received loss=None. "
                "Use compile(optimizer=..., loss=lmkd_tf.SpeechLoss())."
            )
        return _as_loss(self.loss)(speech, enhanced, sample_weight) * num_replicas()

    def _supervised_term(self, output, pair: Pair, sample_weight):
        first, second = ops.split(output, 2, axis=0)
        terms = [
            self._supervised(pair.first_speech, first, sample_weight),
            self._supervised(pair.second_speech, second, sample_weight),
        ]
        return 0.5 * (terms[0] + terms[1]), first

    def _latent_term(self, student, teacher, pair, mixer, sample_weight, training: bool):
        objective = self.objective
        projected = self._project(student.mixed_latents, teacher.mixed_latents, training)
        variances = self._variances(teacher.latents, training)
        position_weight = self._position_weight(student, teacher, pair, mixer)
        distances = []
        for tap, target in enumerate(teacher.mixed_latents):
            target = ops.cast(ops.stop_gradient(target), "float32")
            latent = ops.cast(projected[tap], "float32")
            if objective.mixing == "split":
                distance = lambda_free_term(
                    latent, target, variances[tap], objective.noise_specific_weight
                )
            else:
                distance = latent_term(
                    objective.distance, latent, target, variances[tap], position_weight
                )
            distances.append(weighted_mean(distance, sample_weight))
        weights = objective.tap_weights or (1.0,) * len(distances)
        if mixer.chosen is not None:
            weights = [len(distances) * mixer.chosen[i] * w for i, w in enumerate(weights)]
        total = sum(objective.tap_weights or (1.0,) * len(distances))
        return sum(w * d for w, d in zip(weights, distances, strict=True)) / total

    def _project(self, latents, teacher_latents, training: bool):
        aligned = [align_grid(*pair) for pair in zip(latents, teacher_latents, strict=True)]
        if self.objective.projector == REVIEW:
            return self.projectors[0](aligned, training=training)
        return [project(z) for project, z in zip(self.projectors, aligned, strict=True)]

    def _position_weight(self, student, teacher, pair: Pair, mixer: Mixer):
        if self.objective.position_weight == "equal":
            return None
        speech = ops.concatenate([pair.first_speech, pair.second_speech])
        weight = teacher_advantage(student.output, teacher.output, speech, self._frame)
        is_mixed = self.objective.mixing in ("both", "teacher")
        return mixer.of_input(weight) if is_mixed else weight

    def _cross_term(self, student, teacher, both, mixer, pair: Pair, sample_weight, training):
        """Supervised loss of the teacher's tail on a mixture of both networks' latents."""
        tap = self._mix_index
        projected = self._project(student.latents, teacher.latents, training)[tap]
        both_lambda = ops.tile(mixer.tap_lambdas[tap], (2,))
        crossed = mix_latents(projected, teacher.latents[tap], both_lambda)
        _, context = self._frozen.tapped.start(both)
        _, output = self._frozen.tapped.run(1, crossed, context, False)
        return self._supervised_term(output, pair, sample_weight)[0]

    def _output_term(self, student, teacher, pair: Pair, blend, mixer: Mixer, sample_weight):
        distance = OUTPUT_LOSSES[self.objective.output_loss]
        if teacher.mixed_output is not None:  # F1 and F4 compare what became of the mixture
            noisy = (
                blend
                if blend is not None
                else mixer.of_input(ops.concatenate([pair.first, pair.second]))
            )
            target = pair.mixed_speech(mixer.mixup_lambda)
            outputs = student.mixed_output, teacher.mixed_output
        else:
            noisy = ops.concatenate([pair.first, pair.second])
            target = ops.concatenate([pair.first_speech, pair.second_speech])
            outputs = student.output, teacher.output
        return weighted_mean(distance(*outputs, noisy, target, self._frame), sample_weight)

    def _variances(self, teacher_latents, training: bool):
        """Running variance per tap, over all replicas."""
        flat = [ops.cast(latent, "float32") for latent in teacher_latents]
        moments = [[ops.mean(z) for z in flat], [ops.mean(ops.square(z)) for z in flat]]
        batch = replica_mean(ops.stack([ops.stack(row) for row in moments]))
        running = ops.convert_to_tensor(self._teacher_moments)
        is_first = ops.equal(running[1], 0.0)  # no mean square yet
        if training:
            momentum = ops.where(is_first, 0.0, _VARIANCE_MOMENTUM)
            batch = momentum * running + (1.0 - momentum) * batch
            self._teacher_moments.assign(batch)
        else:
            batch = ops.where(is_first, batch, running)
        return ops.maximum(batch[1] - ops.square(batch[0]), 0.0) + _VARIANCE_FLOOR

    def _weighted_sum(self, terms, training: bool):
        supervised_factor, factor = 1.0, self.distillation_weight
        if training and self._distills():
            schedule = SCHEDULES[self.objective.schedule]
            supervised_factor, share = schedule(self._num_updates, self.objective.schedule_steps)
            factor = factor * share
        weights = (
            self.objective.mixed_weight,
            self.objective.latent_weight,
            self.objective.output_weight,
        )
        loss = supervised_factor * terms[0]
        for weight, term in zip(weights, terms[1:], strict=True):
            if term is not None:
                loss = loss + factor * weight * term
        return loss

    # ---- variables and files

    def _build_projectors(self) -> list[Any]:
        """Builds one projector per tap (one for all taps in "review")."""
        objective = self.objective
        student_shapes, teacher_shapes = self._tapped_student.shapes, self._frozen.tapped.shapes
        if objective.projector == REVIEW:
            fusion = ReviewFusion([width_of(shape) for shape in teacher_shapes])
            fusion.build(student_shapes)
            return [fusion]
        if objective.projector == "none" and (
            objective.is_pointwise or objective.mixing == "cross"
        ):
            check_equal_widths(self.taps, student_shapes, teacher_shapes)
        return [
            build_projector(objective.projector, student_shape, teacher_shape, tap.name)
            for tap, student_shape, teacher_shape in zip(
                self.taps, student_shapes, teacher_shapes, strict=True
            )
        ]

    def variables_to_train(self) -> list[Any]:
        """Variables of the student and of the projectors."""
        projections = [v for projector in self.projectors for v in projector.trainable_variables]
        return [*self._tapped_student.trainable_variables, *projections]

    def get_config(self) -> dict:
        """Returns the constructor arguments as plain values."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "teacher": serialize(self.teacher),
            "student": serialize(self.student),
            "taps": [[tap.name, tap.teacher_layer, tap.student_layer] for tap in self.taps],
            "objective": dataclasses.asdict(self.objective),
            "mixup_alpha": self.mixup_alpha,
            "distillation_weight": self.distillation_weight,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None):
        """Builds the distiller from `get_config`."""
        models = {
            role: keras.saving.deserialize_keras_object(config[role], custom_objects=custom_objects)
            for role in ("teacher", "student")
        }
        return cls(**{**config, **models, "objective": Objective(**config["objective"])})

    # Keras itself finds the teacher, as the value of a property, and stores its weights.

    def save_own_variables(self, store) -> None:
        """Writes the distiller's own state and the stream of λ."""
        super().save_own_variables(store)
        store["lambda_seed"] = ops.convert_to_numpy(self._lambda_seed.state)

    def load_own_variables(self, store) -> None:
        """Reads what `save_own_variables` wrote."""
        own = {name: store[name] for name in store.keys()}  # noqa: SIM118 - an HDF5 group
        self._lambda_seed.state.assign(own.pop("lambda_seed"))
        super().load_own_variables(own)


def _resolve(objective: Objective | str) -> Objective:
    return objective if isinstance(objective, Objective) else objective_of(objective)


class _Frozen:
    """Holds the teacher where Keras does not track it."""

    def __init__(self, model: Any, tapped: Any):
        self.model = model
        self.tapped = tapped


class _FunctionLoss(keras.losses.Loss):
    """A loss function such as `keras.losses.mean_squared_error` as a loss."""

    def __init__(self, function: Any):
        super().__init__(name=getattr(function, "__name__", "loss"))
        self._function = function

    def call(self, y_true, y_pred):
        return self._function(y_true, y_pred)


def _as_loss(loss: Any) -> keras.losses.Loss:
    loss = keras.losses.get(loss)
    return loss if isinstance(loss, keras.losses.Loss) else _FunctionLoss(loss)
