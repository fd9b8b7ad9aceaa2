# SPDX-License-Identifier: Apache-2.0
import types

import numpy as np
import pytest

from lmkd_tf.distill.checks import (
    check_equal_widths,
    check_models,
    check_sample_weight,
    check_views,
    check_weights,
    find_mix_index,
)
from lmkd_tf.distill.objective import Objective
from lmkd_tf.distill.views import Pair
from lmkd_tf.models.taps import FeatureTap
from tests.distill.by_hand import network

TAPS = [FeatureTap(name, "latent", "latent") for name in ("first", "middle", "last")]
GOOD = {"first_view": np.zeros((4, 6)), "second_view": np.zeros((4, 6))}


def test_models_and_taps_given_by_name_are_accepted():
    check_models((), network(3), network(3), TAPS)


@pytest.mark.parametrize(
    ("positional", "teacher", "student", "received"),
    [
        (("teacher", "student"), None, None, r"2 arguments by position, without \['teacher', "),
        ((), None, 1, r"0 arguments by position, without \['teacher'\]"),
        ((), 1, None, r"0 arguments by position, without \['student'\]"),
        ((1,), 1, 1, r"1 arguments by position, without \[\]"),
    ],
)
def test_models_by_position_or_missing_are_refused(positional, teacher, student, received):
    message = rf"must be given by name, .*\. Received {received}.*\. Use LatentMixupDistiller\("
    with pytest.raises(TypeError, match=message):
        check_models(positional, teacher, student, TAPS)


@pytest.mark.parametrize("taps", [[], None, ()])
def test_no_taps_are_refused(taps):
    with pytest.raises(ValueError, match=r"`taps` must name .*\. Received an empty list\. Use for"):
        check_models((), network(3), network(3), taps)


def test_a_student_inside_its_teacher_is_refused():
    teacher = network(3)
    message = r"must not share variables.* Received a student with 8 variables of the teacher\."
    with pytest.raises(ValueError, match=message):
        check_models((), teacher, teacher, TAPS)


def test_alpha_above_zero_and_weight_zero_are_accepted():
    check_weights(1e-3, 0.0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_that_is_not_positive_is_refused(alpha):
    with pytest.raises(ValueError, match=rf"must be positive\. Received mixup_alpha={alpha}\. Use"):
        check_weights(alpha, 1.0)


@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_a_weight_below_zero_is_refused(weight):
    message = rf"must not be negative\. Received distillation_weight={weight}\. Use 0"
    with pytest.raises(ValueError, match=message):
        check_weights(1.0, weight)


@pytest.mark.parametrize(
    ("mix_tap", "index"), [("", 2), ("random", 2), ("first", 0), ("middle", 1), ("last", 2)]
)
def test_the_tap_that_is_mixed_is_found_by_name_and_is_the_last_by_default(mix_tap, index):
    assert find_mix_index(TAPS, Objective(mix_tap=mix_tap)) == index


def test_mixing_at_an_unknown_tap_is_refused():
    message = r"must name one of the taps\. Received 'third'\. Use one of: first, middle, last, ran"
    with pytest.raises(ValueError, match=message):
        find_mix_index(TAPS, Objective(mix_tap="third"))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0, 1.0)])
def test_another_number_of_tap_weights_than_taps_is_refused(weights):
    message = rf"one weight per tap\. Received {len(weights)} weights for 3 taps\. Leave them out"
    with pytest.raises(ValueError, match=message):
        find_mix_index(TAPS, Objective(tap_weights=weights))


def test_as_many_tap_weights_as_taps_are_accepted():
    assert find_mix_index(TAPS, Objective(tap_weights=(0.0, 1.0, 2.0))) == 2


def test_unequal_widths_without_a_projector_name_the_tap():
    shapes = [(None, 4), (None, 3, 5), (None, 6)]
    check_equal_widths(TAPS, shapes, shapes)
    others = [(None, 4), (None, 9, 5), (None, 7)]  # another grid is no other width
    message = r"one width\. Received 6 of the student and 7 of the teacher for tap 'last'\. Use"
    with pytest.raises(ValueError, match=message):
        check_equal_widths(TAPS, shapes, others)


def test_a_pair_of_views_is_accepted_with_and_without_cached_latents():
    check_views(GOOD)
    check_views({**GOOD, "teacher_latents": [np.zeros((4, 2, 7))]})


@pytest.mark.parametrize(
    ("views", "received"),
    [
        (np.zeros((4, 6)), r"ndarray of shape \(4, 6\)"),
        ([1], "list of shape unknown"),
        ({"first_view": GOOD["first_view"]}, r"a dict with the keys \['first_view'\]"),
        ({**GOOD, "third": 1}, r"a dict with the keys \['first_view', 'second_view', 'third'\]"),
    ],
)
def test_anything_but_a_pair_of_views_is_refused(views, received):
    message = rf"needs two noisy views .*\. Received {received}\. Use batches \("
    with pytest.raises(ValueError, match=message):
        check_views(views)


@pytest.mark.parametrize("shape", [(4, 5), (3, 6), (4, 6, 1), (4,)])
def test_views_of_different_shapes_are_refused(shape):
    message = r"must have the same shape\. Received \(4, 6\) and \(.*\)\. Cut both"
    with pytest.raises(ValueError, match=message):
        check_views({**GOOD, "second_view": np.zeros(shape)})


def test_views_of_unknown_batch_size_are_accepted():
    unknown = types.SimpleNamespace(shape=(None, 6))
    check_views({"first_view": unknown, "second_view": GOOD["second_view"]})


def test_weights_of_examples_are_refused_where_two_examples_are_mixed():
    noisy, speech = np.zeros((2, 6)), np.ones((2, 6))
    check_sample_weight(Pair(noisy, noisy, speech, speech), np.ones(2))
    of_two = Pair(noisy, noisy, speech, speech[::-1])
    check_sample_weight(of_two, None)
    message = r"weighted only where each is mixed with itself\. Received `sample_weight` with mix"
    with pytest.raises(ValueError, match=message):
        check_sample_weight(of_two, np.ones(2))
