# SPDX-License-Identifier: Apache-2.0
"""What our distiller does beside what `keras.distillation.Distiller` does; docs/keras_distiller.md.

The behaviour of Keras is asserted for the release that it was measured with only.
"""

import keras
import numpy as np
import pytest

from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.objective import objective_of

distillation = pytest.importorskip("keras.distillation", reason="Keras is older than 3.12")

IS_MEASURED = keras.__version__.startswith("3.15.")
WIDTH, TAP = 6, "latent"

# Keras hands its own feature extractor a tensor where that expects a list.
pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs`")


@pytest.fixture(autouse=True)
def fixed_seed(seeded):
    """Same initial weights in every test."""


class Counted(keras.layers.Layer):
    """Counts how often it is called."""

    num_calls = 0

    def call(self, inputs):
        self.num_calls += 1
        return inputs


def network(channels=4):
    inputs = keras.Input((WIDTH,))
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(inputs)
    x = Counted(name="counted")(x)
    x = keras.layers.Dense(channels, activation="tanh", name=TAP)(x)
    return keras.Model(inputs, keras.layers.Dense(WIDTH)(x))


def ours(student=None, **arguments):
    options = {"objective": "fitnets", **arguments}
    model = LatentMixupDistiller(
        teacher=network(), student=student or network(), taps=[(TAP, TAP, TAP)], **options
    )
    model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
    return model


def theirs(student=None):
    losses = distillation.FeatureDistillation("mse", TAP, TAP)
    model = distillation.Distiller(network(), student or network(), losses)
    model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
    return model


def batch_of(model, count=4):
    signals = np.random.default_rng(0).normal(1.0, 1.0, (3, count, WIDTH))
    first, second, speech = signals.astype(np.float32)
    is_ours = isinstance(model, LatentMixupDistiller)
    return {"first_view": first, "second_view": second} if is_ours else first, speech


def evaluate(model, sample_weight=None):
    x, speech = batch_of(model)
    return model.evaluate(x, speech, sample_weight=sample_weight, verbose=0, return_dict=True)


def drift_of_evaluate(model):
    mean = model.student.get_layer("norm").moving_mean
    before = np.array(mean)
    evaluate(model)
    return np.max(np.abs(np.array(mean) - before))


def passes_of_a_step(model):
    layer = model.student.get_layer("counted")
    model.train_on_batch(*batch_of(model))  # builds
    before = layer.num_calls
    model.train_on_batch(*batch_of(model))
    return layer.num_calls - before


def losses_with_weights_one_and_zero(model):
    return [evaluate(model, np.full(4, weight, np.float32))["loss"] for weight in (1.0, 0.0)]


def names_of_equal_logs(model):
    logs = {name: value for name, value in evaluate(model).items() if value != 0.0}
    return sorted(name for name in logs if list(logs.values()).count(logs[name]) > 1)


def teacher_weights_in(model):
    own = {id(weight) for weight in model.weights}
    return sum(id(weight) in own for weight in model.teacher.weights)


def test_evaluate_leaves_the_batch_norms_of_the_student_alone():
    assert drift_of_evaluate(ours()) == 0.0
    if IS_MEASURED:
        assert drift_of_evaluate(theirs()) > 0.01


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX traces a step twice")
def test_a_step_takes_one_pass_of_the_student():
    assert passes_of_a_step(ours()) == 1
    if IS_MEASURED:
        assert passes_of_a_step(theirs()) == 2


def test_examples_of_weight_zero_do_not_count():
    one, zero = losses_with_weights_one_and_zero(ours())
    assert one > 0.0
    assert zero == 0.0
    if IS_MEASURED:
        one, zero = losses_with_weights_one_and_zero(theirs())
        assert zero == pytest.approx(one, rel=0.2)  # its `evaluate` moves the student in between


def test_latents_of_two_widths_are_projected_or_refused_when_built():
    ours(network(channels=3)).train_on_batch(*batch_of(ours()))
    with pytest.raises(ValueError, match="width"):
        ours(network(channels=3), objective=objective_of("fitnets", projector="none"))
    if IS_MEASURED:
        model = theirs(network(channels=3))  # accepted
        with pytest.raises(Exception, match=r"(?i)incompatible|must be equal|broadcast"):
            model.train_on_batch(*batch_of(model))


def test_the_weights_of_the_teacher_are_not_among_those_of_the_distiller():
    assert teacher_weights_in(ours()) == 0
    if IS_MEASURED:
        model = theirs()
        assert teacher_weights_in(model) == len(model.teacher.weights) > 0


def test_a_quantity_is_logged_under_one_name():
    assert names_of_equal_logs(ours()) == []
    if IS_MEASURED:
        assert names_of_equal_logs(theirs()) == ["loss", "total_loss"]
