# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.index import Clip
from lmkd_tf.data.rooms import align_response, load_rooms, reverberate, simulate_rooms


def test_aligned_response_begins_with_the_direct_sound_at_1():
    response = np.array([0.001, -0.002, 0.0, 0.5, 0.2, 0.0, -0.1])
    assert align_response(response) == pytest.approx([1.0, 0.4, 0.0, -0.2])


def test_negative_direct_sound_is_turned_up():
    assert align_response(np.array([0.0, -0.5, 0.25])) == pytest.approx([1.0, -0.5])


def test_silent_response_is_refused():
    with pytest.raises(ValueError, match=r"must not be silent. Received 9 samples"):
        align_response(np.zeros(9))


@pytest.mark.parametrize("early_ms", [0.0, 5.0, 50.0, 1e4])
def test_reverberation_is_a_convolution_and_the_target_its_early_part(early_ms):
    rng = np.random.default_rng(0)
    speech = rng.standard_normal(4000).astype(np.float32)
    response = (rng.standard_normal(3000) * np.exp(-np.arange(3000) / 800)).astype(np.float32)
    heard, target = reverberate(speech, response, early_ms, 16000)
    early = response.copy()
    early[1 + round(16 * early_ms) :] = 0.0
    assert heard == pytest.approx(np.convolve(speech.astype(float), response)[:4000], abs=1e-4)
    assert target == pytest.approx(np.convolve(speech.astype(float), early)[:4000], abs=1e-4)


def test_speech_shorter_than_the_early_part_stays_in_step():
    heard, target = reverberate(np.ones(10, np.float32), np.ones(2000, np.float32), 50.0, 16000)
    assert heard.shape == target.shape == (10,)
    assert np.array_equal(heard, target)


def test_first_channel_of_an_array_is_taken(tmp_path):
    channels = np.zeros((4000, 3))
    channels[[10, 500], 0] = [0.5, 0.25]
    channels[[40, 90], 1] = [0.9, 0.9]
    soundfile.write(tmp_path / "rir.wav", channels, 16000, subtype="FLOAT")
    pool = load_rooms([Clip(Path(tmp_path / "rir.wav"), 0.25, "train", "hall")])
    (response,) = pool.responses
    assert response[[0, 490]] == pytest.approx([1.0, 0.5], abs=1e-3)
    assert np.count_nonzero(np.abs(response) > 0.01) == 2


def decay_time_s(response):
    """RT60 by Schroeder's backward integral, from -5 dB to -25 dB, times three."""
    energy = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    level_db = 10 * np.log10(energy / energy[0])
    start, stop = (int(np.argmax(level_db < bound)) for bound in (-5, -25))
    return 3 * (stop - start) / 16000


def test_simulated_rooms_decay_about_as_fast_as_asked_for():
    pytest.importorskip("pyroomacoustics")
    for rt60_s in (0.3, 0.6):
        pool = simulate_rooms(6, seed=0, rt60_min_s=rt60_s, rt60_max_s=rt60_s)
        measured_s = np.mean([decay_time_s(response) for response in pool.responses])
        assert 0.6 * rt60_s < measured_s < 1.5 * rt60_s


def test_a_simulated_room_depends_on_seed_and_number_alone():
    pytest.importorskip("pyroomacoustics")
    many, few, other = (
        simulate_rooms(3, seed=1),
        simulate_rooms(2, seed=1),
        simulate_rooms(2, seed=2),
    )
    assert all(np.array_equal(*pair) for pair in zip(many.responses, few.responses, strict=False))
    assert many.responses[0].size != other.responses[0].size


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"in order. Received count=1, 0.8 s to 0.2 s"):
        simulate_rooms(1, seed=0, rt60_min_s=0.8, rt60_max_s=0.2)


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(ImportError, match=r"pip install 'lmkd-tf\[rooms\]'"):
        simulate_rooms(1, seed=0)
