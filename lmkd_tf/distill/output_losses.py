# SPDX-License-Identifier: Apache-2.0
"""Output distillation: losses between the enhanced speech of student and teacher.

Every function takes `(student_output, teacher_output, noisy, speech, stft)`, waveforms
`(B, N)` in [-1, 1] and the frame of the transform, stops the teacher's gradient, computes
in float32 and returns one value per example, `(B,)`; outputs of unequal shape and options
out of range raise a ValueError. *read*: the formula was seen in its source; *sketch*: our
reading of an abstract. Where a source has a transform of its own, we use the given one, and
where it pools over a batch, we pool over an utterance.
"""

from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.latent_pairs import shapes_differ
from lmkd_tf.dsp.mask import compress
from lmkd_tf.dsp.stft import stft as transform

# Added to powers, so that magnitudes have a gradient in silence.
_EPSILON = 1e-8

# Those of the example in the code of DISPatch.
PATCH_BINS = 20
LOW_PATCH_BINS, HIGH_PATCH_BINS = 10, 40
KEPT_FRACTION = 0.8
COSINE_SHARE = 0.5


def output_waveform(student_output, teacher_output, noisy=None, speech=None, stft=None):
    """Mean squared error of the outputs, whatever they are.

    Args:
        student_output: `(B, ...)`.
        teacher_output: Same shape.
        noisy: Unused.
        speech: Unused.
        stft: Unused.

    Returns:
        Loss per example, `(B,)`.

    References:
        The regression form of Hinton et al., arXiv 1503.02531; *sketch*.
    """
    del noisy, speech, stft
    student, teacher = _outputs(student_output, teacher_output)
    return _mean(ops.square(student - teacher))


def output_spectrum(
    student_output, teacher_output, noisy, speech, stft: StftConfig, *, exponent: float = 0.3
):
    """Squared error of the complex spectra with compressed magnitude.

    Args:
        student_output: `(B, N)`.
        teacher_output: `(B, N)`.
        noisy: Unused.
        speech: Unused.
        stft: Frame of the transform.
        exponent: Compression of the magnitude, in (0, 1].

    Returns:
        Loss per example, `(B,)`.

    References:
        The regression form of Hinton et al., arXiv 1503.02531, on the spectrum of CMGAN's
        loss (Cao et al., arXiv 2203.15149); *sketch*.
    """
    del noisy, speech
    student, teacher = (
        compress(transform(samples, stft), exponent)[1]
        for samples in _outputs(student_output, teacher_output)
    )
    return _mean(ops.sum(ops.square(student - teacher), axis=-1))


def output_mask(student_output, teacher_output, noisy, speech, stft: StftConfig):
    """Squared error of the masks `|Y| / |X|`, cut to [0, 1], that the outputs imply.

    Where the input is silent the mask of a silent output is 1.

    Args:
        student_output: `(B, N)`.
        teacher_output: `(B, N)`.
        noisy: Input of both, `(B, N)`.
        speech: Unused.
        stft: Frame of the transform.

    Returns:
        Loss per example, `(B,)`.

    References:
        The regression form of Hinton et al., arXiv 1503.02531; *sketch*.
    """
    del speech
    floor = _magnitude(transform(_stopped(noisy), stft))
    student, teacher = (
        ops.minimum(_magnitude(transform(samples, stft)) / floor, 1.0)
        for samples in _outputs(student_output, teacher_output)
    )
    return _mean(ops.square(student - teacher))


def dispatch(
    student_output,
    teacher_output,
    noisy,
    speech,
    stft: StftConfig,
    *,
    patch_bins: int = PATCH_BINS,
    kept_fraction: float = KEPT_FRACTION,
):
    """Squared error of the magnitudes in the patches where the teacher is ahead most.

    A patch is `patch_bins` bins of one frame, the last one filled up with zeros. Its gap is
    the student's error to the speech minus the teacher's; of each utterance the patches
    with the largest gaps count.

    Args:
        student_output: `(B, N)`.
        teacher_output: `(B, N)`.
        noisy: Unused.
        speech: Clean speech, `(B, N)`.
        stft: Frame of the transform.
        patch_bins: Bins per patch.
        kept_fraction: Share of the patches that count, in (0, 1].

    Returns:
        Loss per example, `(B,)`.

    References:
        DISPatch: Kim and Choi, arXiv 2509.15922; *read* in the authors' code.
    """
    del noisy
    magnitudes = [
        _patches(_magnitude(transform(samples, stft)), patch_bins)
        for samples in (*_outputs(student_output, teacher_output), _stopped(speech))
    ]
    student, teacher, clean = magnitudes  # (B, T, P, patch_bins)
    gap = _patch_error(student, clean) - _patch_error(teacher, clean)
    everywhere = ops.ones_like(gap, dtype="bool")
    kept = _largest(ops.stop_gradient(gap), everywhere, kept_fraction)
    return _mean(_patch_error(student, teacher) * kept) / kept_fraction


