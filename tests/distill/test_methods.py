# SPDX-License-Identifier: Apache-2.0
"""Every method by its name: its loss by hand, or on a tiny enhancer where it needs frames."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill import mixture
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.lambda_laws import LAMBDA_LAWS
from lmkd_tf.distill.objective import METHODS, Objective, objective_of
from lmkd_tf.models.builder import build
from tests.distill.by_hand import LAMBDAS, early, head, mean_square, mix, network, pairs, tail

TAPS = [("bottleneck", "latent", "latent")]
TWO_TAPS = [("early", "early", "early"), *TAPS]
NAMES = ("supervised_loss", "mixed_latent_loss", "latent_loss", "output_loss")
FIRST, SECOND = slice(0, 4), slice(4, 8)


@pytest.fixture(autouse=True)
def fixed_seed(seeded):
    """Same initial weights in every test."""


@pytest.fixture(autouse=True)
def constant_lambda(monkeypatch):
    """Makes every law draw LAMBDAS."""
    for name in LAMBDA_LAWS:
        use_lambda(monkeypatch, LAMBDAS, name)


def use_lambda(monkeypatch, lambdas, law="beta"):
    def constant(shape, *_, **__):
        return ops.broadcast_to(ops.convert_to_tensor(lambdas), (shape[0], len(lambdas)))

    monkeypatch.setitem(LAMBDA_LAWS, law, constant)


def distiller_of(objective, teacher=None, student=None, taps=TAPS, loss: Any = "mse", **arguments):
    model = LatentMixupDistiller(
        teacher=teacher or network(7),
        student=student or network(4),
        taps=taps,
        objective=objective,
        **arguments,
    )
    model.compile(keras.optimizers.SGD(0.1), loss=loss, run_eagerly=True)
    return model


def step_of(model):
    """The loss of one step of training, and its terms, without an update of the weights."""
    model.reset_metrics()
    loss, _ = model.forward(pairs(), training=True)
    found = {m.name: float(m.result()) for m in model.metrics if m.name in NAMES}
    return {**found, "loss": float(loss)}


def terms_in_use(model):
    """Whether the terms besides the supervised one were computed at all."""
    metrics = {metric.name: metric for metric in model.metrics}
    return tuple(float(metrics[name].count) > 0 for name in NAMES[1:])


def term_of(model, index, training=True):
    return float(model.terms(*pairs(), training=training)[0][index])


class Batch:
    """A batch of pairs and what both networks make of it, in double precision."""

    def __init__(self, model, order=(0, 1, 2, 3)):
        views, speech = pairs()
        order = list(order)
        self.model, self.student, self.teacher = model, model.student, model.teacher
        self.x = np.array([*views["first_view"], *views["second_view"][order]], float)  # (2B, ...)
        self.speech = np.array([*speech, *speech[order]], float)
        self.blend = mix(self.x[FIRST], self.x[SECOND])
        self.latent, self.target = head(self.student, self.x), head(self.teacher, self.x)
        self.output, self.taught = tail(self.student, self.latent), tail(self.teacher, self.target)
        self.mixed, self.mixed_target = self.halves(self.latent), self.halves(self.target)

    def halves(self, both):
        return mix(both[FIRST], both[SECOND])

    def project(self, latent, tap=0):
        kernel, bias = (np.float64(v) for v in self.model.projectors[tap].get_weights())
        return latent @ kernel + bias

    def supervised(self):
        return mean_square(self.output - self.speech)

    def decoded(self):
        """Loss of the student's mixed latent, decoded, against the shared target."""
        return mean_square(tail(self.student, self.mixed) - self.speech[FIRST])

    def matched(self, latent, target, unmixed, tap=0):
        """Squared error over the variance of what the teacher made of its inputs."""
        return mean_square(self.project(latent, tap) - target) / (unmixed.var() + 1e-6)


