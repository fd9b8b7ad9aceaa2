# SPDX-License-Identifier: Apache-2.0
"""One listener's stream: hops of int16 samples in, as many enhanced ones out."""

import json
from typing import Any

import numpy as np

from lmkd_tf.dsp.pcm import float_to_int16, int16_to_float
from lmkd_tf.evaluate.streaming import Backend, StreamingEnhancer

MAX_ATTENUATION_LIMIT_DB = 60.0


class Stream:
    """Enhances what one listener sends, hop by hop.

    Args:
        backend: Network to run; it is reset and then belongs to this object.
    """

    def __init__(self, backend: Backend):
        self.hop_length = backend.stft.hop_length
        self.sample_rate_hz = backend.stft.sample_rate_hz
        self._enhancer = StreamingEnhancer(backend)

    def process(self, message: bytes) -> bytes:
        """Enhances one hop.

        Args:
            message: int16 samples, little-endian, as many as a hop has.

        Returns:
            Enhanced samples in the same form: nothing for the first hop, then a hop each.

        Raises:
            ValueError: If the message is not one hop.
        """
        if len(message) != 2 * self.hop_length:
            raise ValueError(
                f"A message must hold one hop of {self.hop_length} samples of 16 bits. "
                f"Received {len(message)} bytes. Send {2 * self.hop_length} bytes."
            )
        samples = int16_to_float(np.frombuffer(message, "<i2").astype(np.int16))
        return _as_bytes(self._enhancer.feed(samples))

    def finish(self) -> bytes:
        """Ends the signal and returns the rest of it; the next one starts anew."""
        return _as_bytes(self._enhancer.flush())

    def change(self, text: str) -> dict[str, Any]:
        """Changes settings from the next hop on.

        Args:
            text: JSON object with `attenuation_limit_db` (0 is no limit), `is_bypassed` or
                both; `is_finished` ends the signal.

        Returns:
            The settings.

        Raises:
            ValueError: If it is not such an object.
        """
        settings = _parsed(text)
        if "attenuation_limit_db" in settings:
            self._enhancer.set_attenuation_limit(settings["attenuation_limit_db"])
        if "is_bypassed" in settings:
            self._enhancer.set_bypass(settings["is_bypassed"])
        return settings


def _parsed(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):  # also a number of more digits than Python reads
        settings = None
    checks = {
        "attenuation_limit_db": _is_limit,
        "is_bypassed": lambda value: isinstance(value, bool),
        "is_finished": lambda value: value is True,
    }
    if not isinstance(settings, dict) or not all(
        name in checks and checks[name](value) for name, value in settings.items()
    ):
        raise ValueError(
            "A text message must be a JSON object of attenuation_limit_db "
            f"(0 to {MAX_ATTENUATION_LIMIT_DB:g}), is_bypassed and is_finished. "
            f"Received {text[:80]!r}. Send for example "
            '{"attenuation_limit_db": 12}.'
        )
    return settings


def _is_limit(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0.0 <= value <= MAX_ATTENUATION_LIMIT_DB


def _as_bytes(samples: np.ndarray) -> bytes:
    return float_to_int16(samples).astype("<i2").tobytes()
