# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest
import soundfile

from lmkd_tf.cli.system_specs import describe_cost, first_targets, read_systems
from lmkd_tf.config.files import read_json
from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.firmware.footprint import TABLE
from lmkd_tf.models.builder import build_core
from lmkd_tf.models.enhancer import SpeechEnhancer
from lmkd_tf.models.presets import preset_files, preset_names


@pytest.fixture
def clips():
    speech = (0.1 * np.random.default_rng(0).standard_normal(4000)).astype(np.float32)
    return [EvaluationClip("a", speech, speech, 5.0, "hiss")]


@pytest.fixture
def folder(tmp_path, clips):
    path = tmp_path / "theirs"
    path.mkdir()
    soundfile.write(path / "a.wav", np.concatenate([np.zeros(320), clips[0].noisy]), 16000)
    return path


def _facts(systems):
    return [(system.name, system.seed, system.facts["kind"]) for system in systems]


def test_presets_files_and_folders_are_opened_under_their_names(clips, folder):
    int8 = preset_files("nano")["tflite"]
    specs = ["nano", "nano@keras", f"mine={int8}@tflite", str(folder), f"late={folder}@0"]
    systems = read_systems(specs, clips)
    assert _facts(systems) == [
        ("nano (tflm)", 0, "network"), ("nano (keras)", 0, "network"), ("mine", 0, "network"),
        ("theirs", 0, "folder"), ("late", 0, "folder")]  # fmt: skip
    assert [s.facts.get("backend") for s in systems[:3]] == ["tflm", "keras", "tflite"]
    assert [s.facts["delay_samples"] for s in systems[3:]] == [320, 0]
    assert first_targets(specs)["theirs"] == str(folder)


def test_several_targets_are_seeds_of_one_system(clips, folder):
    systems = read_systems([f"kd={folder},{folder}@0,nano"], clips)
    assert [(s.name, s.seed) for s in systems] == [("kd", 0), ("kd", 1), ("kd", 2)]


def test_presets_stands_for_all_of_them_in_every_arithmetic(clips):
    names = [system.name for system in read_systems(["presets"], clips)]
    expected = [f"{name} ({how})" for name in preset_names() for how in ("keras", "tflm")]
    expected.remove("cmgan_student (tflm)")  # it cannot stream
    assert names == expected


def test_network_that_cannot_stream_hears_whole_utterances(clips, tmp_path):
    core = build_core("nano", num_bands=64, channels=24, dilations=(1, 2))
    model = SpeechEnhancer(core)  # of no architecture that is known to stream
    model.save(tmp_path / "whole.keras")
    (system,) = read_systems([str(tmp_path / "whole.keras")], clips)
    expected = np.asarray(model(clips[0].noisy[None], training=False))[0]
    np.testing.assert_allclose(system.enhance(clips[0]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["nano", "nano"], r"name of its own.*Received nano \(tflm\) twice"),
        (["noisy=nano"], "Received noisy twice"),
        (["nano@gpu"], r"one of keras, tflite, tflm, firmware. Received nano@gpu"),
        (["huge"], "must ship with the package. Received 'huge'"),
    ],
)
def test_specs_that_cannot_be_used_are_refused(clips, specs, message):
    with pytest.raises(ValueError, match=message):
        read_systems(specs, clips)


def test_delay_that_is_no_number_is_refused(clips, folder):
    with pytest.raises(ValueError, match=r"whole number of samples.*Received .*@soon"):
        read_systems([f"{folder}@soon"], clips)


def test_cost_of_a_network_is_that_of_its_file(folder):
    path = preset_files("nano")["tflite"]
    costs = [describe_cost(target) for target in ("nano", str(path), "base@keras")]
    num_bytes = [cost["bytes"] for cost in costs if cost]
    assert num_bytes == [path.stat().st_size, path.stat().st_size, 4 * 97896]
    measured = read_json(TABLE)["m4f"]["instructions_per_hop"]["total"]
    assert [c.get("instructions_per_hop") for c in costs if c] == [measured, measured, None]
    assert describe_cost(str(folder)) is None


@pytest.mark.parametrize("parent", ["run@home", "lr=0.1", "a,b", "lr=0.1,b@2"])
def test_paths_may_hold_the_signs_of_the_syntax(clips, folder, tmp_path, parent):
    (tmp_path / parent).mkdir()
    theirs = folder.rename(tmp_path / parent / "theirs")
    net = tmp_path / parent / "net.tflite"
    for source in preset_files("nano")["tflite"].parent.glob("nano_int8*"):
        shutil.copy(source, net.with_name(source.name.replace("nano_int8", "net")))
    specs = [str(theirs), f"late={theirs}@0", str(net), f"{net}@tflite", f"mine={net}"]
    systems = read_systems(specs, clips)
    names = ["theirs", "late", "net (tflm)", "net (tflite)", "mine"]
    assert [system.name for system in systems] == names
    assert [s.facts.get("delay_samples") for s in systems[:2]] == [320, 0]
    assert list(first_targets(specs).values())[2:] == [str(net), f"{net}@tflite", str(net)]
    assert (describe_cost(f"{net}@tflite") or {})["bytes"] == net.stat().st_size


def test_folder_whose_name_ends_like_a_delay_is_that_folder(clips, folder, tmp_path):
    (system,) = read_systems([str(folder.rename(tmp_path / "theirs@0"))], clips)
    assert (system.name, system.facts["delay_samples"]) == ("theirs@0", 320)


def test_preset_wins_over_a_folder_of_its_name(clips, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "nano@keras")
    folder.rename(tmp_path / "nano")
    systems = read_systems(["nano", "nano@keras", "./nano"], clips)
    assert [(s.name, s.facts["kind"]) for s in systems] == [
        ("nano (tflm)", "network"), ("nano (keras)", "network"), ("nano", "folder")]  # fmt: skip
    assert describe_cost("nano") is not None
    assert describe_cost("./nano") is None
