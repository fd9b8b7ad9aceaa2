# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import band_features
from lmkd_tf.dsp.hops import HopTransforms
from lmkd_tf.dsp.mask import apply_band_mask
from lmkd_tf.dsp.stft import analyze_frames, synthesize_frames

FRAMES = [StftConfig(), StftConfig(window_length=64, hop_length=32, fft_length=128)]


@pytest.fixture(params=[(FRAMES[0], 128), (FRAMES[0], 257), (FRAMES[1], 20)])
def case(request):
    config, num_bands = request.param
    rng = np.random.default_rng(0)
    frames = rng.normal(0, 0.1, (9, config.window_length)).astype(np.float32)
    gains = rng.uniform(0, 1, (9, num_bands)).astype(np.float32)
    return config, HopTransforms(config, num_bands), frames, gains, erb_matrix(config, num_bands)


def test_transforms_are_those_that_train_the_networks(case):
    config, transforms, frames, gains, matrix = case
    spectrum = transforms.analyze(frames)
    expected = analyze_frames(frames[None], config)
    pair = np.stack([spectrum.real, spectrum.imag], axis=-1)
    np.testing.assert_allclose(pair, ops.convert_to_numpy(expected)[0], atol=2e-5)
    features = ops.convert_to_numpy(band_features(expected, matrix))[0]
    np.testing.assert_allclose(transforms.features(spectrum), features, atol=1e-5)
    masked = apply_band_mask(expected, gains[None], matrix)
    found = transforms.synthesize(transforms.apply(gains, spectrum))
    wanted = ops.convert_to_numpy(synthesize_frames(masked, config))[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_frame_gives_the_same_bits_alone_and_among_others(case):
    _, transforms, frames, gains, _ = case

    def run(part):
        spectrum = transforms.analyze(frames[part])
        masked = transforms.apply(gains[part], spectrum)
        return transforms.features(spectrum), transforms.synthesize(masked)

    together = run(slice(None))
    for index in range(len(frames)):
        for one, all_frames in zip(run(slice(index, index + 1)), together, strict=True):
            np.testing.assert_array_equal(one[0], all_frames[index])
