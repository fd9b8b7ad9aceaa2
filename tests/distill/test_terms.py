# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.latent_mixup import mix_latents, sample_mixup_lambda
from lmkd_tf.distill.terms import lambda_free_term, latent_term, teacher_advantage, weighted_mean
from tests.distill.by_hand import spectrum

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)


def latents(*shape, seed=0, count=2):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


# ---- between latents -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 5), (3, 4, 2, 5)])
def test_latent_term_is_the_squared_error_over_the_variance_per_example(shape):
    student, teacher = latents(*shape)
    expected = np.square(student - teacher).reshape(3, -1).mean(1) / 0.7
    np.testing.assert_allclose(latent_term("mse", student, teacher, 0.7), expected, rtol=1e-5)


def test_latent_term_takes_the_distance_by_its_name():
    student, teacher = latents(3, 4, 5)
    expected = np.abs(student - teacher).mean((1, 2)) / np.sqrt(0.7)
    np.testing.assert_allclose(latent_term("l1", student, teacher, 0.7), expected, rtol=1e-5)


def test_latent_term_of_a_relational_distance_takes_latents_of_unequal_width():
    student, teacher = latents(3, 4, 5)
    energies = [(z**2).mean(2) for z in (student[..., :2], teacher)]
    maps = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in energies]
    found = latent_term("attention", student[..., :2], teacher, 0.7)
    np.testing.assert_allclose(found, np.mean((maps[0] - maps[1]) ** 2, axis=1), rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 5), (3, 4, 2, 5)])
