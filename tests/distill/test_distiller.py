# SPDX-License-Identifier: Apache-2.0
import io
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.lambda_laws import LAMBDA_LAWS
from lmkd_tf.distill.losses import SpeechLoss
from lmkd_tf.distill.objective import Objective
from lmkd_tf.models.builder import build, build_core
from lmkd_tf.models.enhancer import SpeechEnhancer
from lmkd_tf.models.taps import FeatureTap
from tests.distill.by_hand import LAMBDAS, WIDTH, dense, head, mean_square, network, pairs, tail

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tape, graph or twin of TensorFlow"
)
TAPS = [("bottleneck", "latent", "latent")]
LOG_NAMES = {
    "loss", "supervised_loss", "mixed_latent_loss", "latent_loss", "output_loss", "mixup_lambda",
    "mixup_spread",
}  # fmt: skip


@pytest.fixture(autouse=True)
def fixed_seed(seeded):
    """Same initial weights in every test."""


@pytest.fixture
def constant_lambda(monkeypatch):
    """Makes the distiller draw LAMBDAS."""
    monkeypatch.setitem(LAMBDA_LAWS, "beta", lambda *_, **__: ops.convert_to_tensor(LAMBDAS[None]))


def objective(mixed=1.0, latent=1.0, output=1.0, **changes):
    weights = {"mixed_weight": mixed, "latent_weight": latent, "output_weight": output}
    return Objective(**weights, **changes)


def distiller_of(optimizer=None, teacher=None, student=None, compiled=None, **arguments):
    model = LatentMixupDistiller(
        teacher=teacher or network(7),
        student=student or network(4),
        **{"taps": TAPS, "objective": objective(), **arguments},
    )
    model.compile(optimizer or keras.optimizers.SGD(0.1), **{"loss": "mse", **(compiled or {})})
    return model


def fit(model, count=8, epochs=1, **arguments):
    views, speech = pairs(count)
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(views, speech, epochs=epochs, **options).history


def weights_of(model):
    return [np.array(value) for value in model.get_weights()]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- an independent computation in numpy ---------------------------------------------------------


def terms_by_hand(model, views, speech, lambdas, weights, variance=None):
    """The four terms of the objective from the weights of a distiller, in double precision."""
    student, teacher = model.student, model.teacher
    x_a, x_b = (np.float64(views[name]) for name in ("first_view", "second_view"))
    mix = lambda u, v: lambdas[:, None] * u + (1 - lambdas[:, None]) * v  # noqa: E731 - the formula
    error = lambda u, v: np.mean(weights * np.mean((u - v) ** 2, axis=1))  # noqa: E731
    s_a, s_b, t_a, t_b = (head(m, x) for m in (student, teacher) for x in (x_a, x_b))
    y_a, y_b = tail(student, s_a), tail(student, s_b)
    kernel, bias = model.projectors[0].get_weights()
    variance = variance or np.var(np.concatenate([t_a, t_b])) + 1e-6
    return [
        0.5 * (error(y_a, speech) + error(y_b, speech)),
        error(tail(student, mix(s_a, s_b)), speech),
        error(mix(s_a, s_b) @ kernel + bias, mix(t_a, t_b)) / variance,
        0.5 * (error(y_a, tail(teacher, t_a)) + error(y_b, tail(teacher, t_b))),
    ]


# ---- the objective -------------------------------------------------------------------------------


def test_teacher_and_student_are_the_models_given():
    teacher, student = network(7), network(4)
    model = distiller_of(teacher=teacher, student=student)
    assert model.teacher is teacher
    assert model.student is student
    assert model.projectors[0].kernel.shape == (4, 7)


def test_terms_equal_the_formula_computed_by_hand(constant_lambda):
    model = distiller_of()
    views, speech = pairs()
    terms, _ = model.terms(views, speech, training=True)
    expected = terms_by_hand(model, views, speech, LAMBDAS, np.ones(4))
    np.testing.assert_allclose(terms, expected, rtol=1e-5)


