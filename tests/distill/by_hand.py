# SPDX-License-Identifier: Apache-2.0
"""Tiny networks, pairs of views, and what the tests compute of them in numpy."""

import keras
import numpy as np

WIDTH = 6
LAMBDAS = np.array([0.0, 0.25, 0.5, 0.9], np.float32)


def network(channels, has_norm=False, dropout=0.0, has_skip=False):
    """Input (6) -> early -> latent -> late -> output (6)."""
    layers = keras.layers
    inputs = keras.Input((WIDTH,))
    x = layers.Dense(channels, activation="tanh", name="early")(inputs)
    if has_norm:
        x = layers.BatchNormalization(momentum=0.9, name="norm_before")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(channels, activation="tanh", name="latent")(x)
    x = layers.Dense(5, activation="tanh", name="late")(x)
    if has_norm:
        x = layers.BatchNormalization(momentum=0.9, name="norm_after")(x)
    x = layers.Dense(WIDTH, name="output")(x)
    return keras.Model(inputs, layers.Add()([x, inputs]) if has_skip else x)


def pairs(count=4, seed=0):
    """Two views and their clean target, white noise all three."""
    rng = np.random.default_rng(seed)
    first, second, speech = rng.normal(size=(3, count, WIDTH)).astype(np.float32)
    return {"first_view": first, "second_view": second}, speech


def dense(model, name, x):
    """A dense layer before its activation, in double precision."""
    kernel, bias = (np.float64(value) for value in model.get_layer(name).get_weights())
    return x @ kernel + bias


def mean_square(x):
    """Mean of the squares of all elements."""
    return np.mean(np.square(x))


def early(model, x):
    """Output of the first layer."""
    return np.tanh(dense(model, "early", x))


def head(model, x):
    """From the input to the latent."""
    return np.tanh(dense(model, "latent", early(model, x)))


def tail(model, latent):
    """From the latent to the output."""
    return dense(model, "output", np.tanh(dense(model, "late", latent)))


def mix(first, second, lambdas=LAMBDAS):
    """λ first + (1 - λ) second, one λ per example."""
    weight = np.float64(lambdas).reshape(-1, *(1,) * (np.ndim(first) - 1))
    return weight * first + (1 - weight) * second


def spectrum(samples, frame):
    """Complex STFT `(B, T, F)`, frame by frame."""
    hop, length = frame.hop_length, frame.window_length
    num_frames = -(-samples.shape[1] // hop) + 1
    padded = np.zeros((len(samples), (num_frames + 1) * hop))
    padded[:, hop : hop + samples.shape[1]] = samples
    frames = [padded[:, t * hop : t * hop + length] for t in range(num_frames)]
    return np.fft.rfft(np.stack(frames, axis=1) * _window(length), frame.fft_length)


def signal(spectra, frame, num_samples):
    """Inverse of `spectrum` by overlap-add."""
    hop, length = frame.hop_length, frame.window_length
    frames = np.fft.irfft(spectra, frame.fft_length)[..., :length] * _window(length)
    samples = np.zeros((len(spectra), (spectra.shape[1] + 1) * hop))
    for t in range(spectra.shape[1]):
        samples[:, t * hop : t * hop + length] += frames[:, t]
    return samples[:, hop : hop + num_samples]


def _window(length):
    return np.sin(np.pi * np.arange(length) / length)
