# SPDX-License-Identifier: Apache-2.0
"""Hours of difficult audio through the int8 step graph of every student that ships.

`./x soak` runs the hour; CI a minute of it.
"""

import numpy as np
import pytest

from lmkd_tf.evaluate.backends import open_backend
from lmkd_tf.evaluate.streaming import StreamingEnhancer
from lmkd_tf.metrics.si_sdr import si_sdr_db
from lmkd_tf.models.presets import preset_files, preset_names

SECOND = 63 * 256  # samples; whole hops, so that every second meets the same frames
STUDENTS = [name for name in preset_names() if "tflite" in preset_files(name)]
TIME = np.arange(SECOND)
NOISE = np.random.default_rng(0).uniform(-1, 1, SECOND)
# A second of each in turns.
DIFFICULT = {
    "silence": np.zeros(SECOND),
    "full_scale_square": np.where(TIME % 80 < 40, 1.0, -1.0),
    "constant": np.ones(SECOND),
    "nyquist": np.where(TIME % 2, 1.0, -1.0),
    "noise": NOISE,
    "negative_constant": -np.ones(SECOND),
    "below_one_step": 1e-5 * NOISE,
    "impulses": np.where(TIME % 4000, 0.0, 1.0),
}
PROBE = np.concatenate([np.zeros(2 * SECOND), 0.3 * NOISE]).astype(np.float32)
VOICE_TIME_S = np.arange(4 * SECOND) / 16000
SYLLABLES = np.clip(np.sin(2 * np.pi * 2.5 * VOICE_TIME_S), 0, None)
HARMONICS = [np.sin(2 * np.pi * 140 * k * VOICE_TIME_S) / k for k in range(1, 12)]
VOICE = 0.1 * np.sum(HARMONICS, axis=0) * SYLLABLES
HISS = 0.05 * np.random.default_rng(1).normal(size=4 * SECOND)


@pytest.fixture(params=STUDENTS)
def student(request):
    return request.param


@pytest.fixture
def enhancer(student):
    return StreamingEnhancer(open_backend("tflm", preset_files(student)["tflite"]))


def _voice_si_sdr_db(enhancer):
    """How clean a voice in hiss is after eight seconds of it, over four more."""
    *_, cleaned = (enhancer.feed((VOICE + HISS).astype(np.float32)) for _ in range(3))
    return si_sdr_db(VOICE[:-256], cleaned[256:])


@pytest.mark.parametrize("seconds", [40, pytest.param(3600, marks=pytest.mark.slow)])
def test_hours_of_difficult_audio_leave_no_trace(enhancer, seconds):
    fresh = enhancer.enhance(PROBE)
    assert fresh[-SECOND + 512 :].std() > 1e-4
    cleaned_db = _voice_si_sdr_db(enhancer)
    loudest, kinds = 0.0, list(DIFFICULT.values())
    for second in range(seconds):
        enhanced = enhancer.feed(kinds[second % len(kinds)].astype(np.float32))
        assert np.isfinite(enhanced).all()
        loudest = max(loudest, float(np.abs(enhanced).max()))
    assert loudest <= 4.0  # overlap-add of a full-scale signal with any gains from 0 to 1
    # Nothing drifts: a recurrence holds on to what it heard, until it hears speech.
    assert _voice_si_sdr_db(enhancer) > cleaned_db - 0.5
    enhancer.reset()
    np.testing.assert_array_equal(enhancer.enhance(PROBE), fresh)


@pytest.mark.parametrize("kind", DIFFICULT)
def test_output_after_a_reset_is_that_of_a_fresh_run(enhancer, kind):
    fresh = enhancer.enhance(PROBE[SECOND:])
    enhancer.feed(DIFFICULT[kind][: 3000 + 17].astype(np.float32))
    enhancer.reset()
    parts = [enhancer.feed(PROBE[SECOND:]), enhancer.flush()]
    np.testing.assert_array_equal(np.concatenate(parts), fresh)


def test_silence_stays_silent(enhancer):
    assert not enhancer.enhance(np.zeros(5 * SECOND, np.float32)).any()
