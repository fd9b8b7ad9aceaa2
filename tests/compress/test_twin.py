# SPDX-License-Identifier: Apache-2.0
import numpy as np
import tensorflow as tf

from lmkd_tf.compress.twin import make_step_twin, make_twin


def test_twin_computes_what_the_keras_core_computes(build, core, features):
    twin = make_twin(build, core)
    wanted = np.asarray(core(features, training=False))
    np.testing.assert_allclose(twin(features, training=False).numpy(), wanted, atol=2e-6)


def test_step_twin_repeats_the_whole_utterance_frame_by_frame(build, core, features):
    step = make_step_twin(build, core)
    states = [tf.zeros([int(size) for size in tensor.shape]) for tensor in step.inputs[1:]]
    masks = []
    for frame in features[0]:
        mask, *states = step([frame[None, None], *states], training=False)
        masks.append(mask.numpy()[0, 0])
    wanted = np.asarray(core(features[:1], training=False))[0]
    np.testing.assert_allclose(np.stack(masks), wanted, atol=2e-6)