def dispatch_multi_scale(
    student_output,
    teacher_output,
    noisy,
    speech,
    stft: StftConfig,
    *,
    patch_bins: tuple[int, int] = (LOW_PATCH_BINS, HIGH_PATCH_BINS),
    kept_fraction: float = KEPT_FRACTION,
):
    """`frequency_adaptive` in the patches where the teacher is ahead most.

    Small patches in the low band and large ones in the high band; the largest gaps count in
    each band of each utterance.

    Args:
        student_output: `(B, N)`.
        teacher_output: `(B, N)`.
        noisy: Unused.
        speech: Clean speech, `(B, N)`.
        stft: Frame of the transform.
        patch_bins: Bins per patch in the low and in the high band.
        kept_fraction: Share of a band's patches that counts, in (0, 1].

    Returns:
        Loss per example, `(B,)`.

    References:
        DISPatch with MSSP on DFKD: Kim and Choi, arXiv 2509.15922; *read* in the authors' code.
    """
    del noisy
    outputs = student_output, teacher_output, speech
    return _two_bands(outputs, stft, patch_bins, kept_fraction)


def frequency_adaptive(student_output, teacher_output, noisy, speech, stft: StftConfig):
    """Cosine distance in a low band, and cosine distance and squared error in a high one.

    In every frame the bands meet at the bin where the running maximum of the teacher's
    magnitude over frequency has its largest relative step; that bin belongs to both.

    Args:
        student_output: `(B, N)`.
        teacher_output: `(B, N)`.
        noisy: Unused.
        speech: Unused.
        stft: Frame of the transform.

    Returns:
        Loss per example, `(B,)`.

    References:
        DFKD: Yuan et al., arXiv 2502.04711; *sketch* after the part of it that the code of
        DISPatch (arXiv 2509.15922) holds.
    """
    del noisy, speech
    outputs = student_output, teacher_output, teacher_output
    return _two_bands(outputs, stft, (stft.num_bins, stft.num_bins), 1.0)


OUTPUT_LOSSES = {
    "waveform": output_waveform,
    "spectrum": output_spectrum,
    "mask": output_mask,
    "dispatch": dispatch,
    "dispatch_multi_scale": dispatch_multi_scale,
    "frequency_adaptive": frequency_adaptive,
}


def _stopped(values):
    return ops.stop_gradient(ops.cast(values, "float32"))


def _outputs(student_output, teacher_output):
    """Both outputs in float32, the teacher's without gradient, checked to have one shape."""
    shapes = tuple(student_output.shape), tuple(teacher_output.shape)
    if shapes_differ(*shapes):
        raise ValueError(
            "Student and teacher must have outputs of equal shape. "
            f"Received {shapes[0]} from the student and {shapes[1]} from the teacher. "
            "Give both the same input and the same kind of output."
        )
    return ops.cast(student_output, "float32"), _stopped(teacher_output)


def _mean(values):
    """Mean per example, `(B,)`."""
    return ops.mean(values, axis=tuple(range(1, len(values.shape))))


def _magnitude(spectrum):
    return ops.sqrt(ops.sum(ops.square(spectrum), axis=-1) + _EPSILON)