def test_terms_in_evaluation_use_lambda_one_half():
    model = distiller_of()
    views, speech = pairs()
    terms, _ = model.terms(views, speech, training=False)
    expected = terms_by_hand(model, views, speech, np.full(4, 0.5), np.ones(4))
    np.testing.assert_allclose(terms, expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_terms_weight_the_examples_by_sample_weight(constant_lambda, shape):
    model = distiller_of()
    views, speech = pairs()
    weights = np.array([0.0, 1.0, 0.5, 3.0], np.float32)
    terms, _ = model.terms(views, speech, weights.reshape(shape), training=True)
    expected = terms_by_hand(model, views, speech, LAMBDAS, weights)
    np.testing.assert_allclose(terms, expected, rtol=1e-5)


def test_latent_term_is_scaled_by_a_running_variance(constant_lambda):
    model = distiller_of()
    (first, speech), (second, _) = pairs(seed=0), pairs(seed=1)
    latents = [
        head(model.teacher, np.concatenate(list(views.values()))) for views in (first, second)
    ]
    mean, square = (0.99 * f(latents[0]) + 0.01 * f(latents[1]) for f in (np.mean, mean_square))
    variance = square - mean**2 + 1e-6
    model.terms(first, speech, training=True)
    terms, _ = model.terms(second, speech, training=True)
    expected = terms_by_hand(model, second, speech, LAMBDAS, np.ones(4), variance)
    np.testing.assert_allclose(terms, expected, rtol=1e-5)


def test_loss_weights_each_term_by_its_own_weight(constant_lambda):
    model = distiller_of(distillation_weight=0.5, objective=objective(2.0, 3.0, 5.0))
    views, speech = pairs()
    expected = terms_by_hand(model, views, speech, LAMBDAS, np.ones(4))
    logs = model.train_on_batch(views, speech, return_dict=True)
    total = expected[0] + 0.5 * (2 * expected[1] + 3 * expected[2] + 5 * expected[3])
    names = ["supervised_loss", "mixed_latent_loss", "latent_loss", "output_loss"]
    assert [logs[name] for name in names] == pytest.approx(expected, rel=1e-5)
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


def test_latent_term_is_the_mean_over_taps_of_their_own_distances(constant_lambda):
    taps = [("early", "early", "early"), ("bottleneck", "latent", "latent")]
    teacher, student = network(7), network(4)
    views, speech = pairs()
    both = np.concatenate(list(views.values()))

    def early(model):
        return np.tanh(dense(model, "early", both))

    def mixed(latents):
        weight = LAMBDAS[:, None]
        return weight * latents[:4] + (1 - weight) * latents[4:]

    model = distiller_of(teacher=teacher, student=student, taps=taps)
    distances = []
    for projector, layer in zip(model.projectors, (early, lambda m: head(m, both)), strict=True):
        kernel, bias = projector.get_weights()
        error = mixed(layer(student)) @ kernel + bias - mixed(layer(teacher))
        distances.append(np.mean(error**2) / (layer(teacher).var() + 1e-6))
    terms, _ = model.terms(views, speech, training=True)
    assert float(terms[2]) == pytest.approx(np.mean(distances), rel=1e-5)


def test_teacher_runs_in_inference_mode_while_the_student_trains(constant_lambda):
    model = distiller_of(teacher=network(7, dropout=0.5))
    views, speech = pairs()
    terms, _ = model.terms(views, speech, training=True)
    expected = terms_by_hand(model, views, speech, LAMBDAS, np.ones(4))
    np.testing.assert_allclose(terms, expected, rtol=1e-5)


def test_student_equal_to_teacher_with_identity_projector_has_no_latent_loss():
    teacher = network(7)
    model = distiller_of(teacher=teacher, student=keras.models.clone_model(teacher))
    model.student.set_weights(teacher.get_weights())
    model.projectors[0].set_weights([np.eye(7), np.zeros(7)])
    views, speech = pairs()
    terms, _ = model.terms(views, speech, training=True)
    assert float(terms[2]) == pytest.approx(0.0, abs=1e-12)  # exact but for a matrix product
    assert float(terms[3]) == pytest.approx(0.0, abs=1e-12)


def test_mixed_latent_with_lambda_one_decodes_to_the_first_view(monkeypatch):
    monkeypatch.setitem(LAMBDA_LAWS, "beta", lambda *_, **__: ops.ones((1, 4)))
    model = distiller_of()
    views, speech = pairs()
    terms, enhanced = model.terms(views, speech, training=True)
    expected = np.mean((np.asarray(enhanced) - speech) ** 2)
    assert float(terms[1]) == pytest.approx(expected, rel=1e-5)


def test_a_skip_from_the_input_gets_the_mixed_input(constant_lambda):
    model = distiller_of(student=network(4, has_skip=True))
    views, speech = pairs()
    terms, _ = model.terms(views, speech, training=True)
    x_a, x_b = views.values()
    weight = LAMBDAS[:, None]
    latent = weight * head(model.student, x_a) + (1 - weight) * head(model.student, x_b)
    output = tail(model.student, latent) + weight * x_a + (1 - weight) * x_b
    assert float(terms[1]) == pytest.approx(np.mean((output - speech) ** 2), rel=1e-5)


def test_output_term_of_weight_zero_is_not_computed():
    model = distiller_of(objective=objective(1.0, 1.0, 0.0))
    terms, _ = model.terms(*pairs(), training=True)
    assert terms[3] is None


# ---- one step of training ------------------------------------------------------------------------


@on_tensorflow
def test_a_step_follows_the_gradient_of_the_formula(constant_lambda):
    model = distiller_of(objective=objective(1.0, 2.0, 3.0))
    views, speech = pairs()
    student, teacher, projector = model.student, model.teacher, model.projectors[0]
    encoder = keras.Model(student.inputs[0], student.get_layer("latent").output)
    decoder = keras.Sequential([student.get_layer("late"), student.get_layer("output")])
    taught = keras.Model(teacher.inputs[0], teacher.get_layer("latent").output)
    x_a, x_b = (tf.constant(view) for view in views.values())
    weight = tf.constant(LAMBDAS)[:, None]
    t_a, t_b = taught(x_a), taught(x_b)

    def error(u, v):
        return tf.reduce_mean(tf.square(u - v))

    variables = [v.value for v in [*student.trainable_variables, *projector.trainable_variables]]
    with tf.GradientTape() as tape:
        mixed = weight * encoder(x_a) + (1 - weight) * encoder(x_b)
        supervised = 0.5 * (error(student(x_a), speech) + error(student(x_b), speech))
        latent = error(projector(mixed), weight * t_a + (1 - weight) * t_b)
        variance = tf.math.reduce_variance(tf.concat([t_a, t_b], 0)) + 1e-6
        output = 0.5 * (error(student(x_a), teacher(x_a)) + error(student(x_b), teacher(x_b)))
        loss = supervised + error(decoder(mixed), speech) + 2 * latent / variance + 3 * output
    gradients: list = tape.gradient(loss, variables)  # type: ignore[assignment]
    expected = [v - 0.1 * g for v, g in zip(variables, gradients, strict=True)]
    model.train_on_batch(views, speech)
    for found, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-6)


