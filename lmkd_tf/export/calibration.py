# SPDX-License-Identifier: Apache-2.0
"""Real frames from which post-training ranges are taken, and where they come from."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmkd_tf.config.schema import MIN_CALIBRATION_FRAMES
from lmkd_tf.dsp.features import FEATURE_CENTER_DB, FEATURE_FLOOR_DB, FEATURE_SCALE_DB

# Speech at -26 dBFS reaches 25 dB in its loudest band, at -40 dBFS 10 dB. A set that stays below
# this is so quiet that ordinary speech would saturate the ranges taken from it.
_LOUD_DB = 0.0


@dataclass(frozen=True)
class Calibration:
    """Consecutive frames of real noisy speech.

    Args:
        features: Features, float32, shape `(T, E)`.
        seed: Seed that drew them.
        files: Recordings they are made of.

    Raises:
        ValueError: If the frames are too few, not finite, silent or too quiet.
    """

    features: np.ndarray
    seed: int = 0
    files: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        shape = np.shape(self.features)
        if len(shape) != 2 or shape[0] < MIN_CALIBRATION_FRAMES:
            raise ValueError(
                f"Calibration needs at least {MIN_CALIBRATION_FRAMES} frames of shape (T, E). "
                f"Received shape {shape}. Pass features of consecutive frames of real recordings."
            )
        if not np.isfinite(self.features).all():
            frame = int(np.argmin(np.isfinite(self.features).all(axis=1)))
            raise ValueError(
                "Calibration frames must be finite. "
                f"Received NaN or infinity in frame {frame}. Leave that recording out."
            )
        loudest_db = float(np.max(self.features)) * FEATURE_SCALE_DB + FEATURE_CENTER_DB
        if loudest_db < _LOUD_DB:
            what = "silence" if loudest_db <= FEATURE_FLOOR_DB + 1.0 else "quiet frames"
            raise ValueError(
                "Calibration must reach the level of speech, or speech will saturate. "
                f"Received {what} with at most {loudest_db:.0f} dB in a band, below "
                f"{_LOUD_DB:.0f} dB. Use noisy speech at its usual level."
            )

    @property
    def record(self) -> dict[str, Any]:
        """What a manifest says about the calibration."""
        content = np.ascontiguousarray(self.features, np.float32).tobytes()
        return {
            "num_frames": len(self.features),
            "seed": self.seed,
            "files": list(self.files),
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    def check_bands(self, num_bands: int) -> None:
        """Refuses frames of another number of bands than the network's.

        Raises:
            ValueError: If they differ.
        """
        if self.features.shape[1] != num_bands:
            raise ValueError(
                "Calibration frames must have the bands of the network. "
                f"Received {self.features.shape[1]}, the network has {num_bands}. "
                "Compute them with the `analyze` of the same student."
            )
