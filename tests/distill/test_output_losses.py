# SPDX-License-Identifier: Apache-2.0
import functools

import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.output_losses import (
    OUTPUT_LOSSES,
    dispatch,
    dispatch_multi_scale,
    frequency_adaptive,
    output_mask,
    output_spectrum,
    output_waveform,
)

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)
NUM_BINS = 33
EPSILON = 1e-8


def signals(seed=0, batch_size=3, num_samples=500):
    """Student, teacher, noisy and speech; the teacher is nearer to the speech.

    The speech is a rising tone in a noise, so that the bands meet elsewhere in each frame.
    """
    rng = np.random.default_rng(seed)
    cycles = np.cumsum(np.linspace(rng.uniform(0.05, 0.1, batch_size), 0.3, num_samples).T, axis=1)
    noises = rng.normal(size=(3, batch_size, num_samples))
    speech = 0.1 * np.sin(2 * np.pi * cycles) + 0.02 * noises[0]
    student, teacher = speech + 0.03 * noises[1], speech + 0.01 * noises[2]
    noisy = speech + 0.05 * (noises[1] + noises[2])
    return [signal.astype(np.float32) for signal in (student, teacher, noisy, speech)]


def spectrum_of(signal):
    """Complex double-precision spectrum of one signal, (T, F), with frames cut by hand."""
    signal = signal.astype(np.float64)
    hann = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64))
    num_hops = -(-len(signal) // 32)
    padded = np.zeros((num_hops + 2) * 32)
    padded[32 : 32 + len(signal)] = signal
    frames = [padded[t * 32 : t * 32 + 64] * hann for t in range(num_hops + 1)]
    return np.fft.rfft(frames)


def per_example(function, *batches):
    return [function(*(spectrum_of(s) for s in signals)) for signals in zip(*batches, strict=True)]


def patches_of(values, size):
    """Slices of the bins of one frame, the last one short."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def squared_error(first, second, size):
    """Squared error per frame and patch; zeros fill up the last patch."""
    error = (np.abs(first) - np.abs(second)) ** 2
    return np.array([[np.sum(p) / size for p in patches_of(frame, size)] for frame in error])


def keep_largest(gaps, fraction):
    """Indices of the largest gaps, at least one; gaps is a flat list."""
    count = max(int(len(gaps) * fraction + 1e-9), 1)
    return sorted(range(len(gaps)), key=lambda i: -gaps[i])[:count]


# ---- plain output losses


def test_waveform_loss_is_the_mean_squared_error_at_any_rank():
    rng = np.random.default_rng(0)
    for shape in [(3, 7), (3, 7, 2), (3, 2, 2, 5)]:
        student, teacher = rng.normal(size=(2, *shape)).astype(np.float32)
        expected = ((student - teacher).astype(np.float64) ** 2).reshape(3, -1).mean(axis=1)
        found = output_waveform(student, teacher, None, None, None)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("exponent", [0.3, 0.5])
def test_spectrum_loss_compares_compressed_magnitudes_with_their_phases(exponent):
    student, teacher, noisy, speech = signals()

    def distance(s, t):
        turned = [z * np.abs(z) ** exponent / np.maximum(np.abs(z), 1e-12) for z in (s, t)]
        return np.mean(np.abs(turned[0] - turned[1]) ** 2)

    found = output_spectrum(student, teacher, noisy, speech, FRAME, exponent=exponent)
    np.testing.assert_allclose(found, per_example(distance, student, teacher), rtol=5e-3)


def test_mask_loss_compares_the_masks_that_the_outputs_imply():
    student, teacher, noisy, speech = signals()

    def distance(s, t, x):
        floor = np.sqrt(np.abs(x) ** 2 + EPSILON)
        masks = [np.minimum(np.sqrt(np.abs(z) ** 2 + EPSILON) / floor, 1.0) for z in (s, t)]
        return np.mean((masks[0] - masks[1]) ** 2)

    found = output_mask(student, teacher, noisy, speech, FRAME)
    np.testing.assert_allclose(found, per_example(distance, student, teacher, noisy), rtol=1e-3)


def test_mask_loss_of_two_gains_is_the_square_of_their_difference():
    _, _, noisy, speech = signals()
    found = output_mask(0.25 * noisy, 0.75 * noisy, noisy, speech, FRAME)
    # The mask of the first frame, which holds padding only in part, is a gain as well.
    np.testing.assert_allclose(found, np.full(3, 0.25), rtol=1e-3)


def test_mask_loss_does_not_count_amplification():
    _, _, noisy, speech = signals()
    found = output_mask(3.0 * noisy, 2.0 * noisy, noisy, speech, FRAME)
    np.testing.assert_array_equal(found, np.zeros(3))


# ---- selected patches


@pytest.mark.parametrize(("size", "fraction"), [(10, 0.8), (20, 0.3), (33, 1.0), (10, 1e-6)])
def test_dispatch_keeps_the_patches_where_the_teacher_is_ahead_most(size, fraction):
    student, teacher, noisy, speech = signals()

    def distance(s, t, y):
        gaps = (squared_error(s, y, size) - squared_error(t, y, size)).ravel()
        errors = squared_error(s, t, size).ravel()
        kept = keep_largest(gaps, fraction)
        return sum(errors[i] for i in kept) / (len(errors) * fraction)

    found = dispatch(
        student, teacher, noisy, speech, FRAME, patch_bins=size, kept_fraction=fraction
    )
    np.testing.assert_allclose(found, per_example(distance, student, teacher, speech), rtol=2e-3)


def test_dispatch_of_all_patches_is_the_squared_error_of_magnitudes():
    student, teacher, noisy, speech = signals()
    found = dispatch(student, teacher, noisy, speech, FRAME, patch_bins=11, kept_fraction=1.0)

    def distance(s, t):
        return np.mean((np.abs(s) - np.abs(t)) ** 2)

    np.testing.assert_allclose(found, per_example(distance, student, teacher), rtol=2e-3)


def test_dispatch_leaves_out_what_the_student_does_better():
    time = np.arange(500)
    speech = signals()[3] * (np.abs(time - 256) > 64)  # a pause keeps the halves apart
    student, teacher = speech * (time > 256), speech * (time < 256)  # each right in one half
    whole = dispatch(student, speech, None, speech, FRAME, patch_bins=33, kept_fraction=0.4)
    half = dispatch(student, teacher, None, speech, FRAME, patch_bins=33, kept_fraction=0.4)
    np.testing.assert_allclose(half, whole, rtol=1e-4)


def cosine_distance(first, second):
    inner = np.sum((first * np.conj(second)).real) + EPSILON
    norms = [np.sqrt(np.sum(np.abs(z) ** 2) + EPSILON) for z in (first, second)]
    return 1.0 - inner / (norms[0] * norms[1])


def crossover_of(frame):
    """Bin before the largest relative step of the running maximum."""
    running = np.maximum.accumulate(np.sqrt(np.abs(frame) ** 2 + EPSILON))
    return int(np.argmax(running[1:] / running[:-1] - 1.0))


def band_distance(first, second, inside, size, share):
    """Distance of one patch; bins outside the band and beyond the last count as zero."""
    first, second = first * inside, second * inside
    error = np.sum((np.abs(first) - np.abs(second)) ** 2) / size
    return share * cosine_distance(first, second) + (1.0 - share) * error


def expected_two_bands(s, t, y, sizes, fraction):
    total = 0.0
    for size, share, is_low in [(sizes[0], 1.0, True), (sizes[1], 0.5, False)]:
        gaps, losses = [], []
        for frame in range(len(s)):
            crossover = crossover_of(t[frame])
            bins = np.arange(NUM_BINS)
            band = bins <= crossover if is_low else bins >= crossover
            for start in range(0, NUM_BINS, size):
                inside = band[start : start + size]
                if not inside.any():
                    continue
                cut = [z[frame, start : start + size] for z in (s, t, y)]
                student_gap = band_distance(cut[0], cut[2], inside, size, share)
                gaps.append(student_gap - band_distance(cut[1], cut[2], inside, size, share))
                losses.append(band_distance(cut[0], cut[1], inside, size, share))
        kept = keep_largest(gaps, fraction)
        total += np.mean([losses[i] for i in kept])
    return total


@pytest.mark.parametrize(("sizes", "fraction"), [((5, 11), 0.8), ((3, 20), 0.35)])
def test_multi_scale_dispatch_selects_in_each_band_with_its_patches(sizes, fraction):
    student, teacher, noisy, speech = signals()
    expected = per_example(
        lambda s, t, y: expected_two_bands(s, t, y, sizes, fraction), student, teacher, speech
    )
    found = dispatch_multi_scale(
        student, teacher, noisy, speech, FRAME, patch_bins=sizes, kept_fraction=fraction
    )
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_frequency_adaptive_loss_takes_both_bands_whole():
    student, teacher, noisy, speech = signals()
    expected = per_example(
        lambda s, t: expected_two_bands(s, t, t, (NUM_BINS, NUM_BINS), 1.0), student, teacher
    )
    found = frequency_adaptive(student, teacher, noisy, speech, FRAME)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.parametrize(
    ("loss", "defaults"),
    [
        (dispatch, {"patch_bins": 20, "kept_fraction": 0.8}),
        (dispatch_multi_scale, {"patch_bins": (10, 40), "kept_fraction": 0.8}),
    ],
)
def test_defaults_are_those_of_the_example_in_the_source(loss, defaults):
    given = signals()
    np.testing.assert_array_equal(loss(*given, FRAME), loss(*given, FRAME, **defaults))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_shares_of_patches_out_of_range_are_refused(fraction):
    message = rf"must lie in \(0, 1\]\. Received kept_fraction={fraction}\. Use 1\.0"
    student, teacher, noisy, speech = signals()
    for loss in (dispatch, dispatch_multi_scale):
        with pytest.raises(ValueError, match=message):
            loss(student, teacher, noisy, speech, FRAME, kept_fraction=fraction)


def test_empty_patches_are_refused():
    student, teacher, noisy, speech = signals()
    with pytest.raises(ValueError, match=r"must be at least 1\. Received 0 bins\. Use 10"):
        dispatch(student, teacher, noisy, speech, FRAME, patch_bins=0)


# ---- all of them


@pytest.fixture(params=OUTPUT_LOSSES)
def loss(request):
    return functools.partial(OUTPUT_LOSSES[request.param], stft=FRAME)


def test_each_example_has_a_loss_of_its_own(loss):
    batch = signals()
    together = np.asarray(loss(*batch))
    assert together.shape == (3,)
    for b in range(3):
        alone = loss(*(signal[b : b + 1] for signal in batch))
        np.testing.assert_allclose(alone, together[b : b + 1], rtol=1e-4)


def test_outputs_of_unequal_shape_are_refused(loss):
    student, _, noisy, speech = signals()
    message = r"equal shape\. Received \(3, 500\) from the student and \(1, 500\) .* Give both"
    with pytest.raises(ValueError, match=message):
        loss(student, student[:1], noisy, speech)


def test_equal_outputs_have_no_loss(loss):
    student, _, noisy, speech = signals()
    np.testing.assert_allclose(loss(student, student, noisy, speech), np.zeros(3), atol=1e-6)


def test_different_outputs_have_a_loss(loss):
    assert np.all(np.asarray(loss(*signals())) > 1e-4)


def test_only_the_student_gets_a_gradient(loss, gradients_of):
    to_student, *others = gradients_of(lambda *given: loss(*given), *signals())
    assert np.abs(to_student).max() > 1e-6
    for gradient in others:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.parametrize("silent", [(0,), (1,), (0, 1), (2,), (3,), (0, 1, 2, 3)])
def test_silence_gives_finite_values_and_gradients(loss, silent, gradients_of):
    given = [0.0 * s if i in silent else s for i, s in enumerate(signals())]
    assert np.all(np.isfinite(loss(*given)))
    gradient = gradients_of(lambda *values: loss(*values), *given)[0]
    assert np.all(np.isfinite(gradient))
    assert np.abs(gradient).max() < 1e5


def test_silence_on_both_sides_has_no_loss(loss):
    silence = np.zeros((2, 500), np.float32)
    np.testing.assert_allclose(loss(silence, silence, silence, silence), np.zeros(2), atol=1e-6)


def test_half_precision_outputs_give_the_value_of_float32(loss):
    halves = [signal.astype(np.float16) for signal in signals()]
    expected = np.asarray(loss(*(half.astype(np.float32) for half in halves)))
    found = np.asarray(loss(*halves))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_compiled_graph_of_unknown_length_gives_the_same_value(loss, compiled):
    given = signals()
    expected = np.asarray(loss(*given))
    np.testing.assert_allclose(compiled(lambda *x: loss(*x), *given), expected, rtol=1e-4)