@on_tensorflow
def test_weight_zero_reproduces_the_plain_student_to_the_bit():
    student = network(4, has_norm=True)
    plain = keras.models.clone_model(student)
    plain.set_weights(student.get_weights())
    model = distiller_of(keras.optimizers.Adam(0.01), student=student, distillation_weight=0.0)
    fit(model, epochs=2)

    optimizer = keras.optimizers.Adam(0.01)
    views, speech = pairs(8)

    @tf.function
    def step(x_a, x_b, target):
        with tf.GradientTape() as tape:
            outputs = tf.split(plain(tf.concat([x_a, x_b], 0), training=True), 2)
            losses = [keras.losses.MeanSquaredError()(target, output) for output in outputs]
            loss = 0.5 * (losses[0] + losses[1])
        variables = [v.value for v in plain.trainable_variables]
        optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), plain.trainable_variables, strict=True)
        )

    for start in (0, 4, 0, 4):
        step(*(value[start : start + 4] for value in (*views.values(), speech)))
    assert_same(model.student.get_weights(), plain.get_weights())


@on_tensorflow
def test_every_layer_runs_once_per_step():
    calls = []

    class Counted(keras.layers.Layer):
        def call(self, inputs):
            calls.append(self.name)
            return inputs

    inputs = keras.Input((WIDTH,))
    x = keras.layers.Dense(4, name="latent")(Counted(name="before")(inputs))
    student = keras.Model(inputs, keras.layers.Dense(WIDTH)(Counted(name="after")(x)))
    model = distiller_of(student=student, compiled={"run_eagerly": True})
    calls.clear()
    model.train_on_batch(*pairs())
    assert sorted(calls) == ["after", "before"]


