# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from lmkd_tf.cli.enhance import choose_backend
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import band_features
from lmkd_tf.dsp.mask import apply_band_mask
from lmkd_tf.dsp.stft import inverse_stft, stft
from lmkd_tf.evaluate.backends import keras_backend
from lmkd_tf.evaluate.streaming import MAX_FRAMES_PER_STEP, StreamingEnhancer
from lmkd_tf.models import build


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
def test_enhancer_result_is_the_same_bits_for_every_block_size(memory_backend, signal, size):
    signal = signal[:6000]
    enhancer = StreamingEnhancer(memory_backend)
    whole = enhancer.enhance(signal)
    np.testing.assert_array_equal(whole, _in_blocks(enhancer, signal, size))


@pytest.mark.parametrize("kind", ["keras", "tflite", "tflm", "firmware"])
def test_back_ends_give_the_same_bits_for_every_block_size(kind, signal, require_tool):
    is_float = kind == "keras"
    backend = keras_backend(build("nano")) if is_float else choose_backend("nano", None, kind)()
    enhancer = StreamingEnhancer(backend)
    signal = signal[:7000]
    whole = enhancer.enhance(signal)
    assert whole.std() > 1e-3
    for size in (1, 255, 256, 700):
        cut = 300 if size == 1 else len(signal)  # sample by sample is slow
        parts = [_in_blocks(enhancer, signal[:cut], size), enhancer.enhance(signal[:cut])]
        np.testing.assert_array_equal(*parts)
    np.testing.assert_array_equal(_in_blocks(enhancer, signal, 700), whole)


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


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.complex64])
def test_enhancer_rejects_samples_that_are_not_float(identity_backend, dtype):
    with pytest.raises(
        TypeError, match=r"Received dtype \w+\. .*lmkd_tf\.dsp\.pcm\.int16_to_float"
    ):
        StreamingEnhancer(identity_backend).feed(np.ones(9, dtype))


@pytest.mark.parametrize("limit_db", [0.0, 6.0, 20.0, 300.0])
def test_attenuation_limit_raises_gains_and_lowers_none(identity_backend, signal, limit_db):
    gains = np.repeat([[0.0, 0.6]], 16, axis=0).ravel()  # bands in turns
    identity_backend.gains = lambda features: np.tile(gains, (len(features), 1))
    limited = StreamingEnhancer(identity_backend, attenuation_limit_db=limit_db)
    enhanced = limited.enhance(signal)
    lowest = 10 ** (-limit_db / 20) if limit_db else 0.0
    raised = gains.clip(min=lowest)
    identity_backend.gains = lambda features: np.tile(raised, (len(features), 1))
    expected = StreamingEnhancer(identity_backend).enhance(signal)
    np.testing.assert_allclose(enhanced, expected, atol=1e-6)


def test_attenuation_limit_of_a_silenced_signal_is_its_level(identity_backend, signal):
    identity_backend.gains = np.zeros_like
    enhancer = StreamingEnhancer(identity_backend, attenuation_limit_db=6.0)
    half = 10 ** (-6.0 / 20)  # 0.501
    np.testing.assert_allclose(enhancer.enhance(signal), half * signal, atol=1e-6)


def test_settings_change_from_the_next_hop_on_and_survive_a_reset(identity_backend):
    identity_backend.gains = np.zeros_like
    ones = np.ones(256, np.float32)
    enhancer = StreamingEnhancer(identity_backend)
    assert not np.concatenate([enhancer.feed(ones), enhancer.feed(ones)]).any()
    enhancer.set_bypass(True)
    fade = enhancer.feed(ones)  # this frame fades in over the last one, which was silenced
    assert np.all(np.diff(fade) > 0)
    assert fade[0] < 1e-4
    np.testing.assert_allclose(enhancer.feed(ones), 1.0, atol=1e-6)
    enhancer.reset()
    np.testing.assert_allclose(enhancer.enhance(np.ones(2000, np.float32)), 1.0, atol=1e-6)
    enhancer.set_bypass(False)
    enhancer.set_attenuation_limit(20.0)
    np.testing.assert_allclose(enhancer.enhance(np.ones(2000, np.float32)), 0.1, atol=1e-6)


def test_network_goes_on_hearing_during_the_bypass(memory_backend, signal):
    always, sometimes = (StreamingEnhancer(type(memory_backend)()) for _ in range(2))
    sometimes.set_bypass(True)
    for enhancer in (always, sometimes):
        enhancer.feed(signal[:2560])
    sometimes.set_bypass(False)
    after = [enhancer.feed(signal[2560:5120]) for enhancer in (always, sometimes)]
    np.testing.assert_array_equal(after[0][256:], after[1][256:])  # the first hop is the cross-fade
    assert np.any(after[0][:256] != after[1][:256])


@pytest.mark.parametrize("limit_db", [-1.0, np.nan, np.inf])
def test_attenuation_limit_that_is_no_level_is_refused(identity_backend, limit_db):
    with pytest.raises(ValueError, match=r"must be finite and not negative\. Received .*0 for no"):
        StreamingEnhancer(identity_backend, attenuation_limit_db=limit_db)