def total_by_hand(method, model):
    """The loss of a method, written down once more."""
    order = [1, 2, 3, 0] if method == "manifold_mixup" else range(4)
    b = Batch(model, order)
    matched_mixtures = lambda: b.matched(b.mixed, b.mixed_target, b.target)  # noqa: E731 - the formula
    blended = head(b.student, b.blend), head(b.teacher, b.blend)
    decoded_blends = tail(b.student, blended[0]), tail(b.teacher, blended[1])
    extra = {
        "no_kd": lambda: 0.0,
        "latent_mixup": lambda: b.decoded() + matched_mixtures(),
        "latent_mixup_matching": matched_mixtures,
        "latent_mixup_augmentation": b.decoded,
        "snr_mixup": lambda: b.decoded() + matched_mixtures(),
        "lambda_free": lambda: lambda_free(b),
        "fitnets": lambda: b.matched(b.latent, b.target, b.target),
        "output_waveform": lambda: 200.0 * mean_square(b.output - b.taught),
        "cosine": lambda: 3.0 * cosine(b),
        "input_mixup": lambda: (
            mean_square(decoded_blends[0] - b.speech[FIRST])
            + mean_square(decoded_blends[0] - decoded_blends[1])
        ),
        "path_mixup": lambda: (
            mean_square(decoded_blends[0] - b.speech[FIRST]) + b.matched(*blended, blended[1])
        ),
        "linearized_teacher": lambda: (
            mean_square(decoded_blends[0] - b.speech[FIRST])
            + b.matched(blended[0], b.mixed_target, b.target)
        ),
        "student_mixup": lambda: b.decoded() + b.matched(b.mixed, blended[1], blended[1]),
        "propagated_mixup": lambda: (
            b.decoded()
            + matched_mixtures()
            + mean_square(tail(b.student, b.mixed) - tail(b.teacher, b.mixed_target))
        ),
        "cross_mixup": lambda: cross(b),
        "manifold_mixup": lambda: (
            mean_square(tail(b.student, b.mixed) - b.halves(b.speech)) + matched_mixtures()
        ),
        "advantage_mixup": lambda: b.decoded() + where_the_teacher_is_ahead(b),
    }
    return b.supervised() + extra[method]()


def lambda_free(b):
    error = b.project(b.latent) - b.target
    shared, specific = error[FIRST] + error[SECOND], error[FIRST] - error[SECOND]
    squares = mean_square(shared / 2) + mean_square(specific / 2) / 3  # alpha = 1
    return squares / (b.target.var() + 1e-6)


def cosine(b):
    one, other = (np.float64(w) for w in b.model.projectors[0].get_weights()[::2])
    biases = b.model.projectors[0].get_weights()[1::2]
    projected = np.maximum(b.latent @ one + biases[0], 0) @ other + biases[1]
    norms = np.linalg.norm(projected, axis=1) * np.linalg.norm(b.target, axis=1)
    return np.mean(1 - np.sum(projected * b.target, axis=1) / norms)


def cross(b):
    """Both views through the teacher's tail, from a mixture with the student's latent."""
    crossed = mix(b.project(b.latent), b.target, np.tile(LAMBDAS, 2))
    return mean_square(tail(b.teacher, crossed) - b.speech)


def where_the_teacher_is_ahead(b):
    errors = [np.mean((y - b.speech) ** 2, axis=1) for y in (b.output, b.taught)]
    weight = (errors[1] < errors[0]) / (np.mean(errors[1] < errors[0]) + 1e-3)
    assert len(set(weight)) == 2  # ahead in some, behind in others
    distance = np.mean((b.project(b.mixed) - b.mixed_target) ** 2, axis=1)
    return np.mean(b.halves(weight) * distance) / (b.target.var() + 1e-6)


# Which terms a method has besides the supervised one: mixed, latent, output.
DENSE_METHODS = {
    "no_kd": (False, False, False),
    "latent_mixup": (True, True, False),
    "latent_mixup_matching": (False, True, False),
    "latent_mixup_augmentation": (True, False, False),
    "snr_mixup": (True, True, False),
    "lambda_free": (False, True, False),
    "fitnets": (False, True, False),
    "output_waveform": (False, False, True),
    "cosine": (False, True, False),
    "input_mixup": (True, False, True),
    "path_mixup": (True, True, False),
    "linearized_teacher": (True, True, False),
    "student_mixup": (True, True, False),
    "propagated_mixup": (True, True, True),
    "cross_mixup": (False, True, False),
    "manifold_mixup": (True, True, False),
    "advantage_mixup": (True, True, False),
}


