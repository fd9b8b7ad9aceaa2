# SPDX-License-Identifier: Apache-2.0
import csv

import numpy as np
import pytest

from lmkd_tf.dsp.level import SILENCE_DBFS, active_level_dbfs, p56_level_dbfs


def reference_level(samples, rate_hz):
    """Active level as the Recommendation words it: sample by sample, counters and hangover."""
    g = np.exp(-1.0 / (rate_hz * 0.03))
    hangover = int(np.ceil(0.2 * rate_hz))
    thresholds = [2.0**-power for power in range(15, 0, -1)]
    activity, held = [0] * 15, [hangover] * 15
    p = q = energy = 0.0
    for sample in samples.astype(np.float64):
        energy += sample * sample
        p = g * p + (1.0 - g) * abs(sample)
        q = g * q + (1.0 - g) * p
        for j, threshold in enumerate(thresholds):
            if q >= threshold:
                activity[j] += 1
                held[j] = 0
            elif held[j] < hangover:
                activity[j] += 1
                held[j] += 1
    last = (0.0, 0.0)
    for j, threshold in enumerate(thresholds):
        if activity[j] == 0:
            break
        level = 10 * np.log10(energy / activity[j])
        margin = level - 20 * np.log10(threshold)
        if margin <= 15.9:
            share = (last[1] - 15.9) / (last[1] - margin)
            return last[0] + share * (level - last[0])
        last = (level, margin)
    return last[0]


@pytest.fixture
def bursts():
    """Four seconds of noise in bursts of half a second, with 2 s of silence in all."""
    rng = np.random.default_rng(3)
    samples = 0.1 * rng.standard_normal(64000)
    for start in range(0, 64000, 16000):
        samples[start + 8000 : start + 16000] = 0.0
    return samples


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.013])
def test_level_is_that_of_the_recommendation_read_word_by_word(bursts, gain):
    expected = reference_level(bursts * gain, 16000)
    assert p56_level_dbfs(bursts * gain, 16000) == pytest.approx(expected, abs=1e-6)


def test_level_of_real_speech_is_that_of_the_recommendation(shared_data):
    soundfile = pytest.importorskip("soundfile")
    paths = sorted((shared_data / "speech" / "valid").rglob("*.flac"))[:3]
    for path in paths:
        samples, rate_hz = soundfile.read(path, dtype="float32")
        expected = reference_level(samples, rate_hz)
        assert p56_level_dbfs(samples, rate_hz) == pytest.approx(expected, abs=1e-4)


def test_level_of_a_steady_tone_is_its_rms():
    tone = 0.5 * np.sin(np.arange(160000) * 0.3)
    # The envelope needs about 0.1 s of the 10 s to rise: 0.05 dB at most.
    assert p56_level_dbfs(tone, 16000) == pytest.approx(-9.03, abs=0.05)


def test_pauses_do_not_lower_the_level(bursts):
    rms_dbfs = 10 * np.log10(np.mean(bursts**2))
    # Half is silence, of which 0.2 s of each 0.5 s are held as speech: 10 log10(2 / 1.4).
    assert p56_level_dbfs(bursts, 16000) - rms_dbfs == pytest.approx(1.5, abs=0.4)


def test_level_follows_the_gain(bursts):
    levels = [p56_level_dbfs(bursts * gain, 16000) for gain in (1.0, 0.1)]
    assert levels[0] - levels[1] == pytest.approx(20.0, abs=0.05)


def test_silence_has_no_active_level():
    assert p56_level_dbfs(np.zeros(16000), 16000) == SILENCE_DBFS
    assert p56_level_dbfs(np.zeros(0), 16000) == SILENCE_DBFS


def test_frames_measure_half_a_decibel_more_than_the_recommendation(shared_data):
    soundfile = pytest.importorskip("soundfile")
    paths = sorted((shared_data / "speech" / "test").rglob("*.flac"))[::4]
    differences_db = []
    for path in paths:
        samples, rate_hz = soundfile.read(path, dtype="float32")
        frames_dbfs = active_level_dbfs(samples, rate_hz)
        differences_db.append(frames_dbfs - p56_level_dbfs(samples, rate_hz))
    # Over all 146 files the frames read 0.5 dB more.
    assert np.mean(differences_db) == pytest.approx(0.5, abs=0.3)
    assert np.std(differences_db) < 0.6


def test_snrs_of_real_pairs_are_those_that_they_were_mixed_at(shared_data):
    soundfile = pytest.importorskip("soundfile")
    folder = shared_data / "benchmark" / "vbdemand96"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    errors_db = []
    for row in rows:
        noisy, rate_hz = soundfile.read(folder / row["noisy"], dtype="float32")
        clean, _ = soundfile.read(folder / row["clean"], dtype="float32")
        noise_dbfs = 10 * np.log10(np.mean((noisy - clean).astype(np.float64) ** 2))
        snr_db = p56_level_dbfs(clean, rate_hz) - noise_dbfs
        errors_db.append(snr_db - float(row["nearest_nominal_snr_db"]))
    # VoiceBank+DEMAND was mixed by P.56 at 48 kHz; these are the files at 16 kHz.
    assert np.mean(errors_db) == pytest.approx(0.0, abs=0.15)
    assert np.std(errors_db) < 0.25
