# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

from lmkd_tf.distill.beta import symmetric_beta

COUNT = 100_000


def draw(alpha, shape=(COUNT,), seed=0):
    return np.asarray(symmetric_beta(shape, alpha, keras.random.SeedGenerator(seed)))


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 2.0, 30.0])
def test_variates_have_the_distribution_of_beta(alpha):
    drawn = draw(alpha)
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    # Kolmogorov-Smirnov at the level of one in a thousand, on the lower half: close to 1, where
    # much of the law with a small parameter lies, float32 has few numbers.
    law = scipy.stats.beta(alpha, alpha)
    lower = drawn[drawn < 0.5]
    assert scipy.stats.kstest(lower, lambda x: 2 * law.cdf(x)).pvalue > 1e-3
    assert len(lower) / COUNT == pytest.approx(0.5, abs=0.007)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)


def test_a_parameter_of_one_is_the_uniform_law():
    uniform = keras.random.uniform((64,), seed=keras.random.SeedGenerator(3))
    np.testing.assert_allclose(draw(1.0, (64,), seed=3), np.asarray(uniform), atol=1e-6)


def test_variates_are_drawn_under_xla():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("on the other backends everything is compiled")
    import tensorflow as tf

    generator = keras.random.SeedGenerator(1)

    @tf.function(jit_compile=True)
    def compiled():
        return symmetric_beta((8,), 0.4, generator)

    assert ops.shape(compiled()) == (8,)
