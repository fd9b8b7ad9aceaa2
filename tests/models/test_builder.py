# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.metrics.cost import count_parameters
from lmkd_tf.models.builder import ARCHITECTURES, build, build_core


def parameters_by_hand(bands, channels, blocks):
    # a batch norm has gamma and beta; kernels have no bias but the mask's
    encoder = bands * channels + 2 * channels
    block = 3 * channels + 2 * channels + channels * channels + 2 * channels
    return encoder + blocks * block + channels * bands + bands


def test_plain_network_has_the_parameters_of_the_formula():
    assert count_parameters(build("tcn")) == parameters_by_hand(128, 96, 8)


def test_size_arguments_replace_the_default_size():
    core = build_core("tcn", num_bands=12, channels=8, dilations=(1, 2, 4))
    assert count_parameters(core) == parameters_by_hand(12, 8, 3)
    assert core.input_shape == (None, None, 1, 12)


def test_build_hands_on_the_frame_of_the_transform():
    frame = StftConfig(window_length=64, hop_length=32, fft_length=64)
    model = build("tcn", stft=frame, num_bands=16, channels=4, dilations=(1,))
    assert model.stft == frame
    assert model(np.zeros((1, 100), np.float32)).shape == (1, 100)


def test_unknown_architecture_lists_near_names():
    message = r"Unknown architecture\. Received 'nanno'\. Use one of: nano\."
    with pytest.raises(ValueError, match=message):
        build("nanno")


def test_architecture_near_to_none_lists_all():
    with pytest.raises(ValueError, match=f"Use one of: {', '.join(ARCHITECTURES)}"):
        build("transformer")


def test_unknown_size_lists_near_names():
    message = r"Unknown size argument\. Received 'chanels'\. Use one of: channels"
    with pytest.raises(ValueError, match=message):
        build("tcn", chanels=8)
