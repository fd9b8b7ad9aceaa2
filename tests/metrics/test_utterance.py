# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.metrics.utterance import floored_scores, utterance_scores

LEVEL_INVARIANT = ("pesq_wb", "stoi", "estoi", "csig", "covl")
LEVEL_DEPENDENT = ("segmental_snr_db", "cbak", "dnsmos_ovrl")


@pytest.fixture
def pair(speechlike):
    noise = 0.02 * np.random.default_rng(0).standard_normal(32000)
    return speechlike(), speechlike() + noise


def test_scores_say_truly_which_of_them_hear_the_level(pair):
    speech, noisy = pair
    loud, soft = (utterance_scores(speech, gain * noisy) for gain in (1.0, 0.25))
    for name in LEVEL_INVARIANT:
        assert soft[name].value == pytest.approx(loud[name].value, abs=0.01), name
    for name in LEVEL_DEPENDENT:
        assert soft[name].value != pytest.approx(loud[name].value, abs=0.03), name


def test_undefined_pesq_leaves_the_composite_scores_undefined(pair):
    scores = utterance_scores(pair[0], np.zeros(32000))
    assert scores["pesq_wb"].note == "PESQ: silent estimate"
    assert [scores[name].value for name in ("csig", "cbak", "covl")] == [None] * 3
    assert scores["dnsmos_ovrl"].value is not None


def test_signal_below_a_frame_has_no_segmental_snr():
    scores = utterance_scores(np.ones(500), np.ones(500))
    assert scores["segmental_snr_db"].note == "segmental SNR: shorter than a frame"


def test_silent_estimate_of_sound_speech_gets_the_lowest_scores(pair):
    """Left out of the mean, a muted clip would raise it."""
    scores = floored_scores(pair[0], np.zeros(32000))
    for name in ("pesq_wb", "csig", "cbak", "covl"):
        assert scores[name].value == 1.0, name
    assert scores["pesq_wb"].note == "PESQ: silent estimate, counted as 1"
    assert all(score.value is not None for score in scores.values())


@pytest.mark.parametrize("reference", [np.zeros(32000), np.ones(500)])
def test_unsuitable_reference_leaves_scores_undefined(reference, pair):
    for estimate in (np.zeros(len(reference)), pair[1][: len(reference)]):
        scores = floored_scores(reference, estimate)
        for name in ("pesq_wb", "stoi", "estoi", "csig", "cbak", "covl"):
            assert scores[name].value is None, name


def test_score_that_is_not_finite_is_the_lowest(monkeypatch, pair):
    from lmkd_tf.metrics import utterance
    from lmkd_tf.metrics.perceptual import Score

    def stoi(reference, estimate):
        return Score(1.0 if estimate is reference else float("nan"))

    monkeypatch.setattr(utterance, "stoi", stoi)
    score = floored_scores(*pair, names=["stoi"])["stoi"]
    assert score == Score(0.0, "stoi: not computable, counted as 0")


def test_scores_of_a_good_estimate_are_those_without_floors(pair):
    names = ("pesq_wb", "stoi", "csig")
    assert floored_scores(*pair, names=names) == utterance_scores(*pair, names=names)
