# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from lmkd_tf.distill.mixture import Mixer
from lmkd_tf.distill.streams import run_blended, run_mixed, run_mixed_at_drawn_tap, run_plain
from tests.distill.by_hand import LAMBDAS, mix
from tests.distill.toy import Toy, latents_by_hand

TAPS = [0, 1, 2]


def views(count=4, seed=0):
    return np.random.default_rng(seed).normal(size=(2 * count, 5)).astype(np.float32)


def mixer(chosen=None):
    weights = None if chosen is None else ops.one_hot(chosen, len(TAPS))
    return Mixer(np.tile(LAMBDAS, (len(TAPS), 1)), LAMBDAS, weights)


def halves(values):
    return values[:4], values[4:]


def assert_close(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("cuts", [(1,), (0, 1, 2)])
def test_a_plain_run_passes_every_segment_once(cuts):
    toy, inputs = Toy(cuts), views()
    latents, output = run_plain(toy, inputs, training=True)
    expected, expected_output = latents_by_hand(inputs)
    assert_close([*latents, output], [*expected, expected_output])
    assert toy.runs == [(segment, True) for segment in range(len(cuts) + 1)]


def test_a_blended_run_passes_the_mixed_input_beside_the_views():
    toy, inputs = Toy((1,)), views()
    blend = views(2, seed=1)
    streams = run_blended(toy, inputs, blend, training=False)
    expected, output = latents_by_hand(inputs)
    mixed, mixed_output = latents_by_hand(blend)
    assert_close([*streams.latents, streams.output], [*expected, output])
    assert_close([*streams.mixed_latents, streams.mixed_output], [*mixed, mixed_output])
    assert toy.runs == [(0, False), (1, False)]


@pytest.mark.parametrize("tap", TAPS)
def test_a_mixed_run_decodes_the_mixed_latent_with_the_mixed_context(tap):
    toy, inputs = Toy((tap,)), views()
    streams = run_mixed(toy, inputs, mixer(), training=True)
    latents, output = latents_by_hand(inputs)
    mixed = [mix(*halves(z)) for z in latents[: tap + 1]]
    later, mixed_output = latents_by_hand(mix(*halves(inputs)), mixed[-1], tap)
    assert_close([*streams.latents, streams.output], [*latents, output])
    assert_close(streams.mixed_latents, mixed + later)
    assert_close([streams.mixed_output], [mixed_output])
    assert toy.runs == [(0, True), (1, True)]


@pytest.mark.parametrize("tap", TAPS)
def test_without_propagation_taps_on_both_sides_of_the_cut_are_mixed_and_nothing_is_decoded(tap):
    toy, inputs = Toy((tap,)), views()
    at_taps = np.random.default_rng(2).uniform(size=(3, 4)).astype(np.float32)
    streams = run_mixed(toy, inputs, Mixer(at_taps, LAMBDAS), training=False, is_propagated=False)
    latents, output = latents_by_hand(inputs)
    mixed = [mix(*halves(z), at_taps[i]) for i, z in enumerate(latents)]
    assert_close([*streams.latents, streams.output], [*latents, output])
    assert_close(streams.mixed_latents, mixed)
    assert streams.mixed_output is None
    assert toy.runs == [(0, False), (1, False)]


@pytest.mark.parametrize("tap", TAPS)
def test_a_drawn_tap_gives_the_result_of_the_same_tap_when_it_is_fixed(tap):
    toy, inputs = Toy(), views()
    drawn = run_mixed_at_drawn_tap(toy, inputs, mixer(tap), training=True)
    fixed = run_mixed(Toy((tap,)), inputs, mixer(), training=True)
    assert_close([drawn.output, drawn.mixed_output], [fixed.output, fixed.mixed_output])
    assert_close(drawn.latents, fixed.latents)
    assert_close(drawn.mixed_latents[: tap + 1], fixed.mixed_latents[: tap + 1])
    assert toy.runs == [(segment, True) for segment in range(4)]


def test_a_drawn_tap_mixes_the_latents_of_all_taps_for_matching():
    inputs = views()
    drawn = run_mixed_at_drawn_tap(Toy(), inputs, mixer(0), training=False)
    assert_close(drawn.mixed_latents, [mix(*halves(z)) for z in latents_by_hand(inputs)[0]])


def test_of_a_drawn_tap_the_mixed_path_has_the_gradient_of_the_chosen_one_alone(gradients_of):
    def loss(at_taps):
        drawn = Mixer(at_taps, LAMBDAS, ops.one_hot(1, 3))
        return run_mixed_at_drawn_tap(Toy(), views(), drawn, training=True).mixed_output

    (gradient,) = gradients_of(loss, np.tile(LAMBDAS, (3, 1)))
    assert np.all(gradient[[0, 2]] == 0.0)
    assert np.all(gradient[1] != 0.0)
