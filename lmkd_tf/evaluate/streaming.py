# SPDX-License-Identifier: Apache-2.0
"""Enhances a signal that arrives piece by piece, with any back-end."""

from typing import Any, Protocol

import numpy as np

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.hops import HopTransforms

# Frames processed at once: enough to make the transforms fast (4 s of audio),
# few enough to keep memory constant however long a block is.
MAX_FRAMES_PER_STEP = 256
# Below the smallest step of a float sample; as in the firmware.
_LARGEST_LIMIT_DB = 200.0


class Backend(Protocol):
    """What runs the network; state is carried from call to call until `reset`.

    A back-end with transforms of its own also has `process_hops`, from hops of samples
    `(T, hop)` to as many enhanced ones, each one hop late; it is used instead of `gains`.
    It then obeys the attenuation limit and the bypass by `set_attenuation_limit(limit_db)`
    and `set_bypass(is_bypassed)`.
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
    """Enhances blocks of any length; the result is the same bits whatever the lengths.

    What `feed` and `flush` return, joined, is aligned with the input sample by
    sample and has its length. A sample comes out once the hop after its own has
    arrived, `delay_samples + hop_length` samples later at most.

    Args:
        backend: Network to run; it is reset and then belongs to this object.
        attenuation_limit_db: Most that any band is attenuated, in dB; 0 is no limit.
        is_bypassed: Whether the signal passes through, delayed as the enhanced one.

    Raises:
        ValueError: If the limit is negative or not finite.

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

    def __init__(
        self, backend: Backend, *, attenuation_limit_db: float = 0.0, is_bypassed: bool = False
    ) -> None:
        self.backend: Any = backend
        self._transforms = HopTransforms(backend.stft, backend.num_bands)
        self.set_attenuation_limit(attenuation_limit_db)
        self.set_bypass(is_bypassed)
        self.reset()

    @property
    def delay_samples(self) -> int:
        """Algorithmic delay of the overlap-add, in samples: window minus hop."""
        return self.backend.stft.window_length - self.backend.stft.hop_length

    def reset(self) -> None:
        """Forgets the signal so far, in the transforms and in the network; the settings stay."""
        hop = self.backend.stft.hop_length
        self.backend.reset()
        self._pending = np.zeros(0, np.float32)  # fed, but less than a hop
        self._last_hop = np.zeros(hop, np.float32)  # first half of the next frame
        self._overlap = np.zeros(hop)  # second half of the last synthesized frame
        self._num_fed = 0
        self._num_returned = -self.delay_samples  # the first hop out lies before the signal

    def set_attenuation_limit(self, attenuation_limit_db: float) -> None:
        """Changes the most that any band is attenuated, from the next hop on.

        Args:
            attenuation_limit_db: In dB, such as 12 or 20; 0 is no limit.

        Raises:
            ValueError: If it is negative or not finite.
        """
        check_attenuation_limit(attenuation_limit_db)
        decibels = min(attenuation_limit_db, _LARGEST_LIMIT_DB)
        self._lowest_gain = 10.0 ** (-decibels / 20.0) if decibels else 0.0
        if _has_own_transforms(self.backend):
            self.backend.set_attenuation_limit(attenuation_limit_db)

    def set_bypass(self, is_bypassed: bool) -> None:
        """Turns the bypass on or off from the next hop on, without a click.

        The network goes on hearing the signal, so that it is up to date when the bypass ends.
        """
        self._is_bypassed = is_bypassed
        if _has_own_transforms(self.backend):
            self.backend.set_bypass(is_bypassed)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next samples and returns the enhanced ones that are ready.

        Args:
            samples: In [-1, 1], shape `(N,)`, any N.

        Returns:
            float32 array of shape `(M,)`; M may be 0.

        Raises:
            TypeError: If `samples` are not float.
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
            TypeError: If `samples` are not float.
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
        if _has_own_transforms(self.backend):
            return self.backend.process_hops(blocks).reshape(-1)
        hop, transforms = self.backend.stft.hop_length, self._transforms
        past = np.concatenate([self._last_hop[None], blocks[:-1]])
        self._last_hop = blocks[-1].copy()
        spectrum = transforms.analyze(np.concatenate([past, blocks], axis=1))  # (T, F)
        gains = self.backend.gains(transforms.features(spectrum))
        if not self._is_bypassed:
            spectrum = transforms.apply(np.maximum(gains, self._lowest_gain), spectrum)
        frames = transforms.synthesize(spectrum)  # (T, window)
        tails = np.concatenate([self._overlap[None], frames[:-1, hop:]])
        self._overlap = frames[-1, hop:].copy()
        return (tails + frames[:, :hop]).astype(np.float32).reshape(-1)


def check_attenuation_limit(attenuation_limit_db: float) -> None:
    """Raises ValueError if a limit in dB is negative or not finite."""
    if not 0.0 <= attenuation_limit_db < np.inf:
        raise ValueError(
            "`attenuation_limit_db` must be finite and not negative. "
            f"Received {attenuation_limit_db}. Use for example 12, or 0 for no limit."
        )


def _has_own_transforms(backend: Any) -> bool:
    return hasattr(backend, "process_hops")


def _checked(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.floating):
        raise TypeError(
            "`samples` must be float in [-1, 1]. "
            f"Received dtype {samples.dtype}. "
            "Convert int16 samples with lmkd_tf.dsp.pcm.int16_to_float first."
        )
    samples = samples.astype(np.float32, copy=False)
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