def _patches(values, patch_bins: int):
    """Cuts the bins of `(B, T, F)` into patches, `(B, T, P, patch_bins)`."""
    if patch_bins < 1:
        raise ValueError(
            "`patch_bins` must be at least 1. "
            f"Received {patch_bins} bins. Use 10 for low and 40 for high frequencies."
        )
    num_bins = values.shape[2]
    num_patches = -(-num_bins // patch_bins)
    filled = ops.pad(values, [[0, 0], [0, 0], [0, num_patches * patch_bins - num_bins]])
    return ops.reshape(filled, (*ops.shape(values)[:2], num_patches, patch_bins))


def _patch_error(first, second):
    """Mean squared error per patch, `(B, T, P)`."""
    return ops.mean(ops.square(first - second), axis=-1)


def _largest(gap, candidates, fraction: float):
    """Marks the largest gaps of each utterance with 1, at least one and all that tie with it.

    Args:
        gap: `(B, T, P)`.
        candidates: Where a patch may be chosen, bool, `(B, T, P)`.
        fraction: Share of the candidates that is chosen.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(
            "`kept_fraction` must lie in (0, 1]. "
            f"Received kept_fraction={fraction}. Use 1.0 to keep every patch."
        )
    flat = ops.reshape(ops.where(candidates, gap, -float("inf")), (ops.shape(gap)[0], -1))
    num_candidates = ops.sum(ops.cast(candidates, "float32"), axis=(1, 2))
    # A hair more, so that 0.8 * 20 in float32 is not 15.999.
    num_chosen = ops.maximum(ops.floor(fraction * num_candidates + 1e-3), 1.0)
    index = ops.shape(flat)[1] - ops.cast(num_chosen, "int32")
    threshold = ops.take_along_axis(ops.sort(flat, axis=-1), index[:, None], axis=-1)
    chosen = ops.logical_and(gap >= threshold[:, :, None], candidates)
    return ops.cast(chosen, "float32")


def _two_bands(outputs, stft: StftConfig, patch_bins: tuple[int, int], kept_fraction: float):
    """Sum of the low and the high band's loss in the chosen patches, `(B,)`.

    Args:
        outputs: Waveforms of student, teacher and reference, `(B, N)`.
        stft: Frame of the transform.
        patch_bins: Bins per patch in the low and in the high band.
        kept_fraction: Share of a band's patches that counts.
    """
    waveforms = *_outputs(*outputs[:2]), _stopped(outputs[2])
    spectra = [transform(samples, stft) for samples in waveforms]  # (B, T, F, 2)
    low, high = _bands(_magnitude(spectra[1]))
    return _band_loss(spectra, low, patch_bins[0], kept_fraction, 1.0) + _band_loss(
        spectra, high, patch_bins[1], kept_fraction, COSINE_SHARE
    )


def _bands(magnitude):
    """Low and high band of every frame, bool, `(B, T, F)` each; see `frequency_adaptive`."""
    running = _running_maximum(magnitude)
    step = (running[:, :, 1:] - running[:, :, :-1]) / running[:, :, :-1]
    crossover = ops.cast(ops.argmax(step, axis=-1), "int32")[:, :, None]  # (B, T, 1)
    bins = ops.arange(magnitude.shape[2], dtype="int32")
    return bins <= crossover, bins >= crossover


def _running_maximum(values):
    """Largest value so far along the last axis of `(B, T, F)`, in log2(F) steps."""
    shift = 1
    while shift < values.shape[2]:
        shifted = ops.concatenate([values[:, :, :shift], values[:, :, :-shift]], axis=2)
        values = ops.maximum(values, shifted)
        shift *= 2
    return values


def _band_loss(spectra, band, patch_bins: int, kept_fraction: float, cosine_share: float):
    """Mean over the chosen patches of a band of a mixture of two distances, `(B,)`."""
    inside = ops.cast(band, "float32")
    student, teacher, reference = (_BandPatches(z, inside, patch_bins) for z in spectra)
    gap = student.distance(reference, cosine_share) - teacher.distance(reference, cosine_share)
    in_band = ops.any(_patches(inside, patch_bins) > 0.0, axis=-1)
    kept = _largest(ops.stop_gradient(gap), in_band, kept_fraction)
    loss = student.distance(teacher, cosine_share) * kept
    return ops.sum(loss, axis=(1, 2)) / ops.sum(kept, axis=(1, 2))


class _BandPatches:
    """One spectrum inside a band, in patches `(B, T, P, patch_bins)`."""

    def __init__(self, spectrum, inside, patch_bins: int):
        self.real = _patches(spectrum[..., 0] * inside, patch_bins)
        self.imaginary = _patches(spectrum[..., 1] * inside, patch_bins)
        self.magnitude = _patches(_magnitude(spectrum) * inside, patch_bins)

    def distance(self, other: "_BandPatches", cosine_share: float):
        """Cosine distance mixed with the squared error of magnitudes, `(B, T, P)`."""
        product = self.real * other.real + self.imaginary * other.imaginary
        # The same small constant in each vector makes two silent ones parallel.
        inner = ops.sum(product, axis=-1) + _EPSILON
        cosine = inner / (self.norm() * other.norm())
        error = _patch_error(self.magnitude, other.magnitude)
        return cosine_share * (1.0 - cosine) + (1.0 - cosine_share) * error

    def norm(self):
        """Norm of each patch, `(B, T, P)`."""
        power = ops.square(self.real) + ops.square(self.imaginary)
        return ops.sqrt(ops.sum(power, axis=-1) + _EPSILON)
