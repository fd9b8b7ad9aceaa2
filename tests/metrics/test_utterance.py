# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.metrics.utterance import utterance_scores

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
