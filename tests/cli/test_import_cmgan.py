# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.cli.import_cmgan import main
from lmkd_tf.models.cmgan_weights import convert_state_dict
from lmkd_tf.models.enhancer import load_enhancer
from tests.models.cmgan_by_hand import random_state_dict


def test_program_writes_a_model_with_the_weights(tmp_path, capsys):
    tensors = random_state_dict()
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **tensors)
    main(["import_cmgan", str(tmp_path / "weights.npz"), str(tmp_path / "cmgan.keras")])
    noisy = (0.1 * np.random.default_rng(0).normal(size=(1, 200))).astype(np.float32)
    loaded = load_enhancer(tmp_path / "cmgan.keras")
    np.testing.assert_array_equal(loaded(noisy), convert_state_dict(tensors)(noisy))
    assert "cmgan.keras: " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"must be a new file\. Received .*cmgan\.keras, which ex"):
        main(["import_cmgan", str(tmp_path / "weights.npz"), str(tmp_path / "cmgan.keras")])


def test_weights_of_another_network_leave_nothing(tmp_path):
    np.savez(tmp_path / "other.npz", kernel=np.zeros(3))
    with pytest.raises(ValueError, match="names must be those of CMGAN's generator"):
        main(["import_cmgan", str(tmp_path / "other.npz"), str(tmp_path / "cmgan.keras")])
    assert [path.name for path in tmp_path.iterdir()] == ["other.npz"]


@pytest.mark.parametrize("arguments", [[], ["a.npz"], ["a.npz", "b.h5"]])
def test_program_needs_weights_and_a_keras_file(arguments):
    with pytest.raises(ValueError, match=r"needs WEIGHTS and MODEL\.keras\. Received"):
        main(["import_cmgan", *arguments])