def test_one_weight_per_example_holds_for_all_its_positions(shape):
    student, teacher = latents(*shape)
    weight = np.array([0.0, 1.0, 3.0], "f")
    expected = weight * np.square(student - teacher).reshape(3, -1).mean(1)
    found = latent_term("mse", student, teacher, 1.0, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights_per_frame_hold_for_all_frequencies():
    student, teacher = latents(3, 4, 2, 5)
    weight = np.random.default_rng(2).uniform(size=(3, 4)).astype(np.float32)
    error = np.square(student - teacher).mean(3)  # (3, 4, 2)
    expected = (weight[:, :, None] * error).mean((1, 2))
    found = latent_term("mse", student, teacher, 1.0, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights_per_frame_are_averaged_for_a_latent_without_frames():
    student, teacher = latents(3, 5)
    weight = np.random.default_rng(2).uniform(size=(3, 4)).astype(np.float32)
    expected = weight.mean(1) * np.square(student - teacher).mean(1)
    found = latent_term("mse", student, teacher, 1.0, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights_on_other_frames_are_resampled_by_overlap():
    student, teacher = latents(1, 2, 5)
    error = np.square(student - teacher).mean(2)[0]
    # Three frames over two: thirds 1, 2 | 2, 3, the middle one shared.
    weight = np.array([[1.0, 4.0, 7.0]], "f")
    expected = np.mean([2.0, 6.0] * error)
    found = latent_term("mse", student, teacher, 1.0, weight)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_frames_of_unknown_number_are_taken_as_equal(compiled):
    student, teacher = latents(3, 4, 5)
    weight = np.random.default_rng(2).uniform(size=(3, 4)).astype(np.float32)
    expected = (weight * np.square(student - teacher).mean(2)).mean(1)
    found = compiled(lambda s, t, w: latent_term("mse", s, t, 1.0, w), student, teacher, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---- without λ -----------------------------------------------------------------------------------


def test_lambda_free_term_weighs_mean_and_half_difference_of_the_errors():
    projected, teacher = latents(6, 4, 5)
    error = np.float64(projected) - teacher
    mean, half = (error[:3] + error[3:]) / 2, (error[:3] - error[3:]) / 2
    expected = ((mean**2).mean((1, 2)) + 0.4 * (half**2).mean((1, 2))) / 0.7
    found = lambda_free_term(projected, teacher, 0.7, 0.4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_lambda_free_term_with_weight_one_is_feature_matching_of_both_views():
    projected, teacher = latents(6, 4, 5)
    per_view = np.square(projected - teacher).mean((1, 2))
    found = lambda_free_term(projected, teacher, 1.0, 1.0)
    np.testing.assert_allclose(found, (per_view[:3] + per_view[3:]) / 2, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.4, 1.0, 2.0])
def test_lambda_free_term_is_the_expectation_of_the_latent_term_over_the_law(alpha):
    draws = 6000
    projected, teacher = (np.repeat(z, draws, axis=0) for z in latents(2, 5))
    drawn = sample_mixup_lambda(draws, alpha, keras.random.SeedGenerator(0))
    student, target = (mix_latents(z[:draws], z[draws:], drawn) for z in (projected, teacher))
    monte_carlo = np.mean(latent_term("mse", student, target, 1.0))
    projected, teacher = latents(2, 5)
    expected = lambda_free_term(projected, teacher, 1.0, 1 / (2 * alpha + 1))
    assert monte_carlo == pytest.approx(float(expected[0]), rel=0.03)


def test_lambda_free_term_gives_the_teacher_no_gradient(gradients_of):
    student, teacher = gradients_of(lambda p, t: lambda_free_term(p, t, 1.0, 0.3), *latents(4, 3))
    assert np.all(teacher == 0.0)
    assert np.any(student != 0.0)


# ---- where the teacher is ahead ------------------------------------------------------------------


def test_teacher_advantage_of_whole_examples_compares_their_squared_errors():
    speech = np.zeros((4, 3), "f")
    student = np.array([[1.0] * 3, [1.0] * 3, [0.5] * 3, [2.0] * 3], "f")
    teacher = np.array([[0.5] * 3, [2.0] * 3, [0.5] * 3, [1.0, -1.0, 2.5]], "f")
    found = teacher_advantage(student, teacher, speech, None)  # ahead in the first and last
    np.testing.assert_allclose(found, np.array([1, 0, 0, 1]) / 0.501, rtol=1e-5)


def test_teacher_advantage_of_signals_compares_compressed_magnitudes_frame_by_frame():
    speech, student, teacher = latents(2, 200, count=3)
    clean, *outputs = (np.abs(spectrum(x, FRAME)) ** 0.3 for x in (speech, student, teacher))
    errors = [np.mean((y - clean) ** 2, axis=2) for y in outputs]
    is_better = errors[1] < errors[0]
    assert 0 < is_better.mean() < 1
    found = teacher_advantage(student, teacher, speech, FRAME)
    np.testing.assert_allclose(found, is_better / (is_better.mean() + 1e-3), rtol=1e-4)


def test_a_teacher_that_is_nowhere_ahead_has_no_weight():
    student, teacher = latents(3, 5)
    found = teacher_advantage(student, teacher, student, None)
    np.testing.assert_array_equal(found, np.zeros(3))


def test_teacher_advantage_has_no_gradient(gradients_of):
    found = gradients_of(
        lambda s, t, x: teacher_advantage(s, t, x, FRAME), *latents(2, 80, count=3)
    )
    assert all(np.all(gradient == 0.0) for gradient in found)


# ---- over the batch ------------------------------------------------------------------------------


def test_weighted_mean_without_weights_is_the_mean():
    assert float(weighted_mean(ops.convert_to_tensor([1.0, 2.0, 6.0]))) == pytest.approx(3.0)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_weighted_mean_multiplies_and_divides_by_the_number_of_examples(shape):
    weight = np.reshape([3.0, 0.0], shape)
    found = weighted_mean(ops.convert_to_tensor([1.0, 5.0]), weight)
    assert float(found) == pytest.approx(1.5)


def test_weighted_mean_of_two_views_gives_both_the_weight_of_their_example():
    views = ops.convert_to_tensor([1.0, 5.0, 3.0, 70.0])  # a_1, a_2, b_1, b_2
    found = weighted_mean(views, np.array([2.0, 0.0]))
    assert float(found) == pytest.approx((2.0 * 1.0 + 2.0 * 3.0) / 4)
