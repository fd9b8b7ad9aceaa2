# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.distill.projectors import align_grid, build_projector, overlap_matrix

STUDENT, TEACHER = (None, None, 1, 5), (None, None, 1, 7)


def latent(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_linear_projector_is_a_product_with_a_matrix_along_the_last_axis():
    projector = build_projector("linear", STUDENT, TEACHER, "bottleneck")
    z = latent(2, 3, 1, 5)
    kernel, bias = projector.get_weights()
    assert kernel.shape == (5, 7)
    np.testing.assert_allclose(projector(z), z @ kernel + bias, atol=1e-6)


def test_inverted_bottleneck_expands_fourfold_rectifies_and_projects():
    projector = build_projector("inverted_bottleneck", STUDENT, TEACHER, "bottleneck")
    z = latent(2, 3, 1, 5)
    expand, first_bias, project, bias = projector.get_weights()
    assert expand.shape == (5, 20)
    expected = np.maximum(z @ expand + first_bias, 0.0) @ project + bias
    np.testing.assert_allclose(projector(z), expected, atol=1e-5)


def test_parameter_free_projector_changes_nothing():
    projector = build_projector("none", STUDENT, TEACHER, "bottleneck")
    z = latent(2, 3, 1, 5)
    assert projector.weights == []
    np.testing.assert_array_equal(projector(z), z)


@pytest.mark.parametrize("kind", ["linear", "inverted_bottleneck", "none"])
def test_projector_carries_the_name_of_its_tap(kind):
    assert build_projector(kind, (None, 2), (None, 3), "late").name == "projector_late"


def test_latents_with_different_numbers_of_axes_are_refused():
    message = r"latents of tap 'late' must have equally many axes\. Received \(None, 5\) of the st"
    with pytest.raises(ValueError, match=message):
        build_projector("linear", (None, 5), TEACHER, "late")


@pytest.mark.parametrize(
    ("num_old", "num_new", "expected"),
    [
        (2, 1, [[0.5, 0.5]]),
        (1, 2, [[1.0], [1.0]]),
        (3, 2, [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]),
        (2, 3, [[1, 0], [0.5, 0.5], [0, 1]]),
        (3, 3, np.eye(3)),
    ],
)
def test_cells_weigh_by_their_overlap(num_old, num_new, expected):
    np.testing.assert_allclose(overlap_matrix(num_old, num_new), expected, atol=1e-6)


def test_frames_and_bands_are_brought_to_the_grid_of_the_other_latent():
    z = latent(2, 6, 4, 5)
    aligned = np.asarray(align_grid(z, np.zeros((2, 3, 8, 7), "f")))
    expected = z.reshape(2, 3, 2, 4, 5).mean(axis=2).repeat(2, axis=2)
    np.testing.assert_allclose(aligned, expected, atol=1e-6)


def test_equal_grids_are_left_alone():
    z = latent(2, 6, 4, 5)
    assert align_grid(z, np.zeros((2, 6, 4, 9), "f")) is z