@pytest.mark.parametrize("method", sorted(DENSE_METHODS))
def test_the_loss_of_a_method_equals_its_formula_by_hand(method):
    model = distiller_of(method)
    loss, _ = model.forward(pairs(), training=True)
    assert float(loss) == pytest.approx(total_by_hand(method, model), rel=2e-5)
    assert terms_in_use(model) == DENSE_METHODS[method]


# ---- methods that need frames, bands or a transform ----------------------------------------------

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)
SIZE = {"num_bands": 12, "dilations": (1, 2), "stft": FRAME}
BLOCKS = [("first", "block_1", "block_1"), ("bottleneck", "block_2", "block_2")]
FRAMED_METHODS = {
    "band_mixup": (True, True, False),
    "output_spectrum": (False, False, True),
    "output_mask": (False, False, True),
    "dispatch": (False, False, True),
    "dispatch_multi_scale": (False, False, True),
    "frequency_adaptive": (False, False, True),
    "attention_transfer": (False, True, False),
    "similarity_preserving": (False, True, False),
    "frame_similarity": (False, True, False),
    "fine_grained_similarity": (False, True, False),
    "multi_view_attention": (False, True, False),
    "attention_kl": (False, True, False),
    "review": (False, True, False),
}


def silent_loss(y_true, y_pred):
    """No supervision, so that only the distillation term moves the student."""
    del y_true
    return 0.0 * ops.mean(y_pred, axis=-1)


def test_every_method_is_proven_here():
    assert set(METHODS) == set(DENSE_METHODS) | set(FRAMED_METHODS)


@pytest.mark.parametrize("method", sorted(FRAMED_METHODS))
def test_the_own_term_of_a_method_alone_is_finite_and_moves_the_student(method):
    teacher, student = build("tcn", channels=8, **SIZE), build("tcn", channels=5, **SIZE)
    model = distiller_of(method, teacher, student, BLOCKS, loss=silent_loss)
    rng = np.random.default_rng(0)
    first, second, speech = 0.1 * rng.normal(size=(3, 4, 160)).astype(np.float32)
    views = {"first_view": first, "second_view": second}
    before = [np.array(v) for v in (*student.trainable_variables, *teacher.variables)]
    model.train_on_batch(views, speech)
    found = {name: float(v) for name, v in model.get_metrics_result().items() if name in NAMES}
    after = [np.array(v) for v in (*student.trainable_variables, *teacher.variables)]
    count = len(student.trainable_variables)
    changed = [np.any(old != new) for old, new in zip(before, after, strict=True)]
    assert np.all(np.isfinite(np.concatenate([v.ravel() for v in after])))
    assert any(changed[:count])
    assert not any(changed[count:])
    assert terms_in_use(model) == FRAMED_METHODS[method]
    own = "output_loss" if FRAMED_METHODS[method][2] else "latent_loss"
    assert found[own] > 0.0
    assert found["supervised_loss"] == 0.0


# ---- properties of the mixture -------------------------------------------------------------------

MATCHING = objective_of("latent_mixup_matching")
FITNETS = objective_of("fitnets")


def same_models(*objectives, **arguments):
    """One distiller per objective around the same networks and projectors."""
    teacher, student = network(7), network(4)
    models = [distiller_of(o, teacher, student, **arguments) for o in objectives]
    for model in models[1:]:
        model.projectors[0].set_weights(models[0].projectors[0].get_weights())
    return models


def latent_loss(model, views, speech):
    return float(model.terms(views, speech, training=True)[0][2])


def test_lambda_one_is_fitnets_on_the_first_view(monkeypatch):
    use_lambda(monkeypatch, np.ones(4, "f"))
    (model,) = same_models(MATCHING)
    b = Batch(model)
    expected = b.matched(b.latent[FIRST], b.target[FIRST], b.target)
    assert latent_loss(model, *pairs()) == pytest.approx(expected, rel=1e-5)


