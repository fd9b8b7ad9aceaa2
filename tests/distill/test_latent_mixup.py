# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.distill.latent_mixup import (
    latent_distance,
    latent_mixup_loss,
    mix_latents,
    sample_mixup_lambda,
)


def latents(*shape, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for _ in range(count)]


def draw(alpha, count, seed=0):
    return np.asarray(sample_mixup_lambda(count, alpha, keras.random.SeedGenerator(seed)))


def test_mix_latents_with_lambda_one_returns_first_view():
    first, second = latents(3, 4, 1, 5)
    np.testing.assert_array_equal(mix_latents(first, second, np.ones(3, "f")), first)


def test_mix_latents_with_lambda_zero_returns_second_view():
    first, second = latents(3, 4, 1, 5)
    np.testing.assert_array_equal(mix_latents(first, second, np.zeros(3, "f")), second)


def test_mix_latents_uses_the_coefficient_of_each_example():
    first, second = latents(3, 4, 2)
    coefficients = np.array([0.0, 0.25, 1.0], np.float32)
    mixed = np.asarray(mix_latents(first, second, coefficients))
    for b, weight in enumerate([0.0, 0.25, 1.0]):
        expected = weight * first[b] + (1 - weight) * second[b]
        np.testing.assert_allclose(mixed[b], expected, atol=1e-6)


def test_mix_latents_is_symmetric_under_exchange_of_views_and_coefficients():
    first, second = latents(3, 4, 1, 5)
    coefficients = draw(1.0, 3)
    np.testing.assert_allclose(
        mix_latents(first, second, coefficients),
        mix_latents(second, first, 1 - coefficients),
        atol=1e-6,
    )


def test_mix_latents_takes_one_coefficient_for_the_whole_batch():
    first, second = latents(2, 3)
    np.testing.assert_allclose(
        mix_latents(first, second, 0.25), 0.25 * first + 0.75 * second, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(2, 3, 1, 5), (2, 4, 1, 4), (1, 3, 1, 4), (2, 3, 4)])
def test_mix_latents_of_different_shapes_is_refused(shape):
    message = r"two latents of a pair must have the same shape\. Received \(2, 3, 1, 4\) and"
    with pytest.raises(ValueError, match=message):
        mix_latents(np.zeros((2, 3, 1, 4), "f"), np.zeros(shape, "f"), 0.5)


def test_loss_is_the_mean_squared_error_over_the_variance_per_example():
    student, teacher = latents(3, 4, 1, 5)
    expected = ((student - teacher).astype(np.float64) ** 2).mean(axis=(1, 2, 3)) / 2.5
    distances = latent_distance(student, teacher, 2.5)
    assert distances.shape == (3, 4, 1)
    np.testing.assert_allclose(latent_mixup_loss(distances), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 1, 4), (2, 3, 1, 5), (2, 3, 4)])
def test_loss_of_latents_that_would_only_broadcast_is_refused(shape):
    message = r"must have one shape\. Received \(2, .* and \(2, 3, 1, 4\)\. Use a projector"
    with pytest.raises(ValueError, match=message):
        latent_distance(np.zeros((2, 3, 1, 4), "f"), np.zeros(shape, "f"), 1.0)


def test_teacher_latent_gets_no_gradient_and_the_student_does(gradients_of):
    student, teacher = latents(2, 3, 4)

    def loss(student, teacher):
        return latent_mixup_loss(latent_distance(student, teacher, 1.0))

    to_student, to_teacher = gradients_of(loss, student, teacher)
    np.testing.assert_array_equal(to_teacher, np.zeros_like(teacher))
    np.testing.assert_allclose(to_student, 2 * (student - teacher) / 12, rtol=1e-5)


def mixed_loss(errors, coefficients, variance=1.0):
    """Loss of two views with the given errors, for every coefficient."""
    count = len(coefficients)
    e_a, e_b = (np.repeat(error[None], count, axis=0) for error in errors)
    zero = np.zeros_like(e_a)
    mixed = mix_latents(e_a, e_b, coefficients)
    target = mix_latents(zero, zero, coefficients)
    return np.asarray(latent_mixup_loss(latent_distance(mixed, target, variance)))


def test_lambda_one_is_plain_feature_matching_of_the_first_view():
    e_a, e_b = latents(4, 5)
    assert mixed_loss([e_a, e_b], np.ones(1, "f")) == pytest.approx(np.mean(e_a**2), rel=1e-5)


def test_equal_views_are_plain_feature_matching_whatever_the_coefficient():
    (e_a,) = latents(4, 5, count=1)
    expected = np.full(100, np.mean(e_a**2))
    np.testing.assert_allclose(mixed_loss([e_a, e_a], draw(0.4, 100)), expected, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_expected_loss_weights_the_noise_specific_error_by_one_over_two_alpha_plus_one(alpha):
    e_a, e_b = latents(4, 5, seed=3)
    m, d = 0.5 * (e_a + e_b), 0.5 * (e_a - e_b)
    expected = np.mean(m**2) + np.mean(d**2) / (2 * alpha + 1)
    sampled = mixed_loss([e_a, e_b], draw(alpha, 50_000), variance=4.0)
    four_sigma = 4 * sampled.std() / np.sqrt(len(sampled))
    assert sampled.mean() == pytest.approx(expected / 4.0, abs=four_sigma)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lambda_has_the_mean_and_variance_of_the_symmetric_beta_law(alpha):
    drawn = draw(alpha, 50_000)
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    assert drawn.mean() == pytest.approx(0.5, abs=0.008)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_every_example_gets_a_coefficient_of_its_own():
    drawn = draw(1.0, 16)
    assert drawn.shape == (16,)
    assert len(np.unique(drawn)) == 16


def test_lambda_repeats_with_the_seed_and_moves_on_with_each_draw():
    np.testing.assert_array_equal(draw(1.0, 8, seed=5), draw(1.0, 8, seed=5))
    generator = keras.random.SeedGenerator(5)
    first, second = (np.asarray(sample_mixup_lambda(8, 1.0, generator)) for _ in range(2))
    assert not np.array_equal(first, second)
