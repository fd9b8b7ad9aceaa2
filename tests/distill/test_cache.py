# SPDX-License-Identifier: Apache-2.0
from typing import Any

import keras
import numpy as np
import pytest

from lmkd_tf.distill.cache import cache_teacher, teacher_latents
from lmkd_tf.distill.distiller import LatentMixupDistiller

WIDTH = 6
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.data feeds the TensorFlow backend"
)


def network(channels, calls=None):
    class Counted(keras.layers.Layer):
        def call(self, inputs):
            if calls is not None:
                calls.append(self.name)
            return inputs

    inputs = keras.Input((WIDTH,))
    x = keras.layers.Dense(channels, activation="tanh", name="early")(inputs)
    x = keras.layers.Dense(channels, activation="tanh", name="latent")(Counted(name="counted")(x))
    return keras.Model(inputs, keras.layers.Dense(WIDTH)(x))


def pairs():
    rng = np.random.default_rng(0)
    first, second, speech = rng.normal(size=(3, 8, WIDTH)).astype(np.float32)
    return {"first_view": first, "second_view": second}, speech


def dataset():
    import tensorflow as tf

    examples: Any = pairs()
    return tf.data.Dataset.from_tensor_slices(examples).batch(4)


def distiller_of(objective="latent_mixup", calls=None, taps=("early", "latent")):
    keras.utils.set_random_seed(0)
    model = LatentMixupDistiller(
        teacher=network(7, calls),
        student=network(4),
        taps=[(tap, tap, tap) for tap in taps],
        objective=objective,
    )
    model.compile(keras.optimizers.SGD(0.05), loss="mse", run_eagerly=calls is not None)
    return model


def test_latents_of_the_views_are_those_of_the_teacher_in_half_precision():
    model = distiller_of()
    views, _ = pairs()
    latents = teacher_latents(model, views)
    layer = keras.Model(model.teacher.inputs[0], model.teacher.get_layer("latent").output)
    assert [tuple(latent.shape) for latent in latents] == [(8, 2, 7)] * 2
    for view, name in enumerate(views):
        expected = np.asarray(layer(views[name])).astype(np.float16)
        np.testing.assert_array_equal(np.asarray(latents[1])[:, view], expected)


@on_tensorflow
@pytest.mark.parametrize("objective", ["latent_mixup", "fitnets", "lambda_free"])
def test_training_with_cached_latents_is_training_with_the_teacher(objective):
    plain, cached = distiller_of(objective), distiller_of(objective)
    expected = plain.fit(dataset(), epochs=3, verbose=0, shuffle=False).history
    found = cached.fit(cache_teacher(cached, dataset()), epochs=3, verbose=0, shuffle=False).history
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3)
    for one, other in zip(cached.student.get_weights(), plain.student.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@on_tensorflow
def test_the_teacher_does_not_run_where_its_latents_are_cached():
    calls = []
    model = distiller_of(calls=calls)
    batches = list(cache_teacher(model, dataset()))
    calls.clear()
    for views, speech in batches:
        model.train_on_batch(views, speech)
    assert calls == []


@on_tensorflow
def test_a_cache_in_a_file_is_read_by_the_next_process(tmp_path):
    model = distiller_of()
    first = [views["teacher_latents"][1].numpy() for views, _ in cache_teacher(model, dataset())]
    stored = list(cache_teacher(model, dataset(), tmp_path / "latents"))
    assert list(tmp_path.glob("latents*"))
    for (views, _), expected in zip(stored, first, strict=True):
        np.testing.assert_array_equal(views["teacher_latents"][1], expected)


@on_tensorflow
def test_pairs_without_an_end_are_refused():
    message = r"needs a `tf\.data` set with an end, on the TensorFlow backend\. Received <_Repeat"
    with pytest.raises(ValueError, match=message):
        cache_teacher(distiller_of(), dataset().repeat())


@pytest.mark.parametrize("objective", ["propagated_mixup", "student_mixup", "output_waveform"])
def test_an_objective_that_needs_more_of_the_teacher_is_refused(objective):
    message = r"objective must need no others\. Received Objective\(.*\)\. Use it without the cach"
    with pytest.raises(ValueError, match=message):
        cache_teacher(distiller_of(objective), None)


def test_cached_latents_in_a_batch_of_such_an_objective_are_refused():
    views, speech = pairs()
    latents = teacher_latents(distiller_of(), views)
    with pytest.raises(ValueError, match=r"Received mixing='input', propagation='student', "):
        distiller_of("input_mixup").terms(
            {**views, "teacher_latents": latents}, speech, training=True
        )
