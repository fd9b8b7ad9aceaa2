# SPDX-License-Identifier: Apache-2.0
import functools

import numpy as np
import pytest

from lmkd_tf.compress.twin import make_step_twin
from lmkd_tf.export.convert import _calibration_samples
from lmkd_tf.models.builder import build_core


def test_calibration_feeds_every_input_by_name_and_carries_the_state(seeded):
    build = functools.partial(build_core, "tcn", num_bands=12, channels=8, dilations=(1, 2))
    core = build()
    step = make_step_twin(build, core)
    frames = np.random.default_rng(seeded).normal(0, 0.5, (6, 12)).astype(np.float32)
    samples = list(_calibration_samples(step, frames))
    assert len(samples) == 6
    assert set(samples[0]) == {"features", "state_0", "state_1"}
    assert not samples[0]["state_0"].any()
    np.testing.assert_array_equal(samples[3]["features"].ravel(), frames[3])
    # state_0 holds what the first block got in the two frames before.
    import keras

    block_0 = keras.Model(core.inputs[0], core.get_layer("block_0").output)
    past = np.asarray(block_0(frames[None, :, None], training=False))[0]
    np.testing.assert_allclose(samples[3]["state_0"][0], past[1:3], atol=1e-6)


def test_request_for_an_unknown_type_is_refused(tmp_path):
    from lmkd_tf.config.files import write_json
    from lmkd_tf.export.convert import main

    size = {"num_bands": 12, "channels": 8, "dilations": [1, 2]}
    weights = build_core("tcn", **size).get_weights()
    np.savez(tmp_path / "weights.npz", **{str(i): w for i, w in enumerate(weights)})
    np.save(tmp_path / "frames.npy", np.zeros((20, 12), np.float32))
    request = {"ranges": "calibrated", "dtype": "int4", "architecture": "tcn", "size": size}
    files = {"weights": "weights.npz", "calibration": "frames.npy", "output": "out.tflite"}
    request |= {name: str(tmp_path / path) for name, path in files.items()}
    write_json(tmp_path / "request.json", request)
    with pytest.raises(KeyError, match="int4"):
        main(str(tmp_path / "request.json"))
    assert not (tmp_path / "out.tflite").exists()


def test_request_for_an_unknown_way_is_refused(tmp_path):
    from lmkd_tf.config.files import write_json
    from lmkd_tf.export.convert import main

    write_json(tmp_path / "request.json", {"ranges": "int4", "architecture": "tcn", "size": {}})
    with pytest.raises(KeyError, match="int4"):
        main(str(tmp_path / "request.json"))
