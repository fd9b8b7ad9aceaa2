# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.distill.lambda_laws import LAMBDA_LAWS, keep_some_unmixed

MANY = (2, 4000)
ALL_LAWS = pytest.mark.parametrize("law", sorted(LAMBDA_LAWS))


def draw(law, shape=MANY, alpha=1.0, seed=0, **options):
    generator = seed if isinstance(seed, keras.random.SeedGenerator) else generator_of(seed)
    if law == "snr_aware":
        options.setdefault("snr_difference_db", np.zeros(shape[-1], "f"))
    return np.asarray(LAMBDA_LAWS[law](shape, alpha, generator, **options))


def generator_of(seed):
    return keras.random.SeedGenerator(seed)


@ALL_LAWS
def test_every_law_draws_the_shape_it_is_asked_for_inside_zero_and_one(law):
    drawn = draw(law, (3, 5))
    assert drawn.shape == (3, 5)
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    assert len(np.unique(drawn)) == 15


@ALL_LAWS
def test_every_law_repeats_with_the_seed_and_moves_on_with_each_draw(law):
    generator = generator_of(3)
    first, second = draw(law, (1, 6), seed=generator), draw(law, (1, 6), seed=generator)
    np.testing.assert_array_equal(draw(law, (1, 6), seed=3), first)
    assert not np.any(first == second)


@pytest.mark.parametrize("law", ["beta", "snr_aware"])
@pytest.mark.parametrize("alpha", [0.4, 1.0, 2.0])
def test_the_spread_of_beta_is_one_over_two_alpha_plus_one(law, alpha):
    drawn = draw(law, alpha=alpha)
    assert drawn.mean() == pytest.approx(0.5, abs=0.015)
    assert np.mean((2 * drawn - 1) ** 2) == pytest.approx(1 / (2 * alpha + 1), abs=0.02)


def test_the_folded_law_is_the_larger_share_of_beta():
    drawn, unfolded = draw("folded", seed=5), draw("beta", seed=5)
    np.testing.assert_allclose(drawn, np.maximum(unfolded, 1 - unfolded))
    assert drawn.min() >= 0.5
    assert drawn.mean() == pytest.approx(0.75, abs=0.01)  # uniform on [1/2, 1] at alpha = 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.5, 1.0), (0.2, 0.3)])
def test_the_uniform_law_has_the_moments_of_its_range(low, high):
    drawn = draw("uniform", lambda_range=(low, high))
    assert drawn.min() >= low
    assert drawn.max() <= high
    assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.015 * (high - low))
    assert drawn.var() == pytest.approx((high - low) ** 2 / 12, rel=0.06)


def test_a_range_of_no_length_is_a_constant():
    np.testing.assert_array_equal(draw("uniform", (1, 4), lambda_range=(0.5, 0.5)), 0.5)


@pytest.mark.parametrize("difference_db", [-10.0, 0.0, 5.0, 10.0])
def test_the_snr_aware_law_follows_the_cleaner_view(difference_db):
    drawn = draw("snr_aware", alpha=2.0, snr_difference_db=np.full(MANY[1], difference_db, "f"))
    share = 1 / (1 + np.exp(-difference_db / 10))
    assert drawn.mean() == pytest.approx(share, abs=0.012)
    assert drawn.var() == pytest.approx(share * (1 - share) / 5, rel=0.08)  # 2 alpha + 1 = 5


@pytest.mark.parametrize(("difference_db", "mean"), [(-200.0, 0.05), (200.0, 0.95)])
def test_the_snr_aware_law_never_forgets_a_view(difference_db, mean):
    drawn = draw("snr_aware", snr_difference_db=np.full(MANY[1], difference_db, "f"))
    assert drawn.mean() == pytest.approx(mean, abs=0.01)


def test_the_snr_aware_law_has_a_mean_of_its_own_for_each_example():
    difference_db = np.array([-10.0, 10.0], "f")
    drawn = draw("snr_aware", (4000, 2), snr_difference_db=difference_db)
    np.testing.assert_allclose(drawn.mean(axis=0), [0.269, 0.731], atol=0.015)


def kept(prob, drawn):
    return np.asarray(keep_some_unmixed(drawn, prob, generator_of(1)))


def test_all_examples_are_mixed_by_default_and_none_at_share_zero():
    drawn = draw("beta", (3, 8))
    np.testing.assert_array_equal(kept(1.0, drawn), drawn)
    np.testing.assert_array_equal(kept(0.0, drawn), np.ones((3, 8)))


def test_a_share_of_the_examples_is_mixed_with_the_coefficients_drawn():
    drawn = draw("beta")
    found = kept(0.3, drawn)
    is_mixed = found != 1.0
    assert is_mixed.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(found[is_mixed], drawn[is_mixed])
    np.testing.assert_array_equal(is_mixed[0], is_mixed[1])  # an example is mixed at all taps
