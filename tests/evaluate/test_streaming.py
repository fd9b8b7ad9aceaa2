# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import band_features
from lmkd_tf.dsp.mask import apply_band_mask
from lmkd_tf.dsp.stft import inverse_stft, stft
from lmkd_tf.evaluate.streaming import MAX_FRAMES_PER_STEP, StreamingEnhancer

# Transforms of one frame and of many differ in the order of float32 sums only.
BLOCK_SIZE_FLOOR_DB = 120.0


def _snr_db(reference, other):
    error = np.asarray(reference, np.float64) - other
    power = np.sum(np.square(reference, dtype=np.float64))
    return 10 * np.log10(power / (np.sum(error**2) + 1e-30))


def _in_blocks(enhancer, samples, size):
    blocks = [enhancer.feed(samples[i : i + size]) for i in range(0, len(samples), size)]
    return np.concatenate([*blocks, enhancer.flush()])


def test_enhancer_with_gains_of_one_returns_the_input(identity_backend, signal):
    assert _snr_db(signal, StreamingEnhancer(identity_backend).enhance(signal)) > 100


@pytest.mark.parametrize("length", [0, 1, 160, 255, 256, 257, 512, 1000])
def test_enhancer_returns_as_many_samples_as_it_was_fed(identity_backend, signal, length):
    enhanced = StreamingEnhancer(identity_backend).enhance(signal[:length])
    np.testing.assert_allclose(enhanced, signal[:length], atol=1e-6)


@pytest.mark.parametrize("size", [1, 37, 256, 1000])
def test_enhancer_result_does_not_depend_on_the_block_size(memory_backend, signal, size):
    signal = signal[:6000]
    enhancer = StreamingEnhancer(memory_backend)
    whole = enhancer.enhance(signal)
    assert _snr_db(whole, _in_blocks(enhancer, signal, size)) > BLOCK_SIZE_FLOOR_DB


def test_enhancer_equals_the_whole_utterance_path(memory_backend, signal):
    config, matrix = memory_backend.stft, erb_matrix(memory_backend.stft, memory_backend.num_bands)
    spectrum = stft(signal[None], config)
    memory_backend.reset()
    gains = memory_backend.gains(np.asarray(band_features(spectrum, matrix))[0])
    masked = apply_band_mask(spectrum, gains[None], matrix)
    expected = ops.convert_to_numpy(inverse_stft(masked, config, len(signal)))[0]
    assert _snr_db(expected, StreamingEnhancer(memory_backend).enhance(signal)) > 120


def test_enhancer_carries_state_from_block_to_block(memory_backend, signal):
    enhancer = StreamingEnhancer(memory_backend)
    num_resets = memory_backend.num_resets
    enhancer.feed(signal[:5000])
    enhancer.feed(signal[5000:])
    assert memory_backend.num_resets == num_resets


def test_enhancer_starts_afresh_after_flush(memory_backend, signal):
    enhancer = StreamingEnhancer(memory_backend)
    first = _in_blocks(enhancer, signal, 1000)
    np.testing.assert_array_equal(first, _in_blocks(enhancer, signal, 1000))


def test_enhancer_with_a_new_signal_before_flush_forgets_the_old_one(memory_backend, signal):
    enhancer = StreamingEnhancer(memory_backend)
    expected = enhancer.enhance(signal[:3000])
    enhancer.feed(signal[3000:9000])
    np.testing.assert_array_equal(enhancer.enhance(signal[:3000]), expected)


def test_enhancer_delay_is_window_minus_hop(identity_backend, signal):
    enhancer = StreamingEnhancer(identity_backend)
    assert enhancer.delay_samples == 256
    assert len(enhancer.feed(signal[: 10 * 256])) == 9 * 256


def test_enhancer_splits_long_blocks_so_that_memory_stays_constant(identity_backend):
    shapes = []
    identity_backend.gains = lambda x: shapes.append(x.shape) or np.ones_like(x)
    StreamingEnhancer(identity_backend).feed(np.zeros(256 * 600, np.float32))
    assert max(length for length, _ in shapes) == MAX_FRAMES_PER_STEP


def test_enhancer_keeps_silence_silent(memory_backend):
    assert not StreamingEnhancer(memory_backend).enhance(np.zeros(3000, np.float32)).any()


def test_enhancer_rejects_two_channels(identity_backend):
    with pytest.raises(ValueError, match=r"one channel of shape \(N,\).*\(5, 2\).*per channel"):
        StreamingEnhancer(identity_backend).feed(np.zeros((5, 2), np.float32))


def test_enhancer_rejects_nan_and_names_its_index(identity_backend):
    samples = np.zeros(9, np.float32)
    samples[4] = np.nan
    with pytest.raises(ValueError, match=r"must be finite. Received nan at index 4"):
        StreamingEnhancer(identity_backend).feed(samples)
