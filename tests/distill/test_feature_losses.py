# SPDX-License-Identifier: Apache-2.0
import functools

import numpy as np
import pytest

from lmkd_tf.distill.feature_losses import (
    POINTWISE,
    RELATIONAL,
    attention_kl,
    attention_transfer,
    cosine_distance,
    fine_grained_similarity,
    frame_similarity,
    multi_view_attention,
    normalized_l1,
    normalized_smooth_l1,
    similarity_preserving,
)

ACROSS_BATCH = functools.partial(frame_similarity, across_batch=True)
# The hierarchical loss needs equal widths and is not free of scale: test_review.py.
EVERY_RELATIONAL = [*RELATIONAL.values(), ACROSS_BATCH]
EVERY_RELATIONAL.remove(RELATIONAL["hierarchical"])


def latents(student_width=5, teacher_width=7, shape=(3, 6, 4), seed=0):
    rng = np.random.default_rng(seed)
    student = rng.normal(size=(*shape, student_width))
    return student.astype(np.float32), rng.normal(size=(*shape, teacher_width)).astype(np.float32)


def unit(vector):
    return vector / np.sqrt(np.sum(vector**2))


def unit_rows(matrix):
    return np.stack([unit(row) for row in matrix])


def gram(vectors):
    """Similarities of a list of vectors by their definition."""
    return unit_rows(np.array([[np.dot(a, b) for b in vectors] for a in vectors]))


def doubles(*arrays):
    return [array.astype(np.float64) for array in arrays]


# ---- pointwise


def test_l1_is_the_mean_absolute_error_in_standard_deviations():
    student, teacher = latents(5, 5)
    expected = np.abs(np.subtract(*doubles(student, teacher))).mean(axis=-1) / np.sqrt(2.5)
    np.testing.assert_allclose(normalized_l1(student, teacher, 2.5), expected, rtol=1e-5)


def test_smooth_l1_is_half_a_square_below_one_deviation_and_a_line_above():
    student = np.array([[[1.0, -1.0, 6.0, -6.0]]], np.float32)
    teacher = np.zeros_like(student)
    # Variance 4: errors of 1/2 count 1/8 each, errors of 3 count 5/2 each.
    expected = (2 * 0.125 + 2 * 2.5) / 4
    np.testing.assert_allclose(normalized_smooth_l1(student, teacher, 4.0), [[expected]])


