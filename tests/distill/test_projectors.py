# SPDX-License-Identifier: Apache-2.0
import numpy as np

from lmkd_tf.distill.projectors import build_projector


def test_projector_is_a_product_with_a_matrix_along_the_last_axis():
    projector = build_projector(5, 7, "bottleneck")
    latent = np.random.default_rng(0).normal(size=(2, 3, 1, 5)).astype(np.float32)
    kernel, bias = projector.get_weights()
    assert kernel.shape == (5, 7)
    np.testing.assert_allclose(projector(latent), latent @ kernel + bias, atol=1e-6)


def test_projector_carries_the_name_of_its_tap():
    assert build_projector(2, 3, "bottleneck").name == "projector_bottleneck"