def test_batch_norms_move_once_per_step_by_the_statistics_of_what_passes_them(constant_lambda):
    student = network(4, has_norm=True)
    before, after = student.get_layer("norm_before"), student.get_layer("norm_after")
    views, speech = pairs()
    both = np.concatenate(list(views.values()))
    x = np.tanh(dense(student, "early", both))
    normalized = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
    latent = np.tanh(dense(student, "latent", normalized))
    mixed = LAMBDAS[:, None] * latent[:4] + (1 - LAMBDAS[:, None]) * latent[4:]
    late = np.tanh(dense(student, "late", np.concatenate([latent, mixed])))
    distiller_of(student=student).train_on_batch(views, speech)
    np.testing.assert_allclose(before.moving_mean, 0.1 * x.mean(0), atol=1e-6)
    np.testing.assert_allclose(before.moving_variance, 0.9 + 0.1 * x.var(0), atol=1e-6)
    np.testing.assert_allclose(after.moving_mean, 0.1 * late.mean(0), atol=1e-6)


def test_an_example_of_weight_zero_has_no_influence_on_the_step():
    views, speech = pairs()
    changed = speech.copy()
    changed[2] += 100.0
    weights = np.array([1.0, 1.0, 0.0, 1.0], np.float32)
    results = []
    for target in (speech, changed):
        keras.utils.set_random_seed(3)
        model = distiller_of()
        model.train_on_batch(views, target, sample_weight=weights)
        results.append(weights_of(model.student))
    assert_same(*results)


def test_sample_weight_in_fit_equals_leaving_the_example_out_of_every_term():
    views, speech = pairs()
    model = distiller_of()
    model.terms(views, speech, training=True)  # fixes the variance that evaluation uses
    weights = np.array([2.0, 2.0, 0.0, 0.0], np.float32)
    weighted = model.evaluate(views, speech, sample_weight=weights, verbose=0, return_dict=True)
    kept = {name: view[:2] for name, view in views.items()}
    alone = model.evaluate(kept, speech[:2], verbose=0, return_dict=True)
    assert weighted == pytest.approx(alone, rel=1e-5)


# ---- the teacher ---------------------------------------------------------------------------------


def test_teacher_is_bit_identical_after_fit_and_the_student_is_not():
    teacher, student = network(7, has_norm=True, dropout=0.2), network(4, has_norm=True)
    before = weights_of(teacher), weights_of(student)
    fit(distiller_of(teacher=teacher, student=student))
    assert_same(weights_of(teacher), before[0])
    assert all(np.any(a != b) for a, b in zip(weights_of(student), before[1], strict=True))


