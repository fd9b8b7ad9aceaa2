# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.evaluate.alignment import advance, common_delay_samples, delay_samples


@pytest.mark.parametrize("delay", [0, 1, 256, 4800, -37])
def test_delay_is_found_in_noise_at_another_level(signal, delay):
    late = 0.1 * advance(signal, -delay, len(signal))
    noise = 0.01 * np.random.default_rng(1).standard_normal(len(late))
    assert delay_samples(signal, late + noise) == delay


def test_delay_is_found_in_a_signal_of_another_length(signal):
    assert delay_samples(signal, np.concatenate([np.zeros(160), signal, np.zeros(99)])) == 160


def test_common_delay_is_that_of_most_files():
    assert common_delay_samples([320, 320, 321, -4000]) == 320


def test_files_that_are_not_delayed_alike_are_an_error():
    with pytest.raises(ValueError, match=r"from 0 to 900 samples, of which 0.*1 of 4.*FOLDER@320"):
        common_delay_samples([0, 300, 600, 900])


def test_advance_takes_the_delay_off_and_keeps_the_length(signal):
    late = np.concatenate([np.zeros(300), signal])
    np.testing.assert_array_equal(advance(late, 300, len(signal)), signal)
    early = signal[300:]
    np.testing.assert_array_equal(advance(early, -300, len(signal))[300:], signal[300:])
