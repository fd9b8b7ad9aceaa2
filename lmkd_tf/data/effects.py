# SPDX-License-Identifier: Apache-2.0
"""What may happen to speech and to its noisy views on their way, beside noise; pure numpy.

Filters and limits are in `mixing`, rooms in `rooms`.
"""

import io

import numpy as np
import soundfile
import soxr

_MU = 255.0
_NUM_CODES = 256
# Of the compression that libsndfile offers, from 0 to 1, the part with audible artefacts.
_COMPRESSION = {"vorbis": 1.0, "opus": 0.97}
CODECS = ("ulaw", *_COMPRESSION)


def change_speed(samples: np.ndarray, speed: float, num_samples: int) -> np.ndarray:
    """Plays a signal faster or slower, pitch and all.

    Args:
        samples: Signal, float32, shape `(N,)`.
        speed: How much faster; below 1 slower.
        num_samples: Length of the result, about `N / speed`; zeros fill what is missing.

    Returns:
        Resampled signal, float32, shape `(num_samples,)`.
    """
    changed = soxr.resample(samples, speed, 1.0, quality="HQ")[:num_samples]
    return np.pad(changed, (0, num_samples - changed.size))


def compand(samples: np.ndarray) -> np.ndarray:
    """Rounds samples as 8-bit telephony does: mu-law with 256 steps (ITU-T G.711, unsegmented).

    Args:
        samples: Signal in [-1, 1], float32, shape `(N,)`.

    Returns:
        What the receiver hears, float32, shape `(N,)`.
    """
    code = np.log1p(_MU * np.minimum(np.abs(samples), 1.0)) / np.log1p(_MU)
    code = np.round(code * (_NUM_CODES // 2 - 1)) / (_NUM_CODES // 2 - 1)
    return (np.sign(samples) * np.expm1(code * np.log1p(_MU)) / _MU).astype(np.float32)


def encode_and_decode(samples: np.ndarray, codec: str, sample_rate_hz: int) -> np.ndarray:
    """Passes a signal through a codec and back, without delay.

    Args:
        samples: Signal in [-1, 1], float32, shape `(N,)`.
        codec: Name in `CODECS`; Vorbis and Opus are those of libsndfile, at a low rate.
        sample_rate_hz: Sample rate in Hz; Opus takes 8000, 12000, 16000, 24000 and 48000.

    Returns:
        What the receiver hears, float32, shape `(N,)`.
    """
    if codec == "ulaw":
        return compand(samples)
    file = io.BytesIO()
    settings = {"format": "OGG", "subtype": codec.upper()}
    soundfile.write(
        file, samples, sample_rate_hz, compression_level=_COMPRESSION[codec], **settings
    )
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0][: samples.size]
    return np.pad(np.clip(decoded, -1.0, 1.0), (0, samples.size - decoded.size))
