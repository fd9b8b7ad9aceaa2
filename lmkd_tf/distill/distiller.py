# SPDX-License-Identifier: Apache-2.0
"""`LatentMixupDistiller`: taps, projectors and the formula behind `fit`."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lmkd_tf.distill.latent_mixup import latent_mixup_loss, mix_latents, sample_mixup_lambda
from lmkd_tf.distill.projectors import build_projector
from lmkd_tf.models.taps import FeatureTap, tap_model

_VIEWS = ("first_view", "second_view")
_TERMS = ("supervised_loss", "mixed_latent_loss", "latent_loss", "output_loss")
_VARIANCE_MOMENTUM = 0.99


@keras.saving.register_keras_serializable(package="lmkd_tf")
class LatentMixupDistiller(keras.Model):
    """Distills a teacher into a student by mixing latents of two noisy views.

    A training batch is `({"first_view": x_a, "second_view": x_b}, s)`: two noisy
    versions of the same clean `s`. The loss, a reconstruction (`docs/formula.md`):

        1/2 [L(S(x_a), s) + L(S(x_b), s)]             supervised_loss
        + w (w_m L(S_tail(z_S), s)                     mixed_latent_loss
             + w_f mean over taps D(P z_S, z_T)        latent_loss
             + w_o mean (S(x) - T(x))^2)               output_loss

    with L the loss given to `compile` and w = `distillation_weight`. Both views pass
    student and teacher once, as one batch of 2B. The teacher is frozen, runs in
    inference mode and is not part of the distiller's weights; `save` stores it
    with the distiller, so that training can go on. `predict` and `call` take noisy
    input alone.

    Args:
        teacher: Trained model, same input and output as the student.
        student: Model to train: functional, or one with `tapped(layer_names)`.
        taps: `FeatureTap`s or triples `(name, teacher_layer, student_layer)`, input
            to output; the last one's mixed latent goes on through the student.
        mixup_alpha: α of λ ~ Beta(α, α), above zero.
        distillation_weight: w; 0 trains the plain student on the same pairs.
        term_weights: `(w_m, w_f, w_o)`.
        seed: Seed of λ.

    Raises:
        ValueError: If a tap's layer does not exist or its two latents differ in
            more than width, or a weight is out of range.
    """

    def __init__(
        self,
        *,
        teacher: Any,
        student: Any,
        taps: Sequence[FeatureTap | Sequence[str]],
        mixup_alpha: float = 1.0,
        distillation_weight: float = 1.0,
        term_weights: Sequence[float] = (1.0, 1.0, 0.0),
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _check_weights(mixup_alpha, distillation_weight, term_weights)
        self.taps = [tap if isinstance(tap, FeatureTap) else FeatureTap(*tap) for tap in taps]
        if not self.taps:
            raise ValueError(
                "`taps` must name at least one pair of layers. Received an empty list. "
                'Use for example [("bottleneck", "block_12", "block_8")].'
            )
        teacher.trainable = False
        self.student = student
        # A tuple inside a plain object is not tracked: the teacher stays out of
        # the distiller's weights, checkpoints of it and the optimizer.
        self._frozen = _Frozen(teacher, [tap.teacher_layer for tap in self.taps])
        self._tapped_student = tap_model(student, [tap.student_layer for tap in self.taps])
        self.mixup_alpha = mixup_alpha
        self.distillation_weight = distillation_weight
        self.term_weights = tuple(float(weight) for weight in term_weights)
        self.seed = seed
        self._lambda_seed = keras.random.SeedGenerator(seed)
        self.projectors = [
            build_projector(student_width, teacher_width, tap.name)
            for tap, student_width, teacher_width in zip(
                self.taps, self._tapped_student.widths, self._frozen.tapped.widths, strict=True
            )
        ]
        # One running variance per tap, and the number of updates.
        self._teacher_variance = self.add_weight(
            shape=(len(self.taps),), initializer="zeros", trainable=False, name="teacher_variance"
        )
        self._num_updates = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="num_updates"
        )
        self._term_trackers = [keras.metrics.Mean(name=name) for name in _TERMS]
        self._lambda_tracker = keras.metrics.Mean(name="mixup_lambda")
        self.built = True

    @property
    def teacher(self) -> Any:
        """The frozen teacher."""
        return self._frozen.model

    def call(self, inputs, training: bool = False):
        """Runs the student; of a pair of views it takes the first."""
        noisy = inputs[_VIEWS[0]] if isinstance(inputs, dict) else inputs
        return self.student(noisy, training=training)

    def train_step(self, data):
        """Updates student and projectors on one batch of pairs."""
        import tensorflow as tf

        x, speech, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.optimizer.built:
            # Projectors too where they are not trained, as when a file is loaded.
            self.optimizer.build([*self._tapped_student.trainable_variables, *self._projections()])
        with tf.GradientTape() as tape:
            terms, enhanced = self.objective(x, speech, sample_weight, training=True)
            loss = self._weighted_sum(terms)
            scaled_loss = self.optimizer.scale_loss(loss)
        variables = self._variables_to_train()
        raw = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        gradients = tape.gradient(scaled_loss, raw)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._log(loss, terms, x, speech, enhanced, sample_weight)

    def test_step(self, data):
        """Evaluates with λ = 1/2 on pairs, or the supervised loss on single views."""
        x, speech, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if isinstance(x, dict):
            terms, enhanced = self.objective(x, speech, sample_weight, training=False)
        else:
            enhanced = self(x, training=False)
            terms = [self._supervised(speech, enhanced, sample_weight), None, None, None]
        return self._log(self._weighted_sum(terms), terms, x, speech, enhanced, sample_weight)

    def objective(self, views: dict, speech, sample_weight=None, *, training: bool):
        """Computes the terms of the loss.

        Args:
            views: `{"first_view": x_a, "second_view": x_b}`, each `(B, ...)`.
            speech: Clean target s, `(B, ...)`.
            sample_weight: One weight per example, `(B,)`, or None.
            training: Whether weights and statistics may change; if not, λ = 1/2.

        Returns:
            The four terms (None for one that is switched off), unweighted scalars,
            and the student's output for the first view.

        Raises:
            ValueError: If `views` is anything else.
        """
        if not isinstance(views, dict) or set(views) != set(_VIEWS):
            raise ValueError(
                "Latent mixup needs two noisy views of the same clean speech. "
                f"Received {_describe(views)}. "
                "Use batches ({'first_view': x_a, 'second_view': x_b}, speech)."
            )
        both = ops.concatenate([views[name] for name in _VIEWS], axis=0)  # (2B, ...)
        latents, context = self._tapped_student.encode(both, training=training)
        if not self.distillation_weight:
            outputs = self._tapped_student.decode(latents[-1], context, training=training)
            supervised, enhanced = self._supervised_term(outputs, speech, sample_weight)
            return [supervised, None, None, None], enhanced
        mixup_lambda = self._draw_lambda(ops.shape(speech)[0], training)
        mixed_latents = [_mix_halves(latent, mixup_lambda) for latent in latents]
        # One pass of the tail for [x_a, x_b, mixed], so that each layer runs once.
        outputs = self._tapped_student.decode(
            ops.concatenate([latents[-1], mixed_latents[-1]], axis=0),
            [ops.concatenate([c, _mix_halves(c, mixup_lambda)], axis=0) for c in context],
            training=training,
        )
        num_both = ops.shape(both)[0]
        supervised, enhanced = self._supervised_term(outputs[:num_both], speech, sample_weight)
        mixed = self._supervised(speech, outputs[num_both:], sample_weight)
        teacher_latents, teacher_context = self._frozen.tapped.encode(both, training=False)
        latent = self._latent_term(
            mixed_latents, teacher_latents, mixup_lambda, sample_weight, training
        )
        output = None
        if self.term_weights[2]:
            taught = self._frozen.tapped.decode(
                teacher_latents[-1], teacher_context, training=False
            )
            output = _output_distance(outputs[:num_both], taught, sample_weight)
        return [supervised, mixed, latent, output], enhanced

    def _supervised(self, speech, enhanced, sample_weight):
        """Applies the loss given to `compile`."""
        if self.loss is None:
            raise ValueError(
                "`compile` must be given the supervised loss. Received loss=None. "
                "Use compile(optimizer=..., loss=lmkd_tf.SpeechLoss())."
            )
        return _as_loss(self.loss)(speech, enhanced, sample_weight)

    def _draw_lambda(self, batch_size, training: bool):
        if not training:
            return ops.full((batch_size,), 0.5)
        drawn = sample_mixup_lambda(batch_size, self.mixup_alpha, self._lambda_seed)
        self._lambda_tracker.update_state(drawn)
        return drawn

    def _supervised_term(self, outputs, speech, sample_weight):
        first, second = ops.split(outputs, 2, axis=0)
        terms = [self._supervised(speech, view, sample_weight) for view in (first, second)]
        return 0.5 * (terms[0] + terms[1]), first

    def _latent_term(self, mixed, teacher_latents, mixup_lambda, sample_weight, training):
        variances = self._update_variance(teacher_latents, training)
        distances = []
        for index, projector in enumerate(self.projectors):
            target = _mix_halves(ops.stop_gradient(teacher_latents[index]), mixup_lambda)
            distance = latent_mixup_loss(projector(mixed[index]), target, variances[index])
            distances.append(_weighted_mean(distance, sample_weight))
        return sum(distances) / len(distances)

    def _update_variance(self, teacher_latents, training: bool):
        batch = ops.stack([ops.var(latent) for latent in teacher_latents]) + 1e-6
        is_first = ops.equal(self._num_updates, 0.0)
        if not training:
            return ops.where(is_first, batch, self._teacher_variance)
        momentum = ops.where(is_first, 0.0, _VARIANCE_MOMENTUM)
        variance = momentum * self._teacher_variance + (1.0 - momentum) * batch
        self._teacher_variance.assign(variance)
        self._num_updates.assign_add(1.0)
        return variance

    def _weighted_sum(self, terms):
        loss = terms[0]
        for weight, term in zip(self.term_weights, terms[1:], strict=True):
            if term is not None:
                loss = loss + self.distillation_weight * weight * term
        return loss

    def _variables_to_train(self) -> list[Any]:
        used = self._projections() if self.distillation_weight and self.term_weights[1] else []
        return self._tapped_student.trainable_variables + used

    def _projections(self) -> list[Any]:
        return [v for projector in self.projectors for v in projector.trainable_variables]

    def _log(self, loss, terms, x, speech, enhanced, sample_weight):
        next(metric for metric in self.metrics if metric.name == "loss").update_state(loss)
        for tracker, term in zip(self._term_trackers, terms, strict=True):
            if term is not None:
                tracker.update_state(term)
        return self.compute_metrics(x, speech, enhanced, sample_weight=sample_weight)

    def get_config(self) -> dict:
        """Returns the constructor arguments as plain values."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "teacher": serialize(self.teacher),
            "student": serialize(self.student),
            "taps": [[tap.name, tap.teacher_layer, tap.student_layer] for tap in self.taps],
            "mixup_alpha": self.mixup_alpha,
            "distillation_weight": self.distillation_weight,
            "term_weights": list(self.term_weights),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None):
        """Builds the distiller from `get_config`."""
        models = {
            role: keras.saving.deserialize_keras_object(config[role], custom_objects=custom_objects)
            for role in ("teacher", "student")
        }
        return cls(**{**config, **models})

    def save_own_variables(self, store) -> None:
        """Writes the distiller's own state, the stream of λ and the teacher's weights."""
        super().save_own_variables(store)
        store["lambda_seed"] = ops.convert_to_numpy(self._lambda_seed.state)
        for index, weight in enumerate(self.teacher.weights):
            store[f"teacher_{index}"] = ops.convert_to_numpy(weight)

    def load_own_variables(self, store) -> None:
        """Reads what `save_own_variables` wrote."""
        names = [name for name in store.keys() if not name.startswith("teacher_")]  # noqa: SIM118 - an HDF5 group
        own = {name: store[name] for name in names}
        self._lambda_seed.state.assign(own.pop("lambda_seed"))
        super().load_own_variables(own)
        for index, weight in enumerate(self.teacher.weights):
            weight.assign(store[f"teacher_{index}"])


