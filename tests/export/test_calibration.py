# SPDX-License-Identifier: Apache-2.0
import hashlib

import numpy as np
import pytest

from lmkd_tf.export.calibration import Calibration


def _frames(level_db=10.0, count=200):
    """Features of frames whose loudest band has the given level."""
    rng = np.random.default_rng(0)
    features = rng.uniform(-1.0, (level_db + 10.0) / 50.0, (count, 16)).astype(np.float32)
    features[7, 3] = (level_db + 10.0) / 50.0
    return features


def test_record_says_where_the_frames_come_from():
    calibration = Calibration(_frames(), seed=5, files=("one.flac",))
    digest = hashlib.sha256(_frames().tobytes()).hexdigest()
    expected = {"num_frames": 200, "seed": 5, "files": ["one.flac"], "sha256": digest}
    assert calibration.record == expected


@pytest.mark.parametrize("shape", [(200,), (99, 16), (0, 16), (2, 200, 16)])
def test_wrong_shape_or_too_few_frames_are_refused(shape):
    with pytest.raises(ValueError, match=r"at least 100 frames of shape \(T, E\)\. Received shape"):
        Calibration(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_frames_that_are_not_finite_are_refused_with_their_place(value):
    features = _frames()
    features[42, 1] = value
    with pytest.raises(ValueError, match=r"must be finite\. Received NaN or infinity in frame 42"):
        Calibration(features)


def test_silence_is_refused():
    with pytest.raises(ValueError, match=r"must reach the level of speech.*Received silence"):
        Calibration(np.full((200, 16), -1.0, np.float32))


def test_frames_that_never_reach_the_level_of_speech_are_refused():
    with pytest.raises(ValueError, match=r"Received quiet frames with at most -30 dB in a band"):
        Calibration(_frames(level_db=-30.0))
    Calibration(_frames(level_db=5.0))


def test_other_bands_than_the_network_has_are_refused():
    with pytest.raises(ValueError, match=r"Received 16, the network has 128"):
        Calibration(_frames()).check_bands(128)