def test_cosine_distance_of_known_angles():
    student = np.array([[[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [1.0, 1.0]]], np.float32)
    teacher = np.array([[[7.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 0.0]]], np.float32)
    expected = [[0.0, 1.0, 2.0, 1.0 - np.sqrt(0.5)]]
    np.testing.assert_allclose(cosine_distance(student, teacher), expected, atol=1e-6)


def test_cosine_distance_ignores_the_scale_of_both_latents():
    student, teacher = latents(5, 5)
    scaled = cosine_distance(1000.0 * student, 0.01 * teacher, 3.0)
    np.testing.assert_allclose(scaled, cosine_distance(student, teacher), atol=1e-5)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_distances_reduce_only_the_last_axis(name):
    for shape in [(3,), (3, 6), (3, 6, 4)]:
        student, teacher = latents(5, 5, shape)
        assert tuple(POINTWISE[name](student, teacher, 1.0).shape) == shape


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_distances_of_equal_latents_are_zero(name):
    student, _ = latents(5, 5)
    np.testing.assert_allclose(
        POINTWISE[name](student, student, 2.0), np.zeros((3, 6, 4)), atol=1e-6
    )


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_distances_of_latents_that_would_only_broadcast_are_refused(name):
    message = r"equal shape\. Received \(2, 3, 4\) from the student and \(2, .* teacher\. Project"
    for shape in [(2, 3, 1), (2, 1, 4), (2, 3, 1, 4)]:
        with pytest.raises(ValueError, match=message):
            POINTWISE[name](np.zeros((2, 3, 4), "f"), np.zeros(shape, "f"), 1.0)


# ---- relational: against the definitions in double precision


def test_attention_transfer_compares_unit_maps_of_the_mean_square_over_channels():
    student, teacher = latents()
    expected = []
    for s, t in zip(*doubles(student, teacher), strict=True):
        maps = [unit((z**2).mean(axis=-1).ravel()) for z in (s, t)]
        expected.append(np.mean((maps[0] - maps[1]) ** 2))
    np.testing.assert_allclose(attention_transfer(student, teacher), expected, rtol=1e-4)


def test_attention_transfer_of_two_positions_by_hand():
    student = np.array([[[3.0], [0.0]]], np.float32)  # map (1, 0)
    teacher = np.array([[[0.0], [2.0]]], np.float32)  # map (0, 1)
    assert float(attention_transfer(student, teacher)[0]) == pytest.approx(1.0)


def test_similarity_preserving_averages_to_the_published_value():
    student, teacher = latents()
    batch = [gram(list(z.reshape(3, -1))) for z in doubles(student, teacher)]
    published = np.sum((batch[0] - batch[1]) ** 2) / 3**2
    rows = np.asarray(similarity_preserving(student, teacher))
    assert rows.mean() == pytest.approx(published, rel=1e-4)
    np.testing.assert_allclose(rows, ((batch[0] - batch[1]) ** 2).mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize("shapes", [((4, 3), (4, 5)), ((4, 6, 3), (4, 2)), ((4, 2, 2, 2, 3),) * 2])
def test_similarity_preserving_takes_latents_of_any_rank(shapes):
    rng = np.random.default_rng(1)
    student, teacher = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    assert tuple(similarity_preserving(student, teacher).shape) == (4,)


def test_frame_similarity_compares_the_frames_of_each_example():
    student, teacher = latents()
    expected = []
    for s, t in zip(*doubles(student, teacher), strict=True):
        grams = [gram(list(z.reshape(6, -1))) for z in (s, t)]
        expected.append(np.mean((grams[0] - grams[1]) ** 2))
    np.testing.assert_allclose(frame_similarity(student, teacher), expected, rtol=1e-4)


def test_frame_similarity_across_the_batch_compares_the_examples_in_each_frame():
    student, teacher = latents()
    expected = np.zeros(3)
    for frame in range(6):
        frames = [list(z[:, frame].reshape(3, -1)) for z in doubles(student, teacher)]
        expected += ((gram(frames[0]) - gram(frames[1])) ** 2).mean(axis=1) / 6
    np.testing.assert_allclose(ACROSS_BATCH(student, teacher), expected, rtol=1e-4)


def test_fine_grained_similarity_compares_inside_each_frame_and_each_frequency():
    student, teacher = latents()
    expected = []
    for s, t in zip(*doubles(student, teacher), strict=True):
        over_time = [np.stack([gram(list(z[:, f])) for f in range(4)]) for z in (s, t)]
        over_frequency = [np.stack([gram(list(z[n])) for n in range(6)]) for z in (s, t)]
        halves = [np.mean((a - b) ** 2) for a, b in (over_time, over_frequency)]
        expected.append(0.5 * sum(halves))
    np.testing.assert_allclose(fine_grained_similarity(student, teacher), expected, rtol=1e-4)


@pytest.mark.parametrize("teacher_width", [5, 7])
def test_multi_view_attention_averages_the_comparable_views(teacher_width):
    student, teacher = latents(5, teacher_width)
    views = [(1, 2), (0, 2)] + ([(0, 1)] if teacher_width == 5 else [])
    expected = []
    for s, t in zip(*doubles(student, teacher), strict=True):
        maps = [[unit((z**2).mean(axis=axes)) for z in (s, t)] for axes in views]
        expected.append(np.mean([np.mean((a - b) ** 2) for a, b in maps]))
    np.testing.assert_allclose(multi_view_attention(student, teacher), expected, rtol=1e-4)


@pytest.mark.parametrize("teacher_width", [5, 7])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_attention_kl_is_the_divergence_from_teacher_to_student(teacher_width, temperature):
    student, teacher = latents(5, teacher_width)
    views = [(1, 2), (0, 2)] + ([(0, 1)] if teacher_width == 5 else [])
    expected = []
    for s, t in zip(*doubles(student, teacher), strict=True):
        divergences = []
        for axes in views:
            q, p = (np.exp((z**2).mean(axis=axes) / temperature) for z in (s, t))
            q, p = q / q.sum(), p / p.sum()
            divergences.append(np.sum(p * np.log(p / q)))
        expected.append(np.mean(divergences))
    found = attention_kl(student, teacher, temperature=temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_attention_kl_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match=r"must be positive\. Received temperature=0\. Use 1\.0"):
        attention_kl(*latents(), temperature=0)


# ---- relational: what all have in common


@pytest.mark.parametrize("loss", EVERY_RELATIONAL)
def test_relational_losses_of_equal_latents_are_zero(loss):
    student, _ = latents()
    np.testing.assert_allclose(loss(student, student, 1.0), np.zeros(3), atol=1e-10)


@pytest.mark.parametrize("loss", EVERY_RELATIONAL)
def test_relational_losses_of_two_networks_are_positive(loss):
    assert np.all(np.asarray(loss(*latents(), 1.0)) > 1e-4)


@pytest.mark.parametrize("loss", [loss for loss in EVERY_RELATIONAL if loss is not attention_kl])
def test_relational_losses_ignore_the_scale_of_both_latents(loss):
    student, teacher = latents()
    expected = np.asarray(loss(student, teacher, 1.0))
    np.testing.assert_allclose(loss(20.0 * student, 0.1 * teacher, 1.0), expected, rtol=1e-4)


@pytest.mark.parametrize("loss", EVERY_RELATIONAL)
def test_relational_losses_treat_a_missing_frequency_axis_as_one_frequency(loss):
    student, teacher = latents(shape=(3, 6, 1))
    expected = np.asarray(loss(student, teacher, 1.0))
    found = loss(student[:, :, 0], teacher[:, :, 0], 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize(
    "loss", [loss for loss in EVERY_RELATIONAL if loss is not similarity_preserving]
)
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((2, 5), (2, 5)),
        ((2, 3, 4, 5), (2, 3, 5)),
        ((2, 3, 4, 5), (2, 6, 4, 5)),
        ((1, 2, 3, 4, 5),) * 2,
    ],
)
def test_relational_losses_of_latents_on_different_grids_are_refused(loss, student, teacher):
    message = r"on one grid\. Received a student latent of shape \(.*\)\. Tap layers with equal"
    with pytest.raises(ValueError, match=message):
        loss(np.zeros(student, "f"), np.zeros(teacher, "f"), 1.0)


# ---- both kinds


def every_loss():
    pointwise = [(loss, 5) for loss in POINTWISE.values()]
    return pointwise + [(loss, 7) for loss in EVERY_RELATIONAL]


@pytest.mark.parametrize(("loss", "teacher_width"), every_loss())
def test_the_teacher_gets_no_gradient_and_the_student_does(loss, teacher_width, gradients_of):
    student, teacher = latents(5, teacher_width)
    to_student, to_teacher = gradients_of(lambda s, t: loss(s, t, 1.0), student, teacher)
    assert np.abs(to_student).max() > 1e-5
    np.testing.assert_array_equal(to_teacher, np.zeros_like(teacher))


@pytest.mark.parametrize(("loss", "teacher_width"), every_loss())
@pytest.mark.parametrize("scales", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_values_and_gradients_of_silent_latents_are_finite(
    loss, teacher_width, scales, gradients_of
):
    student, teacher = (s * z for s, z in zip(scales, latents(5, teacher_width), strict=True))
    student, teacher = student.astype(np.float32), teacher.astype(np.float32)
    assert np.all(np.isfinite(loss(student, teacher, 1.0)))
    gradient, _ = gradients_of(lambda s, t: loss(s, t, 1.0), student, teacher)
    assert np.all(np.isfinite(gradient))
    assert np.abs(gradient).max() < 1e5


@pytest.mark.parametrize(("loss", "teacher_width"), every_loss())
def test_half_precision_latents_give_the_value_of_float32(loss, teacher_width):
    student, teacher = (30.0 * z for z in latents(5, teacher_width))
    halves = student.astype(np.float16), teacher.astype(np.float16)
    expected = np.asarray(loss(*(half.astype(np.float32) for half in halves), 900.0))
    found = np.asarray(loss(*halves, np.float16(900.0)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("loss", "teacher_width"), every_loss())
def test_a_compiled_graph_gives_the_same_value(loss, teacher_width, compiled):
    student, teacher = latents(5, teacher_width)
    found = compiled(lambda s, t: loss(s, t, 2.0), student, teacher)
    np.testing.assert_allclose(found, np.asarray(loss(student, teacher, 2.0)), rtol=1e-5, atol=1e-7)
