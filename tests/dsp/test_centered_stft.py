# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hamming

from lmkd_tf.dsp.centered_stft import centered_stft, inverse_centered_stft


@pytest.fixture
def samples():
    return np.random.default_rng(0).normal(size=(2, 1200)).astype(np.float32)


def test_transform_is_that_of_scipy_on_the_mirrored_signal(samples):
    found = np.asarray(centered_stft(samples, 400, 100))
    transform = ShortTimeFFT(hamming(400, sym=False), 100, 16000, phase_shift=None)
    mirrored = np.pad(samples, [(0, 0), (200, 200)], mode="reflect")
    expected = transform.stft(mirrored, p0=2, p1=15).swapaxes(1, 2)
    assert found.shape == (2, 13, 201, 2)
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected, atol=1e-3)


@pytest.mark.parametrize("frame", [(400, 100), (16, 4), (16, 8)])
def test_inverse_returns_the_signal(samples, frame):
    restored = np.asarray(inverse_centered_stft(centered_stft(samples, *frame), *frame))
    np.testing.assert_allclose(restored, samples, atol=1e-5)
