# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import tensorflow as tf

from lmkd_tf.cli.stages import core_builder
from lmkd_tf.compress.quantization import quantized_step
from lmkd_tf.evaluate.backends import StepBackend, keras_backend, open_backend
from lmkd_tf.evaluate.parity import snr_db
from lmkd_tf.evaluate.streaming import StreamingEnhancer
from lmkd_tf.export.interpreter import StepModel
from tests.parity import floors


def _whole(core, features):
    """Mask `(T, E)` of a whole-utterance core."""
    return np.asarray(core(features[None, :, None], training=False))[0, :, 0]


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_tflm_equals_the_reference_kernels_bit_for_bit(road, stream, dtype):
    path = getattr(road, dtype)
    micro, reference = StepModel(path, "tflm"), StepModel(path, "tflite")
    frames = micro.quantize(stream.features)
    assert len(frames) >= 500
    masks = [[model.step_quantized(frame) for frame in frames] for model in (micro, reference)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert len(np.unique(masks[0])) > 20  # it computed something


def test_generated_c_equals_tflm_bit_for_bit(road, stream):
    firmware, micro = open_backend("firmware", road.int8), StepModel(road.int8, "tflm")
    wanted = micro.gains(stream.features)
    np.testing.assert_array_equal(firmware.gains(stream.features), wanted)
    assert len(np.unique(wanted)) > 20


def test_quantized_step_graph_equals_the_quantized_utterance_graph(road, stream, quantized):
    step = quantized_step(core_builder(road.config.student), quantized)
    run = tf.function(lambda *values: step(list(values), training=False))
    states = [tf.zeros([int(size) for size in tensor.shape]) for tensor in step.inputs[1:]]
    masks = []
    for frame in stream.features:
        mask, *states = run(frame[None, None, None], *states)
        masks.append(mask.numpy().ravel())
    ratio_db = snr_db(_whole(quantized, stream.features), np.stack(masks))
    assert ratio_db >= floors.QAT_STEP_FLOOR_DB


def test_int8_student_is_close_to_the_fake_quantized_graph(road, stream, quantized):
    ratio_db = snr_db(
        _whole(quantized, stream.features), StepModel(road.int8).gains(stream.features)
    )
    assert ratio_db >= floors.INT8_FLOOR_DB


def test_int16_student_is_close_to_the_float_network(road, stream, pruned):
    wanted = _whole(pruned.core, stream.features)
    assert snr_db(wanted, StepModel(road.int16).gains(stream.features)) >= floors.INT16_FLOOR_DB


@pytest.mark.parametrize("block_frames", [1, 7, 256])
def test_keras_backend_on_blocks_equals_the_whole_utterance(stream, pruned, block_frames):
    backend, features = keras_backend(pruned), stream.features[:100]
    cuts = range(block_frames, len(features), block_frames)
    gains = np.concatenate([backend.gains(block) for block in np.split(features, cuts)])
    assert snr_db(_whole(pruned.core, features), gains) >= floors.KERAS_BLOCKS_FLOOR_DB


def test_streaming_enhancer_equals_the_model_on_the_whole_signal(stream, pruned):
    wanted = np.asarray(pruned(stream.noisy[None], training=False))[0]
    enhanced = StreamingEnhancer(keras_backend(pruned)).enhance(stream.noisy)
    assert snr_db(wanted, enhanced) >= floors.KERAS_BLOCKS_FLOOR_DB


def test_enhanced_audio_of_int8_is_close_to_the_float_students(road, stream, pruned):
    wanted = np.asarray(pruned(stream.noisy[None], training=False))[0]
    enhanced = StreamingEnhancer(StepBackend(road.int8, "tflm")).enhance(stream.noisy)
    assert snr_db(wanted, enhanced) >= floors.INT8_AUDIO_FLOOR_DB
