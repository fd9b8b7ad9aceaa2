# SPDX-License-Identifier: Apache-2.0
"""Enhances a signal that arrives piece by piece, with any back-end."""

from typing import Protocol

import numpy as np
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import band_features
from lmkd_tf.dsp.mask import apply_band_mask
from lmkd_tf.dsp.stft import analyze_frames, synthesize_frames

# Frames processed at once: enough to make the transforms fast (4 s of audio),
# few enough to keep memory constant however long a block is.
MAX_FRAMES_PER_STEP = 256


class Backend(Protocol):
    """What runs the network; state is carried from call to call until `reset`.

    A back-end with transforms of its own also has `process_hops`, from hops of samples
    `(T, hop)` to as many enhanced ones, each one hop late; it is used instead of `gains`.
    """

    stft: StftConfig
    num_bands: int
    name: str

    def reset(self) -> None:
        """Forgets the past."""
        ...

    def gains(self, features: np.ndarray) -> np.ndarray:
        """Maps band features `(T, E)` to gains `(T, E)` in [0, 1], both float32."""
        ...


class StreamingEnhancer:
    """Enhances blocks of any length; the result does not depend on the lengths.

    What `feed` and `flush` return, joined, is aligned with the input sample by
    sample and has its length. A sample comes out once the hop after its own has
    arrived, `delay_samples + hop_length` samples later at most.

    Args:
        backend: Network to run; it is reset and then belongs to this object.

    Example:
        >>> from lmkd_tf.config.schema import StftConfig
        >>> class Identity:
        ...     stft, num_bands, name = StftConfig(), 32, "identity"
        ...     def reset(self): pass
        ...     def gains(self, features): return np.ones_like(features)
        >>> enhancer = StreamingEnhancer(Identity())
        >>> block = np.zeros(1000, np.float32)
        >>> len(enhancer.feed(block)), len(enhancer.flush())
        (512, 488)
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.reset()

    @property
    def delay_samples(self) -> int:
        """Algorithmic delay of the overlap-add, in samples: window minus hop."""
        return self.backend.stft.window_length - self.backend.stft.hop_length

    def reset(self) -> None:
        """Forgets the signal so far, in the transforms and in the network."""
        hop = self.backend.stft.hop_length
        self.backend.reset()
        self._pending = np.zeros(0, np.float32)  # fed, but less than a hop
        self._last_hop = np.zeros(hop, np.float32)  # first half of the next frame
        self._overlap = np.zeros(hop, np.float32)  # second half of the last synthesized frame
        self._num_fed = 0
        self._num_returned = -self.delay_samples  # the first hop out lies before the signal

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next samples and returns the enhanced ones that are ready.

        Args:
            samples: In [-1, 1], shape `(N,)`, any N.

        Returns:
            float32 array of shape `(M,)`; M may be 0.

        Raises:
            ValueError: If `samples` is not one-dimensional or not finite.
        """
        samples = _checked(samples)
        self._num_fed += len(samples)
        return self._process(samples)

    def flush(self) -> np.ndarray:
        """Ends the signal, returns the rest of it and resets.

        Returns:
            float32 array of shape `(M,)`.
        """
        hop = self.backend.stft.hop_length
        num_missing = -len(self._pending) % hop + self.delay_samples
        rest = self._process(np.zeros(num_missing, np.float32))
        num_excess = max(0, self._num_returned - self._num_fed)
        self.reset()
        return rest[: len(rest) - num_excess]

    def enhance(self, samples: np.ndarray) -> np.ndarray:
        """Enhances a whole signal, with nothing before it.

        Args:
            samples: In [-1, 1], shape `(N,)`.

        Returns:
            float32 array of shape `(N,)`.

        Raises:
            ValueError: If `samples` is not one-dimensional or not finite.
        """
        self.reset()
        return np.concatenate([self.feed(samples), self.flush()])

    def _process(self, samples: np.ndarray) -> np.ndarray:
        hop = self.backend.stft.hop_length
        buffer = np.concatenate([self._pending, samples])
        num_whole = len(buffer) // hop * hop
        self._pending = buffer[num_whole:].copy()
        blocks = buffer[:num_whole].reshape(-1, hop)  # (T, hop)
        starts = range(0, len(blocks), MAX_FRAMES_PER_STEP)
        ready = [self._process_hops(blocks[i : i + MAX_FRAMES_PER_STEP]) for i in starts]
        enhanced = np.concatenate([np.zeros(0, np.float32), *ready])
        num_before_signal = min(max(0, -self._num_returned), len(enhanced))
        self._num_returned += len(enhanced)
        return enhanced[num_before_signal:]

    def _process_hops(self, blocks: np.ndarray) -> np.ndarray:
        process_hops = getattr(self.backend, "process_hops", None)
        if process_hops is not None:
            return process_hops(blocks).reshape(-1)
        hop, config = self.backend.stft.hop_length, self.backend.stft
        past = np.concatenate([self._last_hop[None], blocks[:-1]])
        self._last_hop = blocks[-1].copy()
        matrix = erb_matrix(config, self.backend.num_bands)
        spectrum = analyze_frames(np.concatenate([past, blocks], axis=1), config)[None]
        features = np.asarray(ops.convert_to_numpy(band_features(spectrum, matrix)))[0]  # (T, E)
        gains = self.backend.gains(features)
        enhanced = synthesize_frames(apply_band_mask(spectrum, gains[None], matrix), config)
        frames = np.asarray(ops.convert_to_numpy(enhanced))[0]  # (T, window)
        tails = np.concatenate([self._overlap[None], frames[:-1, hop:]])
        self._overlap = frames[-1, hop:].copy()
        return (tails + frames[:, :hop]).reshape(-1)


def _checked(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1:
        raise ValueError(
            "`samples` must be one channel of shape (N,). "
            f"Received shape {samples.shape}. Use one enhancer per channel."
        )
    if not np.isfinite(samples).all():
        position = int(np.argmin(np.isfinite(samples)))
        raise ValueError(
            "`samples` must be finite. "
            f"Received {samples[position]} at index {position}. Replace it by 0."
        )
    return samples
