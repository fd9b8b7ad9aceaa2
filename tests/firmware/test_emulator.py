# SPDX-License-Identifier: Apache-2.0
import struct

import numpy as np
import pytest
import soundfile

from lmkd_tf.evaluate.backends import open_backend
from lmkd_tf.evaluate.enhance import enhance_file
from lmkd_tf.firmware import emulator
from lmkd_tf.firmware.vectors import golden_signal

RATE_HZ = 16000


@pytest.fixture(scope="session", params=["made", "recorded"])
def recording(request, tmp_path_factory):
    """A noisy wav file of an odd length."""
    if request.param == "made":
        samples = golden_signal(150, 256)[:-77]
    else:
        folder = request.getfixturevalue("shared_data") / "benchmark" / "vbdemand96" / "noisy"
        files = sorted(folder.glob("*.flac"))[:4]
        parts = [soundfile.read(file, dtype="int16")[0] for file in files]
        samples = np.concatenate(parts)[:-77]
    path = tmp_path_factory.mktemp(request.param) / "noisy.wav"
    soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def enhanced(recording, project_root, require_tool):
    """What `lmkd-enhance --backend=firmware` makes of the recording."""
    require_tool("gcc", "gcc")
    model = project_root / "lmkd_tf" / "presets" / "nano_int8.tflite"
    target = recording.with_name("enhanced.wav")
    enhance_file(recording, target, lambda: open_backend("firmware", model))
    return target


@pytest.mark.parametrize("core", emulator.CORES)
def test_wav_through_an_emulated_core_is_that_of_the_host_bit_for_bit(
    core, recording, enhanced, tmp_path, require_tool
):
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    require_tool("qemu-system-arm", "qemu-system-arm")
    folder = emulator.build(f"cortex-{core}", targets=["wav_filter"])
    target = tmp_path / "out.wav"
    emulator.emulate(folder, "wav_filter", [str(recording), str(target)])
    found, wanted = (soundfile.read(path, dtype="int16")[0] for path in (target, enhanced))
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(wanted).max() > 50
    assert len(wanted) == soundfile.info(recording).frames


def test_counts_are_the_same_in_every_run(tmp_path, require_tool):
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    require_tool("qemu-system-arm", "qemu-system-arm")
    folder = emulator.build("cortex-m4f", targets=["benchmark"])
    counter = emulator.build_counter(tmp_path)
    counts = [emulator.emulate(folder, "benchmark", ["5"], counter)[1] for _ in range(2)]
    assert counts[0] == counts[1]
    assert counts[0]["lmkd_process_hop"] > 0


def test_program_that_fails_in_the_emulator_is_reported(tmp_path, require_tool):
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    require_tool("qemu-system-arm", "qemu-system-arm")
    folder = emulator.build("cortex-m4f", targets=["wav_filter"])
    with pytest.raises(RuntimeError, match=r"status 1:\nwav_filter: The input must exist"):
        emulator.emulate(folder, "wav_filter", [str(tmp_path / "none.wav"), str(tmp_path / "o")])


def test_unknown_preset_is_reported(require_tool):
    require_tool("cmake", "cmake")
    with pytest.raises(RuntimeError, match=r"cmake must end with status 0\. Received status 1"):
        emulator.build("cortex-m1")


def test_size_of_a_chunk_that_leads_back_ends_with_a_message(tmp_path, require_tool, monkeypatch):
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    require_tool("qemu-system-arm", "qemu-system-arm")
    # To a long of 32 bits this size is -8, the length of the head of a chunk.
    chunk = b"LIST" + struct.pack("<I", 2**32 - 8) + bytes(64)
    (tmp_path / "in.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WAVE" + chunk)
    folder = emulator.build("cortex-m4f", targets=["wav_filter"])
    monkeypatch.setattr(emulator, "_RUN_SECONDS", 30)
    with pytest.raises(RuntimeError, match="must be a whole wav file"):
        emulator.emulate(folder, "wav_filter", [str(tmp_path / "in.wav"), str(tmp_path / "o.wav")])