class _Frozen:
    """Holds the teacher where Keras does not track it."""

    def __init__(self, model: Any, layer_names: list[str]):
        self.model = model
        self.tapped = tap_model(model, layer_names)


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


def _mix_halves(pair, mixup_lambda):
    """Mixes the first and second half of a batch of 2B with λ of shape `(B,)`."""
    first, second = ops.split(pair, 2, axis=0)
    return mix_latents(first, second, mixup_lambda)


def _output_distance(outputs, taught, sample_weight):
    error = ops.square(outputs - ops.stop_gradient(taught))
    per_example = ops.mean(error, axis=tuple(range(1, len(error.shape))))
    first, second = ops.split(per_example, 2)
    return _weighted_mean(0.5 * (first + second), sample_weight)


def _weighted_mean(per_example, sample_weight):
    if sample_weight is None:
        return ops.mean(per_example)
    weight = ops.reshape(ops.cast(sample_weight, per_example.dtype), (-1,))  # (B,) or (B, 1)
    return ops.mean(per_example * weight)


def _check_weights(mixup_alpha, distillation_weight, term_weights) -> None:
    if mixup_alpha <= 0:
        raise ValueError(
            "`mixup_alpha` must be positive. "
            f"Received mixup_alpha={mixup_alpha}. Use 1.0 for a uniform coefficient."
        )
    if len(term_weights) != 3 or min(distillation_weight, *term_weights) < 0:
        raise ValueError(
            "`distillation_weight` and the three `term_weights` must not be negative. "
            f"Received {distillation_weight} and {tuple(term_weights)}. "
            "Use for example 1.0 and (1.0, 1.0, 0.0)."
        )


def _describe(x: Any) -> str:
    if isinstance(x, dict):
        return f"a dict with the keys {sorted(x)}"
    return f"{type(x).__name__} of shape {getattr(x, 'shape', 'unknown')}"
