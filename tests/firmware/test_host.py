# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest
import soundfile

from lmkd_tf.config.files import read_json, write_json
from lmkd_tf.dsp.pcm import int16_to_float
from lmkd_tf.evaluate.backends import open_backend
from lmkd_tf.evaluate.parity import compare_backends, snr_db
from lmkd_tf.evaluate.streaming import StreamingEnhancer
from lmkd_tf.export.manifest import manifest_path
from lmkd_tf.firmware import host
from lmkd_tf.firmware.vectors import golden_signal
from tests.parity import floors


@pytest.fixture(scope="session")
def model(project_root):
    return project_root / "lmkd_tf" / "presets" / "nano_int8.tflite"


@pytest.fixture(scope="session")
def firmware(model, require_tool):
    require_tool("gcc", "gcc")
    return open_backend("firmware", model)


@pytest.fixture(scope="session", params=["made", "recorded"])
def signal(request):
    if request.param == "made":
        return int16_to_float(golden_signal(250, 256))
    folder = request.getfixturevalue("shared_data") / "benchmark" / "vbdemand96" / "noisy"
    files = sorted(folder.glob("*.flac"))[:6]
    return np.concatenate([soundfile.read(file, dtype="float32")[0] for file in files])


def test_network_of_the_firmware_is_that_of_tflm_bit_for_bit(firmware, model, signal):
    parity = compare_backends(open_backend("tflm", model), firmware, signal)
    assert parity.num_frames >= 250
    assert parity.is_identical


def test_audio_of_the_firmware_is_that_of_python_to_the_floor(firmware, model, signal):
    wanted = StreamingEnhancer(open_backend("tflm", model)).enhance(signal)
    enhanced = StreamingEnhancer(firmware).enhance(signal)
    assert snr_db(wanted, enhanced) >= floors.FIRMWARE_AUDIO_FLOOR_DB


def test_transforms_of_the_firmware_are_those_of_python_where_no_code_differs(firmware, model):
    signal = int16_to_float(golden_signal(16, 256))  # the golden vectors: every code is the same
    wanted = StreamingEnhancer(open_backend("tflm", model)).enhance(signal)
    enhanced = StreamingEnhancer(firmware).enhance(signal)
    assert snr_db(wanted, enhanced) >= floors.FIRMWARE_FLOAT_FLOOR_DB


@pytest.mark.parametrize("settings", [{"attenuation_limit_db": 6.0}, {"is_bypassed": True}])
def test_settings_of_the_firmware_are_those_of_python(firmware, model, settings):
    signal = int16_to_float(golden_signal(16, 256))
    wanted = StreamingEnhancer(open_backend("tflm", model), **settings).enhance(signal)
    enhanced = StreamingEnhancer(firmware, **settings).enhance(signal)
    assert snr_db(wanted, enhanced) >= floors.FIRMWARE_FLOAT_FLOOR_DB
    plain = StreamingEnhancer(firmware).enhance(signal)  # the settings do not outlive the enhancer
    assert snr_db(plain, enhanced) < 30.0


def test_settings_of_the_firmware_change_at_the_hop_where_those_of_python_do(firmware, model):
    signal = int16_to_float(golden_signal(16, 256))
    enhancers = [StreamingEnhancer(open_backend("tflm", model)), StreamingEnhancer(firmware)]
    parts = []
    for enhancer in enhancers:
        first = enhancer.feed(signal[:1100])
        enhancer.set_attenuation_limit(3.0)
        second = enhancer.feed(signal[1100:2400])
        enhancer.set_bypass(True)
        parts.append(np.concatenate([first, second, enhancer.feed(signal[2400:])]))
        enhancer.set_bypass(False)
    assert snr_db(*parts) >= floors.FIRMWARE_FLOAT_FLOOR_DB


def test_blocks_of_any_length_give_the_same_audio(firmware, signal):
    whole = StreamingEnhancer(firmware).enhance(signal[:20000])
    enhancer = StreamingEnhancer(firmware)
    parts = [enhancer.feed(part) for part in np.split(signal[:20000], [1, 38, 700, 5000])]
    np.testing.assert_array_equal(np.concatenate([*parts, enhancer.flush()]), whole)


def test_two_processes_do_not_share_their_past(model, firmware):
    other = open_backend("firmware", model)
    loud, quiet = np.full((6, 144), 1.0, np.float32), np.full((6, 144), -1.0, np.float32)
    firmware.reset()
    alone = firmware.gains(quiet)
    firmware.reset()
    other.gains(loud)
    np.testing.assert_array_equal(firmware.gains(quiet), alone)


def test_features_of_another_network_are_refused(firmware):
    with pytest.raises(ValueError, match=r"bands of the model.*\(6, 128\).*\(T, 144\)"):
        firmware.gains(np.zeros((6, 128), np.float32))


def test_more_frames_than_a_request_holds_are_split(firmware):
    features = np.random.default_rng(0).normal(0, 0.4, (600, 144)).astype(np.float32)
    firmware.reset()
    whole = firmware.gains(features)
    firmware.reset()
    parts = [firmware.gains(part) for part in np.split(features, [7, 300])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_process_that_ended_is_reported(model):
    firmware = host.HostFirmware(model.with_name("nano_int8.manifest.json"))
    firmware.close()
    with pytest.raises(RuntimeError, match=r"must answer every request\. Received exit status 0"):
        firmware.process_hops(np.zeros((1, 256), np.float32))


def test_sample_that_is_not_finite_is_reported(model):
    firmware = host.HostFirmware(model.with_name("nano_int8.manifest.json"))
    with pytest.raises(RuntimeError, match=r"status -7; see lmkd/status\.h"):
        firmware.process_hops(np.full((1, 256), np.nan, np.float32))


@pytest.fixture
def fresh_build(monkeypatch):
    host._compiled.cache_clear()
    yield monkeypatch
    host._compiled.cache_clear()


def test_model_exported_to_the_same_path_again_is_built_again(
    fresh_build, shipped_export, model, require_tool
):
    require_tool("gcc", "gcc")
    fresh_build.setattr(host, "_OPTIONS", ("-std=c11", "-O0"))
    first = host.build_host(shipped_export)
    assert host.build_host(shipped_export) == first
    other = model.with_name("small_int8.tflite")
    shutil.copy(other, shipped_export.with_name("nano_int8.tflite"))
    manifest = read_json(manifest_path(other))
    manifest["model"]["file"] = "nano_int8.tflite"
    write_json(shipped_export, manifest)
    second = host.build_host(shipped_export)
    assert second.read_bytes() != first.read_bytes()


def test_installation_without_the_sources_is_reported(fresh_build, shipped_export, tmp_path):
    fresh_build.setattr(host, "_FIRMWARE", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"needs the folder microcontroller/"):
        host.build_host(shipped_export)


def test_machine_without_a_compiler_is_reported(fresh_build, shipped_export):
    fresh_build.setattr(host.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"needs a C compiler.*Install gcc"):
        host.build_host(shipped_export)


def test_firmware_that_does_not_compile_is_reported(fresh_build, shipped_export, require_tool):
    require_tool("gcc", "gcc")
    fresh_build.setattr(host, "_OPTIONS", ("-std=c11", "-Werror", "-DLMKD_HOP_LENGTH=7"))
    with pytest.raises(RuntimeError, match=r"(?s)must compile\. Received from .*LMKD_HOP_LENGTH"):
        host.build_host(shipped_export)
