# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from lmkd_tf.distill.objective import METHODS, Objective, check_choice, objective_of

NAN = float("nan")
CHOICES = (
    "pairing", "mixing", "propagation", "lambda_law", "granularity", "distance", "projector",
    "position_weight", "output_loss", "schedule",
)  # fmt: skip


def test_defaults_are_the_reconstruction():
    settings = Objective()
    assert (settings.pairing, settings.mixing, settings.propagation) == (
        "same_clean",
        "both",
        "student",
    )
    assert (settings.lambda_law, settings.granularity, settings.mix_prob) == ("beta", "sample", 1.0)
    assert (settings.distance, settings.projector, settings.schedule) == ("mse", "linear", "joint")
    weights = settings.mixed_weight, settings.latent_weight, settings.output_weight
    assert weights == (1.0, 1.0, 0.0)
    assert METHODS["latent_mixup"] == settings


@pytest.mark.parametrize("setting", CHOICES)
def test_an_unknown_name_is_refused_with_those_that_exist(setting):
    message = rf"`{setting}` must be a name that exists\. Received 'nonsense'\. Use one of: \w+"
    with pytest.raises(ValueError, match=message):
        objective_of("latent_mixup", **{setting: "nonsense"})


def test_a_misspelt_name_is_answered_with_the_near_one_alone():
    message = r"Received 'same_claen'\. Use one of: same_clean\.$"
    with pytest.raises(ValueError, match=message):
        check_choice("pairing", "same_claen", ("same_clean", "other_clean", "band"))


@pytest.mark.parametrize(
    "weight", ["mixed_weight", "latent_weight", "output_weight", "noise_specific_weight"]
)
@pytest.mark.parametrize("value", [-0.5, NAN])
def test_a_negative_weight_is_refused(weight, value):
    message = rf"must not be negative\. Received {weight}={value}\. Use 0 to switch"
    with pytest.raises(ValueError, match=message):
        Objective(**{weight: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tap_weights": (1.0, -1.0)},
            r"must not be negative\. Received tap_weights=\(1.0, -1.0\)\. Use 0",
        ),
        ({"tap_weights": (NAN,)}, r"must not be negative\. Received tap_weights=\(nan,\)\."),
        (
            {"tap_weights": (0.0, 0.0)},
            r"One tap must have a weight\. Received tap_weights=\(0.0, 0.0\)\. Leave them out",
        ),
        ({"lambda_range": (-0.1, 1.0)}, r"lie in \[0, 1\]\. Received lambda_range=\(-0.1, 1.0\),"),
        ({"lambda_range": (0.0, 1.1)}, r"lie in \[0, 1\]\. Received lambda_range=\(0.0, 1.1\),"),
        ({"lambda_range": (0.6, 0.5)}, r"lie in \[0, 1\]\. Received lambda_range=\(0.6, 0.5\),"),
        ({"mix_prob": -0.1}, r"lie in \[0, 1\]\. Received .*, mix_prob=-0.1\. Use for example"),
        ({"mix_prob": 1.1}, r"lie in \[0, 1\]\. Received .*, mix_prob=1.1\. Use for example"),
        ({"schedule_steps": 0}, r"needs steps\. Received schedule_steps=0\. Use at least 1\."),
    ],
)
def test_a_number_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Objective(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"propagation": "both", "mixing": "teacher"},
            r"only where both mix theirs\. Received propagation='both', mixing='teacher'\. Use mix",
        ),
        (
            {"mix_tap": "random", "mixing": "teacher"},
            r"can be drawn only where .*\. Received mix_tap='random', mixing='teacher', prop",
        ),
        (
            {"mix_tap": "random", "propagation": "none"},
            r"can be drawn only where .*mixing='both', propagation='none'\. Use mixing=",
        ),
        (
            {"mix_tap": "random", "propagation": "both"},
            r"can be drawn only where .*mixing='both', propagation='both'\. Use mixing=",
        ),
        (
            {"granularity": "band"},
            r"per band only for signals.* Received granularity='band', mixing='both'\. Use mixing=",
        ),
        *(
            (
                {"granularity": "tap", "mixing": mixing},
                rf"networks mix their.* Received granularity='tap', mixing='{mixing}'\. Use mix",
            )
            for mixing in ("teacher", "student", "input", "cross", "none", "split")
        ),
        (
            {"mixing": "split", "distance": "l1"},
            r"defined for the squared error\. Received mixing='split', distance='l1'\. Use dist",
        ),
        (
            {"mixing": "cross", "distance": "cosine"},
            r"defined for the squared error\. Received mixing='cross', distance='cosine'\.",
        ),
        (
            {"position_weight": "teacher_advantage", "distance": "attention"},
            r"one by one\. Received position_weight='teacher_advantage', distance='attention'\.",
        ),
        *(
            (
                {"position_weight": "teacher_advantage", "mixing": mixing},
                rf"enhances both views\. Received .*_advantage', mixing='{mixing}'\. Use mix",
            )
            for mixing in ("student", "input", "cross", "split")
        ),
        (
            {"mixing": "student", "propagation": "none", "output_weight": 1.0},
            r"where the student decodes it\. Received mixing='student', propagation='none', outp",
        ),
        (
            {"lambda_law": "snr_aware", "granularity": "batch"},
            r"drawn for each example\. Received lambda_law='snr_aware', granularity='batch'\. Use",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Objective(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixing": "student", "mix_tap": "random"},
        {"mixing": "student", "output_weight": 1.0},
        {"mixing": "input", "granularity": "band", "lambda_law": "snr_aware"},
        {"mixing": "none", "position_weight": "teacher_advantage", "distance": "l1"},
        {"mixing": "teacher", "position_weight": "teacher_advantage"},
        {"lambda_range": (0.5, 0.5), "mix_prob": 0.0},
    ],
)
def test_settings_at_the_edge_of_what_goes_together_are_accepted(changes):
    assert dataclasses.replace(Objective(), **changes) == Objective(**changes)


