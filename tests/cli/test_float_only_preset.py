# SPDX-License-Identifier: Apache-2.0
"""What programs do with a preset that is float only and sees whole utterances."""

import numpy as np
import pytest

from lmkd_tf.cli.enhance import choose_backend
from lmkd_tf.cli.ledger import preset_config
from lmkd_tf.cli.preset import write_weights
from lmkd_tf.cli.system_specs import describe_cost, read_systems
from lmkd_tf.config.files import sha256_of, write_json
from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.models import build, from_preset
from lmkd_tf.models import presets as preset_module

SIZE = {"channels": 4, "num_blocks": 1, "frame": (16, 4), "max_distances": (4, 10)}


@pytest.fixture
def model(seeded, tmp_path, monkeypatch):
    """A small CMGAN; it is the only preset, named `whole`."""
    model = build("cmgan_student", **SIZE)
    write_weights(model, tmp_path / "whole.npz")
    entry = {"architecture": "cmgan_student", "size": SIZE, "stft": {}}
    digest = sha256_of(tmp_path / "whole.npz")
    write_json(tmp_path / "whole.json", {**entry, "weights_sha256": digest})
    monkeypatch.setattr(preset_module, "_folder", lambda: tmp_path)
    return model


def _noisy():
    return (0.1 * np.random.default_rng(0).standard_normal(400)).astype(np.float32)


def test_it_is_loaded_with_its_weights_as_float16(model):
    loaded = from_preset("whole")
    for found, stored in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, stored.astype(np.float16))


def test_evaluation_hears_whole_utterances(model):
    clip = EvaluationClip("a", _noisy(), _noisy(), 5.0, "hiss")
    (system,) = read_systems(["whole"], [clip])
    assert system.name == "whole (keras)"
    expected = np.asarray(from_preset("whole")(_noisy()[None], training=False))[0]
    np.testing.assert_allclose(system.enhance(clip), expected, atol=1e-6)
    cost = describe_cost("whole")
    assert cost is not None
    # Without mean and variance of the 8 channels of two batch normalizations.
    assert cost["parameters"] == model.core.count_params() - 2 * 2 * 8
    assert cost["macs_per_hop"] is None


@pytest.mark.parametrize("backend", [None, "tflite", "tflm", "firmware"])
def test_quantized_back_ends_are_refused_with_what_can_run_it(model, backend):
    message = r"Received the preset 'whole', which is float only\. It cannot stream: .*whole@keras"
    with pytest.raises(ValueError, match=message):
        choose_backend("whole", None, backend)


def test_streaming_is_refused(model):
    message = r"must be causal\. Received a CMGAN, which sees whole utterances\. Call it on whole"
    with pytest.raises(ValueError, match=message):
        choose_backend("whole", None, "keras")()


def test_all_presets_leave_out_what_is_not_quantized(model):
    assert [system.name for system in read_systems(["presets"], [])] == ["whole (keras)"]


def test_quantized_back_end_is_refused(model):
    with pytest.raises(ValueError, match="float only"):
        read_systems(["whole@tflm"], [])


def test_ledger_is_refused(model):
    with pytest.raises(ValueError, match=r"ships as int8\. Received 'whole', which ships in float"):
        preset_config("whole")