def test_teacher_is_not_among_the_weights_of_the_distiller():
    model = distiller_of()
    fit(model)
    own = {id(v) for v in [*model.variables, *model.optimizer.variables]}
    assert not own & {id(v) for v in model.teacher.variables}
    assert not model.teacher.trainable_weights
    student_and_projector = [*model.student.trainable_variables, *model.projectors[0].variables]
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in student_and_projector}


def test_evaluate_and_predict_change_no_weight_statistic_or_seed():
    model = distiller_of(
        teacher=network(7, has_norm=True, dropout=0.2),
        student=network(4, has_norm=True, dropout=0.2),
    )
    fit(model)
    watched = [*model.variables, *model.teacher.variables]
    before = [np.array(v) for v in watched]
    views, speech = pairs()
    model.evaluate(views, speech, verbose=0)
    model.predict(views["first_view"], verbose=0)
    assert_same([np.array(v) for v in watched], before)


def test_evaluate_of_single_views_is_the_plain_loss():
    model = distiller_of()
    views, speech = pairs()
    logs = model.evaluate(views["first_view"], speech, verbose=0, return_dict=True)
    expected = np.mean((np.asarray(model.student(views["first_view"])) - speech) ** 2)
    assert logs["loss"] == logs["supervised_loss"] == pytest.approx(expected, rel=1e-5)


def test_predict_of_a_pair_enhances_its_first_view():
    model = distiller_of()
    views, _ = pairs()
    expected = model.predict(views["first_view"], verbose=0)
    np.testing.assert_allclose(model.predict(views, verbose=0), expected, atol=1e-6)


# ---- fit, logs and files -------------------------------------------------------------------------


def test_logs_name_each_term_once():
    history = fit(distiller_of(), validation_data=pairs())
    assert set(history) == LOG_NAMES | {f"val_{name}" for name in LOG_NAMES}


def test_logged_lambda_is_the_mean_of_those_drawn(constant_lambda):
    assert fit(distiller_of(), count=4)["mixup_lambda"] == [pytest.approx(LAMBDAS.mean())]


def test_a_metric_given_to_compile_is_logged_for_the_first_view():
    model = distiller_of(compiled={"metrics": [keras.metrics.MeanSquaredError(name="error")]})
    views, speech = pairs()
    logs = model.evaluate(views, speech, verbose=0, return_dict=True)
    expected = np.mean((np.asarray(model.student(views["first_view"])) - speech) ** 2)
    assert logs["error"] == pytest.approx(expected, rel=1e-5)


def train_from_scratch(seed):
    keras.utils.set_random_seed(0)
    model = distiller_of(seed=seed)
    fit(model, epochs=2)
    return weights_of(model.student)


def test_a_run_repeats_with_the_same_seed_and_differs_with_another():
    first = train_from_scratch(seed=1)
    assert_same(train_from_scratch(seed=1), first)
    assert np.any(train_from_scratch(seed=2)[0] != first[0])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_saved_distiller_continues_as_if_it_had_not_been_saved(tmp_path, weight):
    model = distiller_of(
        keras.optimizers.Adam(0.01), student=network(4, has_norm=True), distillation_weight=weight
    )
    fit(model)
    model.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert_same(weights_of(loaded.teacher), weights_of(model.teacher))
    assert fit(loaded, epochs=2) == fit(model, epochs=2)
    assert_same(weights_of(loaded), weights_of(model))


def test_a_file_holds_the_weights_of_both_networks_once(tmp_path):
    model = distiller_of()
    model.save(tmp_path / "distiller.keras")
    with zipfile.ZipFile(tmp_path / "distiller.keras") as archive:
        stored = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    sizes = []
    stored.visititems(lambda _, item: sizes.append(getattr(item, "size", 0)))
    networks = (model.student, model.teacher, model.projectors[0])
    expected = sum(network.count_params() for network in networks)
    assert expected <= sum(sizes) < expected + 10  # statistics, step and seed


