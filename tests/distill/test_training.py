# SPDX-License-Identifier: Apache-2.0
import types
from typing import Any

import keras
import numpy as np
import pytest

from lmkd_tf.distill import training
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.objective import Objective

WIDTH = 6
IS_TENSORFLOW = keras.backend.backend() == "tensorflow"
on_tensorflow = pytest.mark.skipif(not IS_TENSORFLOW, reason="an option of the TensorFlow backend")


def network(channels, **options):
    inputs = keras.Input((WIDTH,))
    x = keras.layers.Dense(channels, activation="tanh", name="latent", **options)(inputs)
    return keras.Model(inputs, keras.layers.Dense(WIDTH)(x))


def pairs(count=16):
    rng = np.random.default_rng(0)
    first, second, speech = rng.normal(size=(3, count, WIDTH)).astype(np.float32)
    return {"first_view": first, "second_view": second}, speech


def distiller_of(optimizer=None, options=None, **compiled):
    keras.utils.set_random_seed(0)
    model = LatentMixupDistiller(
        teacher=network(7),
        student=network(4, **(options or {})),
        taps=[("bottleneck", "latent", "latent")],
        # XLA draws other numbers from the same seed, so λ is a constant here.
        objective=Objective(output_weight=1.0, lambda_law="uniform", lambda_range=(0.3, 0.3)),
    )
    model.compile(optimizer or keras.optimizers.SGD(0.05), loss="mse", **compiled)
    return model


def fit(model, epochs=2, **arguments):
    views, speech = pairs()
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(views, speech, epochs=epochs, **options).history


def weights_after(model, **arguments):
    fit(model, **arguments)
    return model.student.get_weights()


@pytest.mark.parametrize(
    "compiled", [{"jit_compile": True}, {"steps_per_execution": 4}, {"run_eagerly": True}]
)
def test_a_way_to_execute_changes_no_weight(compiled):
    expected = weights_after(distiller_of(jit_compile=False))
    for found, value in zip(weights_after(distiller_of(**compiled)), expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-6)


def test_gradients_accumulated_over_two_steps_move_the_weights_once():
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    model = distiller_of(optimizer)
    before = model.student.get_weights()
    views, speech = pairs(4)
    model.train_on_batch(views, speech)
    for one, other in zip(model.student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    model.train_on_batch(views, speech)
    assert np.any(model.student.get_weights()[0] != before[0])


def test_mixed_precision_trains_close_to_full_precision_with_a_scaled_loss():
    expected = fit(distiller_of())["loss"]
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = distiller_of()
        assert type(model.optimizer).__name__ == "LossScaleOptimizer"
        found = fit(model)["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert found == pytest.approx(expected, rel=2e-3)


@on_tensorflow
def test_tensorboard_writes_the_terms(tmp_path):
    fit(distiller_of(), callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*tfevents*"))
    for name in (b"epoch_supervised_loss", b"epoch_latent_loss", b"epoch_mixup_spread"):
        assert name in written


@on_tensorflow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(("method", "verb"), [("fit", "Training"), ("evaluate", "Evaluation")])
def test_a_data_set_without_a_batch_is_refused(method, verb):
    import tensorflow as tf

    examples: Any = pairs()
    empty = tf.data.Dataset.from_tensor_slices(examples).batch(4).take(0)
    arguments = {"shuffle": False} if method == "fit" else {}
    with pytest.raises(ValueError, match=f"{verb} needs at least one batch. Received a data set"):
        getattr(distiller_of(), method)(empty, verbose=0, **arguments)


def test_a_keras_without_the_known_trainer_is_refused_for_several_workers(monkeypatch):
    monkeypatch.setattr(training, "num_workers", lambda _: 2)
    monkeypatch.setattr(training, "_SYMBOLIC_BUILD", "_gone")
    with pytest.raises(RuntimeError, match=r"needs a Keras trainer .* Received Keras .*no _gone"):
        distiller_of()


@pytest.mark.parametrize(
    ("spec", "count"), [({}, 1), ({"worker": ["a:1"]}, 1), ({"worker": ["a:1", "b:1"]}, 2)]
)
def test_workers_are_those_of_the_cluster(spec, count):
    cluster = types.SimpleNamespace(as_dict=lambda: spec)
    resolver = types.SimpleNamespace(cluster_spec=lambda: cluster)
    model = types.SimpleNamespace(
        _distribute_strategy=types.SimpleNamespace(cluster_resolver=resolver)
    )
    assert training.num_workers(model) == count
    assert training.num_workers(types.SimpleNamespace()) == 1


def test_weight_regularizers_of_the_student_add_to_the_loss_and_to_the_gradient():
    plain = distiller_of(keras.optimizers.SGD(0.05))
    regularized = distiller_of(keras.optimizers.SGD(0.05), {"kernel_regularizer": "l2"})
    kernel = regularized.student.get_layer("latent").get_weights()[0]
    penalty = 0.01 * np.sum(np.square(kernel))
    views, speech = pairs(4)
    for step in ("evaluate", "train_on_batch"):
        arguments = {"verbose": 0} if step == "evaluate" else {}
        options = {"return_dict": True, **arguments}
        losses = [getattr(m, step)(views, speech, **options)["loss"] for m in (plain, regularized)]
        assert losses[1] - losses[0] == pytest.approx(penalty, rel=1e-3)
    moved = [m.student.get_layer("latent").get_weights()[0] for m in (plain, regularized)]
    np.testing.assert_allclose(moved[1] - moved[0], -0.05 * 0.02 * kernel, atol=1e-6)


def test_a_layer_that_adds_a_loss_is_refused():
    model = distiller_of(options={"activity_regularizer": "l2"})
    with pytest.raises(ValueError, match=r"with 1 such losses\. Take out `activity_regularizer`"):
        fit(model)
