# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
from keras import ops

from lmkd_tf.distill.lambda_laws import LAMBDA_LAWS
from lmkd_tf.distill.mixture import Mixer, MixtureSource
from lmkd_tf.distill.objective import Objective
from lmkd_tf.distill.views import NUM_LAMBDA_BANDS, Pair
from tests.distill.by_hand import mix

NUM_TAPS, SIZE = 3, 4
GRANULARITIES = ("sample", "batch", "tap", "band")


def objective(granularity="sample", **changes):
    mixing = "input" if granularity == "band" else "both"
    return Objective(**{"mixing": mixing, "granularity": granularity, **changes})


def source(settings, mix_index=1, seed=0, alpha=1.0):
    generator = keras.random.SeedGenerator(seed)
    return MixtureSource(settings, alpha, NUM_TAPS, mix_index, generator)


def signals(noise_gains=(1.0, 1.0)):
    rng = np.random.default_rng(0)
    speech, first, second = rng.normal(size=(3, SIZE, 50)).astype(np.float32)
    first, second = speech + noise_gains[0] * first, speech + noise_gains[1] * second
    return Pair(*map(ops.convert_to_tensor, (first, second, speech, speech)))


def draw(granularity="sample", training=True, mix_index=1, seed=0, **changes):
    settings = objective(granularity, **changes)
    mixer, drawn = source(settings, mix_index, seed).draw(signals(), training)
    return mixer, np.asarray(drawn)


def num_distinct(values):
    return len(np.unique(np.asarray(values)))


def test_by_default_every_example_has_one_coefficient_at_all_taps():
    mixer, drawn = draw()
    assert drawn.shape == (1, SIZE)
    assert num_distinct(drawn) == SIZE
    np.testing.assert_array_equal(mixer.tap_lambdas, np.tile(drawn, (NUM_TAPS, 1)))
    np.testing.assert_array_equal(mixer.mixup_lambda, drawn[0])
    assert mixer.chosen is None
    assert mixer.band_lambda is None


def test_one_coefficient_per_batch_is_that_of_every_example_and_tap():
    mixer, drawn = draw("batch")
    assert num_distinct(drawn) == 1
    np.testing.assert_array_equal(mixer.tap_lambdas, np.full((NUM_TAPS, SIZE), drawn[0, 0]))


@pytest.mark.parametrize("mix_index", [0, 1, 2])
def test_one_coefficient_per_tap_differs_between_taps_and_the_input_takes_that_of_the_mixed_one(
    mix_index,
):
    mixer, drawn = draw("tap", propagation="none", mix_index=mix_index)
    assert num_distinct(drawn) == NUM_TAPS * SIZE
    np.testing.assert_array_equal(mixer.tap_lambdas, drawn)
    np.testing.assert_array_equal(mixer.mixup_lambda, drawn[mix_index])


@pytest.mark.parametrize("propagation", ["student", "both"])
def test_taps_behind_a_decoded_mixture_have_its_coefficient(propagation):
    mixer, drawn = draw("tap", propagation=propagation, mix_index=1)
    np.testing.assert_array_equal(mixer.tap_lambdas, drawn[[0, 1, 1]])


def test_one_coefficient_per_band_differs_between_bands_and_latents_take_the_mean():
    mixer, drawn = draw("band")
    assert drawn.shape == (NUM_LAMBDA_BANDS, SIZE)
    assert num_distinct(drawn) == NUM_LAMBDA_BANDS * SIZE
    np.testing.assert_array_equal(mixer.band_lambda, drawn.T)
    np.testing.assert_allclose(mixer.mixup_lambda, drawn.mean(0), rtol=1e-6)
    np.testing.assert_allclose(mixer.tap_lambdas, np.tile(drawn.mean(0), (NUM_TAPS, 1)), rtol=1e-6)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_in_evaluation_every_coefficient_is_one_half_and_the_seed_stays(granularity):
    drawing = source(objective(granularity, mix_prob=0.0))
    before = np.array(drawing._seed.state)
    mixer, drawn = drawing.draw(signals(), training=False)
    for values in (drawn, mixer.tap_lambdas, mixer.mixup_lambda):
        np.testing.assert_array_equal(values, 0.5)
    np.testing.assert_array_equal(drawing._seed.state, before)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_coefficients_repeat_with_the_seed(granularity):
    first, repeated, other = (draw(granularity, seed=seed)[1] for seed in (5, 5, 6))
    np.testing.assert_array_equal(repeated, first)
    assert not np.any(other == first)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_examples_that_are_not_mixed_have_lambda_one(granularity):
    mixer, drawn = draw(granularity, mix_prob=0.0)
    np.testing.assert_array_equal(drawn, 1.0)
    np.testing.assert_array_equal(mixer.mixup_lambda, 1.0)


