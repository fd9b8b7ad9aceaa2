# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lmkd_tf.cli.bench_recurrence import Study, _add_noise
from lmkd_tf.compress.recurrence import recurrences_of
from lmkd_tf.config.schema import DistillConfig, ModelConfig, TrainConfig
from lmkd_tf.models import build

SIZE: dict[str, Any] = {"num_bands": 16, "channels": 8}


@pytest.fixture
def network(seeded):
    network, rng = build("gru", **SIZE), np.random.default_rng(seeded)
    weights = [rng.normal(0, 0.3, w.shape) if w.ndim > 1 else w for w in network.core.get_weights()]
    network.core.set_weights(weights)
    return network


def test_noise_on_the_state_has_the_width_of_one_int8_step(network):
    layer = network.core.get_layer("gru")
    _add_noise(network.core)
    noise = np.asarray(layer.round_state(np.zeros((100, 1, 1, 8), np.float32)))
    assert -0.5 <= noise.min() * 128.0 < -0.45 < 0.45 < noise.max() * 128.0 <= 0.5
    features = np.random.default_rng(0).normal(size=(1, 20, 1, 16)).astype(np.float32)
    first, second = (np.asarray(network.core(features)) for _ in range(2))
    assert 0.0 < np.abs(first - second).max() < 0.1


@pytest.fixture
def study(road, tmp_path):
    train = TrainConfig(epochs=1, steps_per_epoch=2, batch_size=4)
    recurrent = ModelConfig("gru", **SIZE)
    config = replace(
        road.config,
        **{"network": recurrent, "student": recurrent, "network_training": train},
        distill=DistillConfig("no_kd", (("encoder", "block_0", "block_0"),)),
        compress=replace(road.config.compress, quantization=train),
    )
    return Study(config, road.corpus, tmp_path)


def test_values_asked_for_have_16_bits_and_the_state_a_finer_step(study, network):
    found = [study.fake_quantized(network, values) for values in ((), ("state",))]
    coarse, fine = (dict(recurrences_of(core))["gru"] for core in found)
    assert set(coarse.num_bits.values()) == {8}
    assert {name for name, count in fine.num_bits.items() if count == 16} == {"state"}
    highest = [float(layer.limits_of("state")[1]) for layer in (coarse, fine)]
    assert highest == [127.0 / 128.0, 1.0 - 2.0**-15]


@pytest.fixture
def trained(monkeypatch):
    """Names of what was trained; nothing is, in fact."""
    names = []
    monkeypatch.setattr(Study, "_fit", lambda self, name, network, train: names.append(name))
    return names


def test_a_finished_training_is_kept_and_one_of_other_settings_is_not(study, trained):
    train = study._config.network_training
    study._float("float")
    study._float("float")
    assert trained == ["float"]
    longer = replace(train, steps_per_epoch=3)
    study._config = replace(study._config, network_training=longer)
    study._float("float")
    study._config = replace(study._config, network=ModelConfig("gru", num_bands=16, channels=4))
    study._float("float")
    study._audio.corpus = replace(study._audio.corpus, noise=study._audio.corpus.noise[1:])
    study._float("float")
    assert trained == ["float"] * 4


def test_another_tuning_keeps_the_start_and_trains_on_again(study, trained):
    name = "trained on in float"
    study._float(name)
    longer = replace(study._config.compress.quantization, steps_per_epoch=3)
    compress = replace(study._config.compress, quantization=longer)
    study._config = replace(study._config, compress=compress)
    study._float(name)
    assert trained == ["float", name, name]


def test_an_interrupted_training_leaves_no_settings_behind(study, trained, tmp_path, monkeypatch):
    study._float("float")
    study._config = replace(study._config, seed=1)
    monkeypatch.setattr(Study, "_trained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        study._float("float")
    assert [path.name for path in tmp_path.iterdir()] == ["float.keras"]
    assert trained == ["float"]


@pytest.mark.slow
def test_every_way_is_trained_exported_and_measured(study, tmp_path):
    steps = study.measure(tmp_path, 2)
    names = [step.name for step in steps]
    assert len(names) == len(set(names)) == 15
    for step in steps:
        assert 1.0 <= step.scores["pesq_wb"] <= 4.7
        assert (step.before is None) == (step.snr_db is None)
        assert step.before is None or step.snr_db > 20.0
