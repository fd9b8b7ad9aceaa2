# SPDX-License-Identifier: Apache-2.0
"""What makes a pair: which two noisy signals are mixed, and towards which target.

A data set delivers two noisy views of one clean utterance with one common gain
(`lmkd_tf.data.pairing`). The pairings below make other pairs of them, inside the
batch: example i meets example i + 1, and the batches are drawn at random.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.latent_mixup import mix_latents
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.stft import inverse_stft, stft

# Range of the change of SNR in the pairing "other_snr", in dB.
OTHER_SNR_DB = (-10.0, 10.0)
# Bands that get a λ of their own where λ is drawn per band.
NUM_LAMBDA_BANDS = 8
_EPSILON = 1e-8


class Pair(NamedTuple):
    """Two signals to mix and what each of them should become.

    Args:
        first: Noisy speech x_a, `(B, ...)`.
        second: Noisy speech x_b, same shape.
        first_speech: Clean target of the first.
        second_speech: Clean target of the second; the same tensor where they share it.
    """

    first: Any
    second: Any
    first_speech: Any
    second_speech: Any

    @property
    def is_same_clean(self) -> bool:
        """Whether both signals have one target."""
        return self.first_speech is self.second_speech

    def mixed_speech(self, mixup_lambda):
        """Target of a mixed latent: s itself where it is shared, else mixed likewise."""
        if self.is_same_clean:
            return self.first_speech
        return mix_latents(self.first_speech, self.second_speech, mixup_lambda)


def same_clean(first, second, speech, seed) -> Pair:
    """The views as they come: same clean speech, another noise at another SNR (default).

    Args:
        first: Noisy speech of the first view, `(B, ...)`.
        second: Noisy speech of the second view, same shape.
        speech: Clean speech of both, same shape.
        seed: `keras.random.SeedGenerator`.
    """
    del seed
    return Pair(first, second, speech, speech)


def other_snr(first, second, speech, seed) -> Pair:
    """x_b = s + g (x_a - s): same speech and noise, the SNR changed by up to 10 dB.

    Args:
        first: Noisy speech of the first view, `(B, ...)`.
        second: Noisy speech of the second view, same shape.
        speech: Clean speech of both, same shape.
        seed: `keras.random.SeedGenerator`.
    """
    del second
    count = ops.shape(first)[:1]
    low, high = OTHER_SNR_DB
    change_db = low + (high - low) * keras.random.uniform(count, seed=seed)
    gain = ops.power(10.0, -change_db / 20.0)
    gain = ops.reshape(gain, (-1, *(1,) * (len(first.shape) - 1)))
    return Pair(first, speech + ops.cast(gain, first.dtype) * (first - speech), speech, speech)


def residual_permutation(first, second, speech, seed) -> Pair:
    """x_b = s_i + n_{i+1}: residuals permuted in the batch, for data with one noisy version.

    Source: the way Demucs' denoiser remixes a batch (method of its `Remix`
    augmentation, github.com/facebookresearch/denoiser).

    Args:
        first: Noisy speech of the first view, `(B, ...)`.
        second: Noisy speech of the second view, same shape.
        speech: Clean speech of both, same shape.
        seed: `keras.random.SeedGenerator`.
    """
    del second, seed
    return Pair(first, speech + ops.roll(first - speech, -1, axis=0), speech, speech)


def other_clean(first, second, speech, seed) -> Pair:
    """x_b from another utterance, targets mixed too: manifold mixup (Verma et al., 2019).

    Args:
        first: Noisy speech of the first view, `(B, ...)`.
        second: Noisy speech of the second view, same shape.
        speech: Clean speech of both, same shape.
        seed: `keras.random.SeedGenerator`.
    """
    del seed
    return Pair(first, ops.roll(second, -1, axis=0), speech, ops.roll(speech, -1, axis=0))


PAIRINGS: dict[str, Callable[..., Pair]] = {
    "same_clean": same_clean,
    "other_snr": other_snr,
    "residual_permutation": residual_permutation,
    "other_clean": other_clean,
}


def snr_difference_db(pair: Pair):
    """Returns SNR of the first signal minus that of the second, in dB, `(B,)`."""
    return _snr_db(pair.first, pair.first_speech) - _snr_db(pair.second, pair.second_speech)


def blend_per_band(first, second, band_lambda, frame: StftConfig):
    """Mixes two signals with a λ of its own for every band.

    Args:
        first: Noisy speech x_a, `(B, N)`.
        second: Noisy speech x_b, `(B, N)`.
        band_lambda: λ per ERB band, `(B, E)`, interpolated over the bins.
        frame: Frame of the transform.

    Returns:
        `inverse STFT of (λ(f) X_a + (1 - λ(f)) X_b)`, `(B, N)`.
    """
    matrix = np.asarray(erb_matrix(frame, band_lambda.shape[-1]))  # (F, E)
    weight = ops.matmul(band_lambda, matrix.T)[:, None, :, None]  # (B, 1, F, 1)
    mixed = weight * stft(first, frame) + (1.0 - weight) * stft(second, frame)
    return inverse_stft(mixed, frame, first.shape[1] or ops.shape(first)[1])


def _snr_db(noisy, speech):
    axes = tuple(range(1, len(noisy.shape)))
    powers = [ops.mean(ops.square(x), axis=axes) + _EPSILON for x in (speech, noisy - speech)]
    return (10.0 / np.log(10.0)) * (ops.log(powers[0]) - ops.log(powers[1]))
