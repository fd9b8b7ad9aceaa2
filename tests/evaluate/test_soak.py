# SPDX-License-Identifier: Apache-2.0
"""Hours of difficult audio through the int8 step graph of every student that ships.

`./x soak` runs the hour; CI a minute of it.
"""

import numpy as np
import pytest

from lmkd_tf.evaluate.backends import open_backend
from lmkd_tf.evaluate.streaming import StreamingEnhancer
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
# Two seconds of silence outlast the memory of the students, so what follows starts afresh.
PROBE = np.concatenate([np.zeros(2 * SECOND), 0.3 * NOISE]).astype(np.float32)


@pytest.fixture(params=STUDENTS)
def enhancer(request):
    return StreamingEnhancer(open_backend("tflm", preset_files(request.param)["tflite"]))


def _after_silence(enhancer):
    """What comes out of the probe's noise."""
    return enhancer.feed(PROBE)[-SECOND + 512 :]


@pytest.mark.parametrize("seconds", [40, pytest.param(3600, marks=pytest.mark.slow)])
def test_hours_of_difficult_audio_leave_no_trace(enhancer, seconds):
    fresh = enhancer.enhance(PROBE)
    first = _after_silence(enhancer)
    assert first.std() > 1e-4
    loudest, kinds = 0.0, list(DIFFICULT.values())
    for second in range(seconds):
        enhanced = enhancer.feed(kinds[second % len(kinds)].astype(np.float32))
        assert np.isfinite(enhanced).all()
        loudest = max(loudest, float(np.abs(enhanced).max()))
    assert loudest <= 4.0  # overlap-add of a full-scale signal with any gains from 0 to 1
    # Nothing drifts: two seconds of silence forget the hour, to the bit.
    np.testing.assert_array_equal(_after_silence(enhancer), first)
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
