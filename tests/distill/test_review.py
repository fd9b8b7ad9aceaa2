# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.distill.feature_losses import RELATIONAL
from lmkd_tf.distill.review import ReviewFusion, hierarchical_context

STUDENT_SHAPES = [(2, 6, 5, 3), (2, 6, 4, 4), (2, 3, 2, 6)]  # shallow to deep
TEACHER_WIDTHS = (5, 7, 9)


def student_latents(seed=0, shapes=STUDENT_SHAPES):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def fusion(seed=3, **kwargs):
    """A fusion whose weights and statistics are all drawn at random."""
    layer = ReviewFusion(TEACHER_WIDTHS, name="review", **kwargs)
    layer(student_latents())
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(0.2, 1.0, size=w.shape) for w in layer.get_weights()])
    return layer


# ---- independent computation


def convolve(x, kernel):
    """Same-padded convolution of `(B, T, F, C)` by its definition."""
    pad = kernel.shape[0] // 2
    padded = np.pad(x.astype(np.float64), [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    result = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            shifted = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            result += shifted @ kernel[i, j]
    return result


def conv_and_norm(layer, x):
    kernel, gamma, beta, mean, variance = layer.get_weights()
    return (convolve(x, kernel) - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def resize(x, num_frames, num_bins):
    rows = [int(i * x.shape[1] / num_frames) for i in range(num_frames)]
    columns = [int(i * x.shape[2] / num_bins) for i in range(num_bins)]
    return x[:, rows][:, :, columns]


def expected_fusion(layer, latents):
    residual, fused = None, []
    for i in reversed(range(len(latents))):
        x = conv_and_norm(layer.inward[i], latents[i])
        if residual is not None:
            residual = resize(residual, *x.shape[1:3])
            kernel, bias = layer.attention[i].get_weights()
            logits = np.concatenate([x, residual], axis=-1) @ kernel[0, 0] + bias
            share = 1.0 / (1.0 + np.exp(-logits))
            x = share[..., :1] * x + share[..., 1:] * residual
        residual = x
        fused.append(conv_and_norm(layer.outward[i], residual))
    return fused[::-1]


def expected_context(student, teacher):
    """The source's loss of one example `(T, F, D)`, intervals as PyTorch defines them."""

    def intervals(size, cells):
        if size <= cells:
            return [(i, i + 1) for i in range(size)]
        return [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]

    def pool(z, cells):
        rows, columns = (intervals(size, cells) for size in z.shape[:2])
        return np.array([[z[a:b, c:d].mean(axis=(0, 1)) for c, d in columns] for a, b in rows])

    total, weights, weight = np.mean((student - teacher) ** 2), 1.0, 1.0
    for cells in (4, 2, 1):
        if max(student.shape[:2]) <= cells:
            continue
        weight /= 2
        total += weight * np.mean((pool(student, cells) - pool(teacher, cells)) ** 2)
        weights += weight
    return total / weights


# ---- fusion


def test_fusion_equals_the_formula_from_deep_to_shallow():
    layer = fusion(width=8)
    latents = student_latents(seed=5)
    found = layer(latents, training=False)
    for value, expected in zip(found, expected_fusion(layer, latents), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_fused_latents_have_the_grids_of_the_student_and_the_widths_of_the_teacher():
    expected = [
        (*shape[:3], width) for shape, width in zip(STUDENT_SHAPES, TEACHER_WIDTHS, strict=True)
    ]
    assert [tuple(value.shape) for value in fusion()(student_latents())] == expected
    assert ReviewFusion(TEACHER_WIDTHS).compute_output_shape(STUDENT_SHAPES) == expected


def test_fusion_in_a_graph_of_unknown_length_gives_the_same_latents(compiled):
    layer, latents = fusion(), student_latents()
    expected = np.asarray(layer(latents, training=False)[0])
    found = compiled(lambda *given: layer(list(given), training=False)[0], *latents)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_width_inside_is_that_of_the_deepest_latent_unless_given():
    assert fusion().inward[0].get_weights()[0].shape == (1, 1, 3, 6)
    assert fusion(width=8).inward[0].get_weights()[0].shape == (1, 1, 3, 8)


def test_a_shallow_latent_does_not_reach_the_deeper_ones():
    layer, latents = fusion(), student_latents()
    changed = [latents[0] + 1.0, *latents[1:]]
    first, second = layer(latents, training=False), layer(changed, training=False)
    assert np.abs(np.asarray(first[0]) - np.asarray(second[0])).max() > 0.1
    for before, after in zip(first[1:], second[1:], strict=True):
        np.testing.assert_array_equal(before, after)


def test_training_normalizes_by_the_batch_and_moves_the_statistics():
    layer = ReviewFusion(TEACHER_WIDTHS)
    latents = student_latents()
    before = [w.copy() for w in (layer(latents), layer.get_weights())[1]]
    value = np.asarray(layer(latents, training=True)[0])
    np.testing.assert_allclose(value.mean(axis=(0, 1, 2)), np.zeros(5), atol=1e-4)
    np.testing.assert_allclose(value.std(axis=(0, 1, 2)), np.ones(5), atol=1e-2)
    assert any(
        np.abs(old - new).max() > 0 for old, new in zip(before, layer.get_weights(), strict=True)
    )


def test_inference_changes_no_weight():
    layer = fusion()
    before = layer.get_weights()
    layer(student_latents(), training=False)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_fusion_survives_saving_with_its_weights(tmp_path):
    inputs = [keras.Input(shape[1:]) for shape in STUDENT_SHAPES]
    layer = ReviewFusion(TEACHER_WIDTHS, width=8)
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.2, 1.0, size=w.shape) for w in model.get_weights()])
    model.save(tmp_path / "fusion.keras")
    restored = keras.models.load_model(tmp_path / "fusion.keras")
    for old, new in zip(model(student_latents()), restored(student_latents()), strict=True):
        np.testing.assert_array_equal(old, new)


def test_every_weight_of_the_fusion_gets_a_gradient():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes the gradients with TensorFlow's tape")
    import tensorflow as tf

    layer, latents = fusion(), student_latents()
    target = student_latents(1, layer.compute_output_shape(STUDENT_SHAPES))
    with tf.GradientTape() as tape:
        pairs = zip(layer(latents, training=True), target, strict=True)
        total = tf.add_n([tf.reduce_sum(hierarchical_context(s, t, 1.0)) for s, t in pairs])
    gradients = tape.gradient(total, [v.value for v in layer.trainable_variables])
    assert all(np.abs(np.asarray(gradient)).max() > 0 for gradient in gradients)


@pytest.mark.parametrize(("widths", "width"), [((), None), ((4, 0), None), ((4, 5), 0)])
def test_widths_below_one_are_refused(widths, width):
    message = r"must be positive\. Received teacher_widths=\[.*\], width=.*\. Give one teacher"
    with pytest.raises(ValueError, match=message):
        ReviewFusion(widths, width)


@pytest.mark.parametrize("shapes", [STUDENT_SHAPES[:2], [(2, 6, 3)] * 3])
def test_latents_of_a_wrong_number_or_rank_are_refused(shapes):
    message = r"one latent \(B, T, F, C\) for each .* Received 3 widths and latents of .* Give the"
    with pytest.raises(ValueError, match=message):
        ReviewFusion(TEACHER_WIDTHS)(student_latents(shapes=shapes))


# ---- hierarchical context


@pytest.mark.parametrize(
    "shape", [(10, 7), (10, 10), (9, 1), (10, 3), (4, 4), (3, 4), (2, 2), (2, 1), (1, 1)]
)
def test_hierarchical_context_equals_the_formula_of_the_source(shape):
    student, teacher = student_latents(shapes=[(3, *shape, 5)] * 2)
    pairs = zip(student.astype(np.float64), teacher.astype(np.float64), strict=True)
    expected = [expected_context(s, t) / 2.5 for s, t in pairs]
    np.testing.assert_allclose(hierarchical_context(student, teacher, 2.5), expected, rtol=1e-5)


def test_hierarchical_context_of_a_constant_error_is_its_square():
    (latent,) = student_latents(shapes=[(2, 10, 6, 3)])
    np.testing.assert_allclose(hierarchical_context(latent + 3.0, latent, 1.0), [9, 9], rtol=1e-5)


def test_hierarchical_context_without_a_frequency_axis_pools_along_time():
    student, teacher = student_latents(shapes=[(2, 9, 1, 3)] * 2)
    expected = np.asarray(hierarchical_context(student, teacher, 1.0))
    found = hierarchical_context(student[:, :, 0], teacher[:, :, 0], 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_hierarchical_context_is_one_of_the_relational_losses():
    assert RELATIONAL["hierarchical"] is hierarchical_context


def test_hierarchical_context_gives_the_teacher_no_gradient(gradients_of):
    student, teacher = student_latents(shapes=[(2, 6, 5, 3)] * 2)
    to_student, to_teacher = gradients_of(
        lambda s, t: hierarchical_context(s, t, 1.0), student, teacher
    )
    assert np.abs(to_student).max() > 1e-4
    np.testing.assert_array_equal(to_teacher, np.zeros_like(teacher))


def test_hierarchical_context_in_a_graph_of_unknown_length_and_half_precision(compiled):
    student, teacher = (z.astype(np.float16) for z in student_latents(shapes=[(2, 6, 5, 3)] * 2))
    expected = np.asarray(hierarchical_context(student, teacher, 1.0))
    found = compiled(lambda s, t: hierarchical_context(s, t, 1.0), student, teacher)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_hierarchical_context_of_unequal_widths_is_refused():
    with pytest.raises(ValueError, match=r"equal shape\. Received \(2, 6, 3\) .* Project the"):
        hierarchical_context(np.zeros((2, 6, 3), "f"), np.zeros((2, 6, 4), "f"), 1.0)
