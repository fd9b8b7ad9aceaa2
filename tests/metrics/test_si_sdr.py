# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.metrics.si_sdr import SiSdr, negative_si_sdr_db, si_sdr_db


@pytest.fixture
def speech():
    return np.random.default_rng(0).standard_normal((3, 8000)).astype(np.float32)


@pytest.fixture
def noise():
    return np.random.default_rng(1).standard_normal((3, 8000)).astype(np.float32)


def test_si_sdr_of_orthogonal_noise_is_the_power_ratio():
    time = np.arange(1600) / 1600
    # A sine of amplitude 1 and an orthogonal one of amplitude 0.1: 20 dB.
    estimate = np.sin(2 * np.pi * 10 * time) + 0.1 * np.sin(2 * np.pi * 20 * time)
    assert si_sdr_db(np.sin(2 * np.pi * 10 * time), estimate) == pytest.approx(20.0)


def test_si_sdr_ignores_scale_and_mean(speech, noise):
    noisy = speech[0] + noise[0]
    expected = si_sdr_db(speech[0], noisy)
    assert si_sdr_db(speech[0], -0.3 * noisy + 5) == pytest.approx(expected, abs=1e-4)
    assert si_sdr_db(speech[0] + 2, noisy) == pytest.approx(expected, abs=1e-4)


def test_si_sdr_of_a_perfect_estimate_is_infinite():
    assert si_sdr_db(np.array([1.0, -1.0]), np.array([2.0, -2.0])) == np.inf


def test_si_sdr_of_a_silent_estimate_is_minus_infinite(speech):
    assert si_sdr_db(speech[0], np.zeros(8000)) == -np.inf


@pytest.mark.parametrize("reference", [np.zeros(100), np.full(100, 0.3), np.zeros(0)])
def test_si_sdr_of_a_silent_reference_is_an_error(reference):
    with pytest.raises(ValueError, match=r"undefined. Received \d+ equal samples"):
        si_sdr_db(reference, np.ones(len(reference)))


def test_si_sdr_of_different_lengths_is_an_error(speech):
    with pytest.raises(ValueError, match=r"\(8000,\) and \(7999,\)"):
        si_sdr_db(speech[0], speech[0, 1:])


def test_negative_si_sdr_equals_the_numpy_function_per_example(speech, noise):
    noisy = speech + np.array([[0.1], [1.0], [3.0]], np.float32) * noise
    expected = [-si_sdr_db(*pair) for pair in zip(speech, noisy, strict=True)]
    np.testing.assert_allclose(negative_si_sdr_db(speech, noisy), expected, atol=1e-3)


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_negative_si_sdr_of_silence_is_finite(noise, gain):
    for pair in ((0 * noise, gain * noise), (gain * noise, 0 * noise)):
        assert np.isfinite(np.asarray(negative_si_sdr_db(*pair))).all()


def test_si_sdr_metric_averages_over_batches(speech, noise):
    metric = SiSdr()
    for index in range(3):
        metric.update_state(speech[index : index + 1], speech[index : index + 1] + noise[0])
    expected = np.mean([si_sdr_db(s, s + noise[0]) for s in speech])
    assert np.asarray(metric.result()) == pytest.approx(expected, abs=1e-3)


def test_si_sdr_metric_survives_serialization():
    config = keras.metrics.serialize(SiSdr(name="val"))
    assert keras.metrics.deserialize(config).name == "val"