def test_a_loaded_distiller_has_the_arguments_it_was_made_with(tmp_path):
    taps = [FeatureTap("early", "early", "early"), FeatureTap("last", "latent", "latent")]
    model = distiller_of(
        taps=taps,
        mixup_alpha=0.4,
        distillation_weight=0.3,
        objective=objective(1.0, 0.5, 0.2),
        seed=7,
        name="mine",
    )
    model.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.taps == taps
    names = ("mixup_alpha", "distillation_weight", "objective", "seed", "name")
    assert [getattr(loaded, n) for n in names] == [0.4, 0.3, objective(1.0, 0.5, 0.2), 7, "mine"]


def test_student_saved_alone_loads_alone_without_teacher_or_projector(tmp_path):
    model = distiller_of()
    fit(model)
    model.student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert [w.shape for w in loaded.weights] == [w.shape for w in network(4).weights]
    noisy = pairs()[0]["first_view"]
    np.testing.assert_array_equal(loaded(noisy), model.student(noisy))


class Interruption(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_backup_and_restore_resumes_to_the_same_weights(tmp_path, weight):
    def new_distiller():
        keras.utils.set_random_seed(0)
        return distiller_of(keras.optimizers.Adam(0.01), distillation_weight=weight)

    uninterrupted = new_distiller()
    fit(uninterrupted, epochs=4)
    backup = tmp_path / "backup"
    callbacks = [keras.callbacks.BackupAndRestore(backup), Interruption()]
    with pytest.raises(KeyboardInterrupt):
        fit(new_distiller(), epochs=4, callbacks=callbacks)
    resumed = new_distiller()
    history = fit(resumed, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(backup)])
    assert len(history["loss"]) == 2
    assert_same(weights_of(resumed), weights_of(uninterrupted))


def test_early_stopping_restores_the_best_student():
    best = {}

    class Remember(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            best.setdefault("weights", weights_of(self.model))

    model = distiller_of()
    stop = keras.callbacks.EarlyStopping(
        "val_loss", min_delta=1e6, patience=1, restore_best_weights=True
    )
    history = fit(model, epochs=9, validation_data=pairs(), callbacks=[Remember(), stop])
    assert len(history["loss"]) == 2
    assert_same(weights_of(model), best["weights"])


# ---- enhancers and the tf_keras twin -------------------------------------------------------------

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)
SIZE = {"num_bands": 12, "dilations": (1, 2)}


def enhancer_pairs(seed=0):
    rng = np.random.default_rng(seed)
    first, second, speech = 0.1 * rng.normal(size=(3, 4, 256)).astype(np.float32)
    return {"first_view": first, "second_view": second}, speech


def enhancer_distiller(student):
    keras.utils.set_random_seed(0)
    return distiller_of(
        keras.optimizers.Adam(0.01),
        teacher=build("tcn", stft=FRAME, channels=8, **SIZE),
        student=student,
        taps=[("bottleneck", "block_2", "block_2")],
        compiled={"loss": SpeechLoss(FRAME)},
    )


def twin_of(student):
    core = build_core("tcn", namespace=tf_keras, channels=5, **SIZE)
    core.set_weights(student.core.get_weights())
    return SpeechEnhancer(core, FRAME)


