# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.evaluate.parity import compare_backends, snr_db


def test_snr_of_a_tenth_of_error_is_twenty_db():
    assert snr_db(np.ones(4), np.array([1.1, 0.9, 1.1, 0.9])) == pytest.approx(20.0)


def test_snr_of_identical_signals_is_infinite():
    assert snr_db(np.ones(4), np.ones(4)) == np.inf


def test_snr_of_a_silent_reference_is_minus_infinite():
    assert snr_db(np.zeros(4), np.ones(4)) == -np.inf


def test_snr_of_different_shapes_is_an_error():
    with pytest.raises(ValueError, match=r"\(4,\) and \(5,\)"):
        snr_db(np.ones(4), np.ones(5))


def test_backend_is_identical_to_its_copy(make_memory, signal):
    parity = compare_backends(make_memory(), make_memory(), signal)
    assert parity.is_identical
    assert parity.num_frames == 80
    assert parity.gains_snr_db == parity.audio_snr_db == np.inf


def test_difference_of_one_gain_is_measured(make_identity, signal):
    class Halved(make_identity):
        def gains(self, features):
            return np.full_like(features, 0.5)

    parity = compare_backends(make_identity(), Halved(), signal)
    assert not parity.is_identical
    assert parity.max_gain_difference == 0.5
    assert parity.gains_snr_db == pytest.approx(20 * np.log10(2))
    assert parity.audio_snr_db == pytest.approx(20 * np.log10(2), abs=1e-3)


def test_lost_state_is_seen(make_memory, signal):
    class Forgetful(make_memory):
        def gains(self, features):
            return np.concatenate([(self.reset(), super(Forgetful, self).gains(f[None]))[1]
                                   for f in features])  # fmt: skip

    assert compare_backends(make_memory(), Forgetful(), signal).gains_snr_db < 40


def test_backends_of_different_bands_are_an_error(make_memory, signal):
    other = make_memory()
    other.num_bands = 64
    with pytest.raises(ValueError, match=r"32 bands.*64 bands"):
        compare_backends(make_memory(), other, signal)
