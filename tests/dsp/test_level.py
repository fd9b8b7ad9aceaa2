# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.dsp.level import (
    SILENCE_DBFS,
    active_level_dbfs,
    db_to_gain,
    gain_to_dbfs,
    rms_dbfs,
    speech_level_dbfs,
)


def sine(amplitude, num_samples=16000, frequency_hz=1000.0):
    time = np.arange(num_samples) / 16000.0
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def test_full_scale_sine_has_minus_three_dbfs():
    # mean of sin^2 is 1/2; 10 log10(1/2) = -3.0103
    assert rms_dbfs(sine(1.0)) == pytest.approx(-3.0103, abs=1e-3)


@pytest.mark.parametrize(
    "samples", [np.zeros(100, dtype=np.float32), np.zeros(0, dtype=np.float32)]
)
def test_silence_and_nothing_have_the_silence_level(samples):
    assert rms_dbfs(samples) == SILENCE_DBFS
    assert active_level_dbfs(samples) == SILENCE_DBFS


def test_active_level_leaves_out_pauses():
    # One second of tone at -13.01 dBFS, three of silence: RMS falls by 10 log10(4) = 6.02 dB.
    samples = np.concatenate([sine(10 ** (-10 / 20)), np.zeros(48000, dtype=np.float32)])
    assert active_level_dbfs(samples) == pytest.approx(-13.01, abs=0.01)
    assert rms_dbfs(samples) == pytest.approx(-19.03, abs=0.01)


@pytest.mark.parametrize(("drop_db", "is_counted"), [(29.0, True), (31.0, False)])
def test_active_level_counts_frames_within_thirty_db_of_the_loudest(drop_db, is_counted):
    loud = sine(0.5)
    samples = np.concatenate([loud, (loud * 10 ** (-drop_db / 20)).astype(np.float32)])
    # Counting the faint half as well halves the mean power: 3 dB less.
    expected = rms_dbfs(loud) - (10 * np.log10(2 / (1 + 10 ** (-drop_db / 10))) * is_counted)
    assert active_level_dbfs(samples) == pytest.approx(expected, abs=0.01)


def test_gain_to_dbfs_brings_a_signal_to_the_level():
    samples = sine(0.3)
    assert rms_dbfs(samples * gain_to_dbfs(samples, -33.0)) == pytest.approx(-33.0, abs=1e-3)


def test_gain_of_silence_is_one():
    assert gain_to_dbfs(np.zeros(10), -20.0) == 1.0


def test_twenty_db_are_a_factor_of_ten():
    assert db_to_gain(20.0) == pytest.approx(10.0)


def test_unknown_method_of_the_speech_level_is_refused():
    with pytest.raises(ValueError, match=r"must be one of frames, p56\. Received 'P56'"):
        speech_level_dbfs(sine(0.1), 16000, "P56")
