# SPDX-License-Identifier: Apache-2.0
"""Laws of the mixing coefficient λ besides the symmetric Beta of the formula."""

from collections.abc import Callable

import keras
from keras import ops

from lmkd_tf.distill.latent_mixup import sample_mixup_lambda

# Where the mean of the SNR-aware law has moved to 0.73: a difference between the views, in dB.
_SNR_SCALE_DB = 10.0


def beta(shape, mixup_alpha: float, seed, **_):
    """λ ~ Beta(α, α), the law of the formula.

    Args:
        shape: Shape of the result, the batch last.
        mixup_alpha: α.
        seed: `keras.random.SeedGenerator`.
        **_: Options of other laws.
    """
    return _reshaped(sample_mixup_lambda(_size(shape), mixup_alpha, seed), shape)


def folded(shape, mixup_alpha: float, seed, **_):
    """max(λ, 1 - λ) with λ ~ Beta(α, α): the first view always weighs more.

    Args:
        shape: Shape of the result, the batch last.
        mixup_alpha: α.
        seed: `keras.random.SeedGenerator`.
        **_: Options of other laws.
    """
    drawn = beta(shape, mixup_alpha, seed)
    return ops.maximum(drawn, 1.0 - drawn)


def uniform(shape, mixup_alpha: float, seed, *, lambda_range=(0.0, 1.0), **_):
    """λ ~ U(low, high); a range of no length makes it a constant.

    Args:
        shape: Shape of the result, the batch last.
        mixup_alpha: α, not used.
        seed: `keras.random.SeedGenerator`.
        lambda_range: (low, high) in [0, 1].
        **_: Options of other laws.
    """
    del mixup_alpha
    low, high = lambda_range
    return low + (high - low) * keras.random.uniform(shape, seed=seed)


def snr_aware(shape, mixup_alpha: float, seed, *, snr_difference_db, **_):
    """λ ~ Beta(2 α p, 2 α (1 - p)), p = sigmoid(SNR difference / 10 dB); our own candidate.

    Two views of equal SNR give Beta(α, α); a cleaner first view gets more weight.

    Args:
        shape: Shape of the result, the batch last.
        mixup_alpha: α.
        seed: `keras.random.SeedGenerator`.
        snr_difference_db: SNR of the first view minus that of the second, in dB, `(B,)`.
        **_: Options of other laws.
    """
    share = ops.clip(ops.sigmoid(snr_difference_db / _SNR_SCALE_DB), 0.05, 0.95)
    share = ops.broadcast_to(share, shape)
    first, second = 2.0 * mixup_alpha * share, 2.0 * mixup_alpha * (1.0 - share)
    return keras.random.beta(shape, first, second, seed=seed)


LAMBDA_LAWS: dict[str, Callable] = {
    "beta": beta,
    "folded": folded,
    "uniform": uniform,
    "snr_aware": snr_aware,
}


def keep_some_unmixed(mixup_lambda, mix_prob: float, seed):
    """Sets λ to 1 in a share 1 - `mix_prob` of the examples (partial mixup).

    Source: *Understanding the Role of Mixup in Knowledge Distillation*, arXiv
    2211.03946 (*read*: that mixing a part of the pairs is better than all).

    Args:
        mixup_lambda: λ, shape `(..., B)`.
        mix_prob: Probability that an example is mixed, in [0, 1].
        seed: `keras.random.SeedGenerator`.
    """
    if mix_prob >= 1.0:
        return mixup_lambda
    is_mixed = keras.random.uniform(ops.shape(mixup_lambda)[-1:], seed=seed) < mix_prob
    return ops.where(is_mixed, mixup_lambda, ops.ones_like(mixup_lambda))


def _size(shape):
    size = shape[0]
    for length in shape[1:]:
        size = size * length
    return size


def _reshaped(values, shape):
    return values if len(shape) == 1 else ops.reshape(values, shape)
