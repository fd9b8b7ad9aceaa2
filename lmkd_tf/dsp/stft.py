# SPDX-License-Identifier: Apache-2.0
"""Causal short-time Fourier transform; the only place that knows window and hop.

Frame `t` holds the samples `[(t + 1) * hop - window, (t + 1) * hop)`, so nothing
after the newest hop is ever seen. A spectrum is real-valued with a last axis of
2 (real, imaginary), because complex tensors do not exist on the target.
"""

import functools

import numpy as np
from keras import ops

from lmkd_tf.config.schema import StftConfig


@functools.lru_cache(maxsize=8)
def window(config: StftConfig) -> np.ndarray:
    """Returns the periodic square-root Hann window.

    `w[n] = sqrt(0.5 - 0.5 * cos(2 * pi * n / window_length))`: its square sums
    to one over two half-overlapping frames, so analysis followed by synthesis
    is exact.

    Args:
        config: Frame of the transform.

    Returns:
        float32 array of shape `(window_length,)`.
    """
    phase = 2.0 * np.pi * np.arange(config.window_length) / config.window_length
    return np.sqrt(0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def analyze_frames(frames, config: StftConfig):
    """Windows and transforms frames.

    Args:
        frames: Samples in [-1, 1], shape `(..., window_length)`.
        config: Frame of the transform.

    Returns:
        Spectrum of shape `(..., F, 2)`.
    """
    real, imaginary = ops.rfft(frames * window(config), fft_length=config.fft_length)
    return ops.stack([real, imaginary], axis=-1)


def synthesize_frames(spectrum, config: StftConfig):
    """Transforms spectra back and windows them for overlap-add.

    Args:
        spectrum: Shape `(..., F, 2)`.
        config: Frame of the transform.

    Returns:
        Windowed samples of shape `(..., window_length)`.
    """
    frames = ops.irfft((spectrum[..., 0], spectrum[..., 1]), fft_length=config.fft_length)
    return frames[..., : config.window_length] * window(config)


def stft(samples, config: StftConfig):
    """Computes the causal STFT of whole signals.

    The front is padded with `window_length - hop_length` zeros and the end so
    that every sample lies in two frames.

    Args:
        samples: Samples in [-1, 1], shape `(B, N)`.
        config: Frame of the transform.

    Returns:
        Spectrum of shape `(B, T, F, 2)` with `T = ceil(N / hop_length) + 1`.
    """
    hop = config.hop_length
    num_samples = samples.shape[1] if samples.shape[1] is not None else ops.shape(samples)[1]
    num_hops = (num_samples + hop - 1) // hop
    padding = [[0, 0], [hop, (num_hops + 1) * hop - num_samples]]
    blocks = ops.reshape(ops.pad(samples, padding), (-1, num_hops + 2, hop))  # (B, T + 1, hop)
    return analyze_frames(ops.concatenate([blocks[:, :-1], blocks[:, 1:]], axis=-1), config)


def inverse_stft(spectrum, config: StftConfig, num_samples):
    """Reconstructs signals by overlap-add; the inverse of `stft`.

    Args:
        spectrum: Shape `(B, T, F, 2)`.
        config: Frame of the transform.
        num_samples: Length N of the signals, in samples.

    Returns:
        Samples of shape `(B, N)`.
    """
    hop = config.hop_length
    frames = synthesize_frames(spectrum, config)  # (B, T, window)
    blocks = frames[:, 1:, :hop] + frames[:, :-1, hop:]  # (B, T - 1, hop)
    return ops.reshape(blocks, (ops.shape(blocks)[0], -1))[:, :num_samples]