def test_lists_of_a_file_become_tuples_of_floats():
    settings = objective_of("latent_mixup", lambda_range=[0, 1], tap_weights=[1, 2])
    assert (settings.lambda_range, settings.tap_weights) == ((0.0, 1.0), (1.0, 2.0))
    assert Objective(**dataclasses.asdict(settings)) == settings
    hash(settings)


@pytest.mark.parametrize(
    ("distance", "is_pointwise"),
    [("mse", True), ("l1", True), ("cosine", True), ("attention", False), ("similarity", False)],
)
def test_pointwise_distances_compare_position_by_position(distance, is_pointwise):
    assert Objective(distance=distance).is_pointwise == is_pointwise


def test_only_objectives_of_the_two_views_latents_take_a_cache():
    takes = {name for name, settings in METHODS.items() if settings.takes_cached_latents}
    needs_more = {
        "input_mixup", "propagated_mixup", "cross_mixup", "student_mixup", "manifold_mixup",
        "advantage_mixup", "band_mixup", "path_mixup", "output_waveform", "output_spectrum",
        "output_mask", "dispatch", "dispatch_multi_scale", "frequency_adaptive",
    }  # fmt: skip
    assert takes == set(METHODS) - needs_more


@pytest.mark.parametrize(
    ("changes", "takes"),
    [
        ({"mixing": "teacher"}, True),
        ({"mixing": "student"}, False),
        ({"pairing": "residual_permutation"}, False),
        ({"propagation": "none"}, True),
        ({"propagation": "both"}, False),
        ({"output_weight": 1.0}, False),
        ({"position_weight": "teacher_advantage"}, False),
    ],
)
def test_each_need_for_more_than_the_two_latents_rules_the_cache_out(changes, takes):
    assert objective_of("latent_mixup", **changes).takes_cached_latents == takes


def test_a_method_can_be_changed_in_one_setting():
    changed = objective_of("fitnets", distance="cosine")
    assert changed == dataclasses.replace(METHODS["fitnets"], distance="cosine")


def test_an_unknown_method_is_refused_with_near_names():
    message = r"`method` must be a name that exists\. Received 'fitnet'\. Use one of: fitnets"
    with pytest.raises(ValueError, match=message):
        objective_of("fitnet")


def test_a_changed_method_is_checked_again():
    with pytest.raises(ValueError, match="defined for the squared error"):
        objective_of("lambda_free", distance="l1")
