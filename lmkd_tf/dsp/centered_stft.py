# SPDX-License-Identifier: Apache-2.0
"""Centered short-time Fourier transform with a Hamming window, for networks that see the future.

Frame `t` is centered at sample `t * hop`; the signal is mirrored at both ends. It is the transform
of CMGAN. Networks that stream use `stft.py`.
"""

import numpy as np
from keras import ops


def hamming_window(length: int) -> np.ndarray:
    """Returns the periodic Hamming window, `0.54 - 0.46 * cos(2 * pi * n / length)`, float32."""
    phase = 2.0 * np.pi * np.arange(length) / length
    return (0.54 - 0.46 * np.cos(phase)).astype(np.float32)


def centered_stft(samples, fft_length: int, hop_length: int):
    """Computes the centered STFT of whole signals.

    Args:
        samples: Shape `(B, N)`, N a multiple of `hop_length` and above `fft_length / 2`.
        fft_length: Length of window and transform, in samples; an even multiple of the hop.
        hop_length: Advance from frame to frame, in samples.

    Returns:
        Spectrum of shape `(B, T, F, 2)` with `T = N / hop_length + 1`.
    """
    half, overlap = fft_length // 2, fft_length // hop_length
    padded = ops.pad(samples, [[0, 0], [half, half]], mode="reflect")
    num_blocks = _size(padded, 1) // hop_length
    blocks = ops.reshape(padded, (-1, num_blocks, hop_length))
    num_frames = num_blocks - overlap + 1
    frames = ops.concatenate([blocks[:, k : k + num_frames] for k in range(overlap)], axis=-1)
    real, imaginary = ops.rfft(frames * hamming_window(fft_length), fft_length=fft_length)
    return ops.stack([real, imaginary], axis=-1)


def inverse_centered_stft(spectrum, fft_length: int, hop_length: int):
    """Reconstructs signals by least squares; the inverse of `centered_stft`.

    Args:
        spectrum: Shape `(B, T, F, 2)`.
        fft_length: Length of window and transform, in samples.
        hop_length: Advance from frame to frame, in samples.

    Returns:
        Samples of shape `(B, (T - 1) * hop_length)`.
    """
    window = hamming_window(fft_length)
    frames = ops.irfft((spectrum[..., 0], spectrum[..., 1]), fft_length=fft_length) * window
    energy = ops.ones_like(frames[:1, :, :1]) * np.square(window)
    half = fft_length // 2
    summed, weight = (_overlap_add(x, hop_length) for x in (frames, energy))
    return (summed / weight)[:, half : _size(summed, 1) - half]


def _overlap_add(frames, hop_length: int):
    """Adds frames `(B, T, fft_length)` at their places, `(B, (T - 1) * hop + fft_length)`."""
    overlap = frames.shape[-1] // hop_length
    parts = [
        ops.pad(
            frames[:, :, k * hop_length : (k + 1) * hop_length],
            [[0, 0], [k, overlap - 1 - k], [0, 0]],
        )
        for k in range(overlap)
    ]
    return ops.reshape(sum(parts[1:], parts[0]), (ops.shape(frames)[0], -1))


def _size(tensor, axis: int):
    return tensor.shape[axis] if tensor.shape[axis] is not None else ops.shape(tensor)[axis]