@pytest.mark.parametrize("mixing", ["none", "split"])
def test_where_nothing_is_mixed_lambda_is_one_and_none_is_drawn(mixing):
    mixer, drawn = source(Objective(mixing=mixing)).draw(signals(), training=True)
    assert drawn is None
    np.testing.assert_array_equal(mixer.tap_lambdas, np.ones((NUM_TAPS, SIZE)))
    np.testing.assert_array_equal(mixer.mixup_lambda, np.ones(SIZE))


def test_the_law_gets_alpha_the_seed_and_the_range(monkeypatch):
    received = []

    def law(shape, mixup_alpha, seed, **options):
        received.append((shape, mixup_alpha, seed, options))
        return ops.full(shape, 0.3)

    monkeypatch.setitem(LAMBDA_LAWS, "uniform", law)
    settings = objective("batch", lambda_law="uniform", lambda_range=(0.1, 0.4))
    drawing = source(settings, alpha=0.7)
    drawing.draw(signals(), training=True)
    assert received == [((1, 1), 0.7, drawing._seed, {"lambda_range": (0.1, 0.4)})]


def test_the_snr_aware_law_prefers_the_cleaner_view():
    settings = objective(lambda_law="snr_aware")
    means = []
    for gains in ((0.1, 10.0), (10.0, 0.1)):
        drawing = source(settings, alpha=20.0)  # close to its mean
        means.append(np.mean(drawing.draw(signals(gains), training=True)[1]))
    assert means[0] > 0.9  # 40 dB cleaner
    assert means[1] < 0.1


def test_the_tap_is_drawn_in_each_step_and_the_input_takes_its_coefficient():
    settings = objective("tap", mix_tap="random")
    drawing, found = source(settings, mix_index=NUM_TAPS - 1), set()
    for _ in range(12):
        mixer, drawn = drawing.draw(signals(), training=True)
        chosen = np.asarray(mixer.chosen)
        assert sorted(chosen) == [0.0, 0.0, 1.0]
        np.testing.assert_allclose(mixer.mixup_lambda, np.asarray(drawn)[chosen.argmax()])
        np.testing.assert_array_equal(mixer.tap_lambdas, drawn)
        found.add(int(chosen.argmax()))
    assert found == {0, 1, 2}


def test_in_evaluation_the_last_tap_is_mixed_where_it_is_drawn_in_training():
    mixer, _ = draw(mix_tap="random", training=False)
    np.testing.assert_array_equal(mixer.chosen, [0.0, 0.0, 1.0])


def test_a_mixer_mixes_the_two_halves_of_a_batch_by_its_coefficients():
    values = np.random.default_rng(0).normal(size=(8, 2, 3)).astype(np.float32)
    at_taps = np.random.default_rng(1).uniform(size=(2, 4)).astype(np.float32)
    mixer = Mixer(at_taps, np.array([0.1, 0.2, 0.7, 1.0], "f"))
    for tap in (0, 1):
        expected = mix(values[:4], values[4:], at_taps[tap])
        np.testing.assert_allclose(mixer.at_tap(values, tap), expected, atol=1e-6)
    expected = mix(values[:4], values[4:], mixer.mixup_lambda)
    np.testing.assert_allclose(mixer.of_input(values), expected, atol=1e-6)