def test_equal_views_are_fitnets_whatever_lambda():
    mixup, fitnets = same_models(MATCHING, FITNETS)
    views, speech = pairs()
    equal = {"first_view": views["first_view"], "second_view": views["first_view"]}
    expected = latent_loss(fitnets, equal, speech)
    assert latent_loss(mixup, equal, speech) == pytest.approx(expected, rel=1e-5)


def test_all_terms_are_symmetric_under_exchange_of_views_and_lambda(monkeypatch):
    views, speech = pairs()
    exchanged = {"first_view": views["second_view"], "second_view": views["first_view"]}
    model, other = same_models(*2 * [objective_of("propagated_mixup")])
    terms, _ = model.terms(views, speech, training=True)
    use_lambda(monkeypatch, 1 - LAMBDAS)
    swapped, _ = other.terms(exchanged, speech, training=True)
    np.testing.assert_allclose(terms, swapped, rtol=1e-5)
    unlike, _ = other.terms(views, speech, training=True)
    assert np.all(np.abs(np.subtract(unlike[1:], terms[1:])) > 1e-4)


def twin(method):
    """A distiller whose student is its teacher's copy and whose projector changes nothing."""
    teacher = network(7)
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    return distiller_of(objective_of(method, projector="none"), teacher, student)


def test_a_perfect_student_has_no_loss_where_both_latents_are_mixed_and_one_where_one_is():
    assert term_of(twin("latent_mixup"), 2) == pytest.approx(0.0, abs=1e-12)
    assert term_of(twin("linearized_teacher"), 2) > 1e-3  # asks for linearity between noises
    assert term_of(twin("student_mixup"), 2) > 1e-3


def test_lambda_free_control_is_the_mean_of_the_latent_term_over_uniform_lambdas(monkeypatch):
    mixup, control = same_models(MATCHING, objective_of("lambda_free"))
    # Mean and spread of the uniform law at two points (Gauss-Legendre): exact for a square.
    means = []
    for offset in (-1, 1):
        use_lambda(monkeypatch, np.full(4, 0.5 + offset / (2 * np.sqrt(3)), "f"))
        means.append(latent_loss(mixup, *pairs()))
    assert latent_loss(control, *pairs()) == pytest.approx(np.mean(means), rel=1e-5)


# ---- more than one tap ---------------------------------------------------------------------------


def distances_by_hand(model):
    """Distances of the mixed latents at both taps."""
    b, found = Batch(model), []
    for tap, layer in enumerate((early, head)):
        student, teacher = layer(b.student, b.x), layer(b.teacher, b.x)
        found.append(b.matched(b.halves(student), b.halves(teacher), teacher, tap))
    return found


def test_tap_weights_are_divided_by_their_sum():
    settings = dataclasses.replace(MATCHING, tap_weights=(1.0, 3.0))
    model = distiller_of(settings, taps=TWO_TAPS)
    first, second = distances_by_hand(model)
    assert term_of(model, 2) == pytest.approx(0.25 * first + 0.75 * second, rel=1e-5)


@pytest.mark.parametrize("weights", [(), (1.0, 3.0)])
@pytest.mark.parametrize("chosen", [0, 1])
def test_of_a_drawn_tap_the_distance_counts_alone_and_its_mixture_is_decoded(
    monkeypatch, chosen, weights
):
    settings = Objective(mix_tap="random", tap_weights=weights)
    model = distiller_of(settings, taps=TWO_TAPS)
    monkeypatch.setattr(mixture.keras.random, "randint", lambda *_, **__: chosen)
    b = Batch(model)
    mixed = (b.halves(early(b.student, b.x)), b.mixed)[chosen]
    latent = np.tanh(mixed @ kernel_and_bias(b.student, "latent")) if chosen == 0 else mixed
    terms, _ = model.terms(*pairs(), training=True)
    share = (weights or (1.0, 1.0))[chosen] / sum(weights or (1.0, 1.0))
    # The factor 2 makes the mean over the draws that of fixed taps.
    expected = 2 * share * distances_by_hand(model)[chosen]
    assert float(terms[2]) == pytest.approx(expected, rel=1e-5)
    expected = mean_square(tail(b.student, latent) - b.speech[FIRST])
    assert float(terms[1]) == pytest.approx(expected, rel=1e-5)


