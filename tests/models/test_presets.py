# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from lmkd_tf.cli.enhance import DEFAULT_PRESET
from lmkd_tf.config.files import read_json, sha256_of
from lmkd_tf.evaluate.cost import quantized_cost
from lmkd_tf.metrics.cost import count_parameters
from lmkd_tf.metrics.si_sdr import si_sdr_db
from lmkd_tf.models import build, from_preset
from lmkd_tf.models.presets import preset_files, preset_names

STUDENTS = ["base", "nano", "small"]
NAMES = ["base", "cmgan_student", "nano", "small"]


def test_the_students_their_teacher_and_the_one_of_the_paper_ship_with_the_package():
    assert preset_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_preset_is_a_network_of_its_architecture_and_frame(name):
    record = read_json(preset_files(name)["record"])
    model, untrained = from_preset(name), build(record["architecture"], **record["size"])
    assert [w.shape for w in model.core.weights] == [w.shape for w in untrained.core.weights]
    assert dataclasses.asdict(model.stft) == record["stft"]


@pytest.mark.parametrize("name", NAMES)
def test_preset_weights_are_those_of_the_record(name):
    files = preset_files(name)
    assert sha256_of(files["weights"]) == read_json(files["record"])["weights_sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_preset_weights_are_stored_in_half_precision_and_are_finite(name):
    with np.load(preset_files(name)["weights"]) as stored:
        for key in stored.files:
            assert stored[key].dtype == np.float16
            assert np.all(np.isfinite(stored[key]))


@pytest.mark.parametrize("name", NAMES)
def test_preset_removes_hiss_from_a_voiced_sound(name):
    time = np.arange(32000) / 16000.0
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None)
    voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 12)) * syllables
    speech = (0.1 * voice).astype(np.float32)
    hiss = 0.05 * np.random.default_rng(0).normal(size=32000).astype(np.float32)
    enhanced = np.asarray(from_preset(name)((speech + hiss)[None]))[0]
    assert si_sdr_db(speech, enhanced) > si_sdr_db(speech, speech + hiss) + 1.0


@pytest.mark.parametrize("name", STUDENTS)
def test_students_ship_for_devices(name):
    assert {"tflite", "manifest"} <= set(preset_files(name))
    assert all(path.is_file() for path in preset_files(name).values())


# Limits of the devices they are for: MACs per hop, parameters, bytes of arena.
LIMITS: dict[str, tuple[int, int, int | None]] = {
    "nano": (200_000, 120_000, 16_384),
    "small": (1_300_000, 50_000, 65_536),
    "base": (4_000_000, 100_000, None),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_students_fit_the_devices_they_are_for(name):
    cost = quantized_cost(preset_files(name)["tflite"])
    macs, count, arena_bytes = LIMITS[name]
    assert cost["macs_per_hop"] <= macs
    assert count_parameters(from_preset(name).core) <= count
    assert arena_bytes is None or cost["arena_bytes"] <= arena_bytes


@pytest.mark.parametrize("name", STUDENTS)
def test_quantization_costs_what_nobody_hears(name):
    for scores in read_json(preset_files(name)["record"])["scores"].values():
        whole, int8 = (scores["systems"][kind]["all"] for kind in ("float", "int8 (TFLM)"))
        for metric, limit in (("pesq_wb", 0.02), ("dnsmos_ovrl", 0.01)):
            assert int8[metric][0] >= whole[metric][0] - limit


def test_the_default_is_the_best_student_in_int8():
    def pesq(name):
        scores = read_json(preset_files(name)["record"])["scores"]["test"]["systems"]
        return scores["int8 (TFLM)"]["all"]["pesq_wb"][0]

    assert max(STUDENTS, key=pesq) == DEFAULT_PRESET


def test_presets_together_stay_below_eight_megabytes():
    files = [path for name in NAMES for path in preset_files(name).values()]
    assert sum(path.stat().st_size for path in files) < 8e6


def test_unknown_preset_lists_the_names():
    message = rf"must ship with the package\. Received 'huge'\. Use one of: {', '.join(NAMES)}\."
    with pytest.raises(ValueError, match=message):
        from_preset("huge")