@on_tensorflow
def test_tf_keras_twin_trains_like_the_keras_student():
    student = build("tcn", stft=FRAME, channels=5, **SIZE)
    twin = twin_of(student)
    before = weights_of(twin.core)
    views, speech = enhancer_pairs()
    logs = []
    for model in (enhancer_distiller(student), enhancer_distiller(twin)):
        steps = [model.train_on_batch(views, speech, return_dict=True) for _ in range(2)]
        logs.append({name: float(value) for name, value in steps[-1].items()})
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)
    moved = zip(before, weights_of(twin.core), strict=True)
    assert all(np.any(old != new) for old, new in moved)
    # Adam divides by the size of a gradient, and some are zero but for rounding.
    for one, other in zip(student.core.get_weights(), twin.core.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


@on_tensorflow
def test_evaluate_changes_nothing_in_a_tf_keras_twin():
    twin = twin_of(build("tcn", stft=FRAME, channels=5, **SIZE))
    before = weights_of(twin.core)
    views, speech = enhancer_pairs()
    enhancer_distiller(twin).evaluate(views, speech, verbose=0)
    assert_same(weights_of(twin.core), before)


# ---- what is refused -----------------------------------------------------------------------------


def test_fit_on_single_views_is_refused():
    views, speech = pairs()
    message = r"needs two noisy views .*\. Received \w+ of shape \(.*6\)\. Use batches \("
    with pytest.raises(ValueError, match=message):
        distiller_of().fit(views["first_view"], speech, verbose=0)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_views_of_other_names_are_refused(method):
    views, speech = pairs()
    renamed = {"first_view": views["first_view"], "noisy": views["second_view"]}
    message = r"Received a dict with the keys \['first_view', 'noisy'\]"
    with pytest.raises(ValueError, match=message):
        getattr(distiller_of(), method)(renamed, speech)


def test_fit_without_a_loss_is_refused():
    model = distiller_of(compiled={"loss": None})
    with pytest.raises(ValueError, match=r"`compile` must be given the supervised loss\. Received"):
        model.train_on_batch(*pairs())


@pytest.mark.parametrize("tap", [("t", "gru_0", "latent"), ("t", "latent", "gru_0")])
def test_a_tap_of_an_unknown_layer_lists_the_layers(tap):
    with pytest.raises(ValueError, match=r"Received 'gru_0'\. Use one of: .*early, latent, late"):
        distiller_of(taps=[tap])


def test_taps_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="Taps must be listed from input to output"):
        distiller_of(taps=[("a", "latent", "latent"), ("b", "early", "early")])


def test_empty_taps_are_refused():
    with pytest.raises(ValueError, match="`taps` must name at least one pair of layers"):
        distiller_of(taps=[])


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_mixup_alpha_that_is_not_positive_is_refused(alpha):
    with pytest.raises(ValueError, match=rf"`mixup_alpha` must be positive\. .*alpha={alpha}\."):
        distiller_of(mixup_alpha=alpha)


def test_a_negative_distillation_weight_is_refused():
    with pytest.raises(ValueError, match=r"`distillation_weight` must not be negative\. Received"):
        distiller_of(distillation_weight=-1.0)


def test_frames_of_a_coarser_student_are_brought_to_the_grid_of_the_teacher(constant_lambda):
    def frames(count):
        inputs = keras.Input((WIDTH, 1))
        pooled = keras.layers.AveragePooling1D(WIDTH // count, name="latent")(inputs)
        return keras.Model(inputs, keras.layers.Dense(WIDTH)(keras.layers.Flatten()(pooled)))

    views, speech = pairs()
    model = distiller_of(teacher=frames(3), student=frames(2))
    model.projectors[0].set_weights([np.eye(1), np.zeros(1)])
    terms, _ = model.terms({n: v[..., None] for n, v in views.items()}, speech, training=True)

    def mixed(latents):
        weight = LAMBDAS[:, None]
        return weight * latents[:4] + (1 - weight) * latents[4:]

    both = np.concatenate(list(views.values()))
    teacher = both.reshape(8, 3, 2).mean(2)
    halves = both.reshape(8, 2, 3).mean(2)
    # Thirds of two halves: the first half, the mean of both, the second half.
    student = np.stack([halves[:, 0], halves.mean(1), halves[:, 1]], axis=1)
    expected = np.mean((mixed(student) - mixed(teacher)) ** 2) / (teacher.var() + 1e-6)
    assert float(terms[2]) == pytest.approx(expected, rel=1e-5)