def kernel_and_bias(model, name):
    kernel, bias = model.get_layer(name).get_weights()
    assert not np.any(bias)  # as initialized
    return np.float64(kernel)


def test_the_mixture_of_an_early_tap_is_decoded_and_later_taps_are_matched_behind_it():
    settings = objective_of("propagated_mixup", mix_tap="early", mixed_weight=0.0)
    model = distiller_of(settings, taps=TWO_TAPS)
    b = Batch(model)
    mixed = [b.halves(early(m, b.x)) for m in (b.student, b.teacher)]
    later = [
        np.tanh(z @ kernel_and_bias(m, "latent"))
        for m, z in zip((b.student, b.teacher), mixed, strict=True)
    ]
    distances = [
        b.matched(mixed[0], mixed[1], early(b.teacher, b.x), 0),
        b.matched(later[0], later[1], b.target, 1),
    ]
    terms, _ = model.terms(*pairs(), training=True)
    assert float(terms[2]) == pytest.approx(np.mean(distances), rel=1e-5)
    outputs = [tail(m, z) for m, z in zip((b.student, b.teacher), later, strict=True)]
    assert float(terms[3]) == pytest.approx(mean_square(outputs[0] - outputs[1]), rel=1e-5)


def test_the_distance_is_the_one_that_the_objective_names():
    model = distiller_of(dataclasses.replace(FITNETS, distance="l1"))
    b = Batch(model)
    expected = np.mean(np.abs(b.project(b.latent) - b.target)) / np.sqrt(b.target.var() + 1e-6)
    assert term_of(model, 2) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["fitnets", "cross_mixup"])
def test_latents_of_unequal_width_need_a_projector(method):
    message = r"Received 4 of the student and 7 of the teacher for tap 'bottleneck'\. Use proj"
    with pytest.raises(ValueError, match=message):
        distiller_of(objective_of(method, projector="none"))


# ---- schedules -----------------------------------------------------------------------------------


def test_two_steps_distill_first_and_supervise_then():
    model = distiller_of(
        dataclasses.replace(FITNETS, schedule="two_step", schedule_steps=2), distillation_weight=0.5
    )
    losses = [step_of(model) for _ in range(3)]
    for logs in losses[:2]:
        assert logs["loss"] == pytest.approx(0.5 * logs["latent_loss"], rel=1e-5)
    assert losses[2]["loss"] == pytest.approx(losses[2]["supervised_loss"], rel=1e-5)


def test_evaluation_weighs_the_terms_as_if_there_were_no_schedule():
    model = distiller_of(dataclasses.replace(FITNETS, schedule="two_step"))
    views, speech = pairs()
    logs = model.evaluate(views, speech, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["supervised_loss"] + logs["latent_loss"], rel=1e-5)


@pytest.mark.parametrize(("method", "weight"), [("fine_grained_similarity", 0.0), ("no_kd", 1.0)])
def test_a_schedule_withholds_no_supervision_where_nothing_is_distilled(method, weight):
    settings = objective_of(method, schedule="two_step")
    model = distiller_of(settings, distillation_weight=weight)
    logs = step_of(model)
    assert logs["loss"] == pytest.approx(logs["supervised_loss"], rel=1e-6)
    assert logs["supervised_loss"] > 0.0


# ---- pairings ------------------------------------------------------------------------------------


def test_evaluation_with_another_snr_repeats_and_leaves_the_seed():
    model = distiller_of(Objective(pairing="other_snr"))
    before = np.array(model._lambda_seed.state)
    first, second = (term_of(model, 1, training=False) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal(model._lambda_seed.state, before)
    assert term_of(model, 1) != term_of(model, 1)


def test_a_permuted_residual_reaches_student_and_teacher():
    model = distiller_of(objective_of("fitnets", pairing="residual_permutation"))
    views, speech = pairs()
    noise = views["first_view"] - speech
    x = np.array([*views["first_view"], *(speech + noise[[1, 2, 3, 0]])], float)
    b = Batch(model)
    latent, target = head(b.student, x), head(b.teacher, x)
    expected = b.matched(latent, target, target)
    assert term_of(model, 2) == pytest.approx(expected, rel=1e-5)
