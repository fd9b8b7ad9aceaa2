# SPDX-License-Identifier: Apache-2.0
import importlib.util
import pickle
import sys

import numpy as np
import pytest

from lmkd_tf.models.cmgan_weights import convert_state_dict, load_cmgan, read_state_dict
from tests.models.cmgan_by_hand import random_state_dict


@pytest.fixture
def tensors():
    return random_state_dict()


def test_state_dict_in_an_npz_file_becomes_a_network_of_its_size(tensors, tmp_path):
    tensors_and_counter = {**tensors, "TSCB_1.time_conformer.conv.net.5.num_batches_tracked": [7]}
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **tensors_and_counter)
    model = load_cmgan(tmp_path / "weights.npz")
    assert (model.size["channels"], model.size["num_blocks"]) == (4, 1)
    assert tuple(model.size["max_distances"]) == (4, 10)
    # Every number of the file is in the network once.
    stored = np.sort(np.concatenate([value.ravel() for value in tensors.values()]))
    held = np.sort(np.concatenate([value.ravel() for value in model.core.get_weights()]))
    held = held[np.isin(held, stored)]  # Keras keeps counters of its dropouts beside them
    np.testing.assert_array_equal(held, stored)


def test_missing_and_unknown_names_are_listed(tensors):
    tensors["TSCB_1.odd.weight"] = tensors.pop("complex_decoder.conv.bias")
    message = r"without \['complex_decoder\.conv\.bias'\] \(1 missing\) and with \['TSCB_1\.odd"
    with pytest.raises(ValueError, match=message):
        convert_state_dict(tensors)


def test_state_dict_of_another_network_is_refused(tensors):
    with pytest.raises(ValueError, match=r"names must be those of CMGAN's generator.*4 missing"):
        convert_state_dict({"layers.0.weight": np.zeros((2, 2))})


def test_tensor_of_another_shape_is_named(tensors):
    tensors["TSCB_1.freq_conformer.attn.fn.to_q.weight"] = np.zeros((4, 5), np.float32)
    message = r"must have the shape.*Received \[\(4, 5\).*to_q\.weight.*not \(4, 4\)"
    with pytest.raises(ValueError, match=message):
        convert_state_dict(tensors)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz, which does not exist"):
        load_cmgan(tmp_path / "gone.npz")


class _Bomb:
    def __reduce__(self):
        return sys.exit, ("this must never run",)


def test_code_in_an_npz_file_is_not_run(tmp_path):
    np.savez(tmp_path / "bomb.npz", bomb=np.array([_Bomb()], object))
    with pytest.raises(ValueError, match=r"named tensors and nothing else\. .*bomb\.npz"):
        read_state_dict(tmp_path / "bomb.npz")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch, absent here")
def test_code_in_a_file_of_pytorch_is_not_run(tmp_path):
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ValueError, match=r"named tensors and nothing else\. .*bomb\.pt"):
        read_state_dict(tmp_path / "bomb.pt")


def test_file_of_pytorch_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "ckpt").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"Received .*ckpt and an import error.*Install torch"):
        load_cmgan(tmp_path / "ckpt")
