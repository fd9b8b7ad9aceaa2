# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.metrics.composite import (
    composite_scores,
    log_likelihood_ratios,
    segmental_snr_db,
    spectral_slope_distances,
)


def test_published_composite_scores_are_reproduced(published_pairs):
    for row, speech, noisy in published_pairs:
        scores = composite_scores(speech, noisy, float(row["pesq_wb"]))
        for name, value in scores._asdict().items():
            assert value == pytest.approx(float(row[name]), abs=2e-4)


def test_perfect_estimate_gets_the_constants_of_the_regressions(speechlike):
    speech = speechlike()
    scores = composite_scores(speech, speech, pesq=1.0)
    assert scores.csig == pytest.approx(3.093 + 0.603)
    assert scores.cbak == pytest.approx(1.634 + 0.478 + 0.063 * segmental_snr_db(speech, speech))
    assert scores.covl == pytest.approx(1.594 + 0.805)


def test_scores_stay_on_the_scale_of_one_to_five(speechlike):
    speech, noise = speechlike(), np.random.default_rng(0).standard_normal(32000)
    assert composite_scores(speech, speech, pesq=4.64)[:2] == (5.0, pytest.approx(5.0, abs=0.9))
    assert composite_scores(speech, noise, pesq=1.0) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("scale", [0.5, 0.75])
def test_segmental_snr_of_a_scaled_signal_is_the_known_ratio(speechlike, scale):
    speech = speechlike() + 0.001  # no frame of zeros
    expected_db = -20.0 * np.log10(1.0 - scale)
    assert segmental_snr_db(speech, scale * speech) == pytest.approx(expected_db, abs=1e-6)


def test_segmental_snr_cuts_every_frame_to_its_range(speechlike):
    speech = speechlike() + 0.001
    assert segmental_snr_db(speech, speech) == 35.0
    assert segmental_snr_db(speech, -100.0 * speech) == -10.0


def test_log_likelihood_ratio_is_the_excess_of_the_prediction_error():
    """Of white noise after a filter with one coefficient, judged by white noise.

    Sixteen coefficients fitted to a frame add a tenth.
    """
    white = np.random.default_rng(0).standard_normal(160000)
    colored = np.empty_like(white)
    previous = 0.0
    for index, value in enumerate(white):
        previous = colored[index] = value + 0.8 * previous
    ratios = log_likelihood_ratios(colored, np.roll(white, 999))
    assert np.mean(ratios) == pytest.approx(np.log(1.0 / (1.0 - 0.8**2)), abs=0.15)
    assert log_likelihood_ratios(colored, 0.1 * colored) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("is_silent_first", [True, False])
def test_silent_frames_are_finite(speechlike, is_silent_first):
    speech = speechlike()
    pair = (np.zeros_like(speech), speech)
    pair = pair if is_silent_first else pair[::-1]
    assert np.isfinite(log_likelihood_ratios(*pair)).all()
    assert np.isfinite(spectral_slope_distances(*pair)).all()


def test_spectral_slopes_do_not_hear_the_level_and_hear_a_tilt(speechlike):
    speech = speechlike() + 0.001 * np.random.default_rng(0).standard_normal(32000)
    np.testing.assert_allclose(spectral_slope_distances(speech, 0.1 * speech), 0.0, atol=1e-9)
    tilted = np.diff(speech, prepend=0.0)
    assert np.mean(spectral_slope_distances(speech, tilted)) > 1.0


def test_signals_below_a_frame_are_an_error():
    with pytest.raises(ValueError, match=r"at least 600 samples. Received 599"):
        segmental_snr_db(np.ones(599), np.ones(599))


def test_different_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"\(1000,\) and \(999,\)"):
        segmental_snr_db(np.ones(1000), np.ones(999))
