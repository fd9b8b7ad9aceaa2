# SPDX-License-Identifier: Apache-2.0
import io

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.effects import CODECS, change_speed, compand, encode_and_decode

RATE_HZ = 16000


def _chord(num_samples, level=0.3):
    """Tones that start anew every quarter of a second, so that a delay shows."""
    time_s = np.arange(num_samples) / RATE_HZ
    tones = sum(np.sin(2 * np.pi * f * time_s) for f in (220.0, 700.0, 1900.0)) / 3
    return (level * tones * (1.0 - time_s * 4 % 1)).astype(np.float32)


def _snr_db(reference, estimate):
    error = reference.astype(np.float64) - estimate
    return 10 * np.log10(np.sum(reference.astype(np.float64) ** 2) / np.sum(error**2))


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_speed_changes_pitch_and_length_alike(speed):
    tone = np.sin(2 * np.pi * 440.0 * np.arange(round(16000 * speed)) / RATE_HZ)
    changed = change_speed(tone.astype(np.float32), speed, 16000)
    wanted = np.sin(2 * np.pi * 440.0 * speed * np.arange(16000) / RATE_HZ)
    assert changed.dtype == np.float32
    assert changed[200:-200] == pytest.approx(wanted[200:-200], abs=2e-3)


def test_what_a_change_of_speed_leaves_open_is_zero():
    changed = change_speed(np.ones(1000, np.float32), 2.0, 800)
    assert changed.shape == (800,)
    assert not changed[520:].any()
    assert changed[100:400] == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("level", [0.03, 0.3])
def test_companding_is_as_good_as_the_telephone_codec_of_libsndfile(level):
    samples = _chord(16000, level)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format="WAV", subtype="ULAW")
    file.seek(0)
    theirs, _ = soundfile.read(file, dtype="float32")
    assert _snr_db(samples, compand(samples)) == pytest.approx(_snr_db(samples, theirs), abs=2.5)


def test_companding_has_256_values_and_keeps_zero_and_full_scale():
    values = np.unique(compand(np.linspace(-1.0, 1.0, 100001, dtype=np.float32)))
    assert len(values) == 255  # both zeros are one
    assert {-1.0, 0.0, 1.0} <= set(values.tolist())
    assert compand(np.array([2.0], np.float32)) == pytest.approx(1.0)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("num_samples", [16000, 8191])
def test_codecs_damage_the_signal_and_neither_shift_nor_cut_it(codec, num_samples):
    samples = _chord(num_samples)
    decoded = encode_and_decode(samples, codec, RATE_HZ)
    assert decoded.shape == samples.shape
    assert decoded.dtype == np.float32
    assert 3.0 < _snr_db(samples, decoded) < 45.0
    lags = [np.dot(np.roll(samples, lag), decoded) for lag in range(-20, 21)]
    assert abs(int(np.argmax(lags)) - 20) <= 1


def test_a_codec_does_not_pass_full_scale():
    square = 0.999 * np.sign(_chord(16000))
    assert np.abs(encode_and_decode(square.astype(np.float32), "vorbis", RATE_HZ)).max() <= 1.0
