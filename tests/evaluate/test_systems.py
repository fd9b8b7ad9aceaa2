# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest
import soundfile
import soxr

from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.evaluate.streaming import StreamingEnhancer
from lmkd_tf.evaluate.systems import folder_system, network_system, noisy_system
from lmkd_tf.firmware import host


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    made = []
    for name in "abc":
        speech = (0.1 * rng.standard_normal(16000)).astype(np.float32)
        speech = np.convolve(speech, np.ones(8) / 8, "same").astype(np.float32)  # below 2 kHz
        noise = (0.02 * rng.standard_normal(16000)).astype(np.float32)
        made.append(EvaluationClip(name, speech + noise, speech, 5.0, "hiss"))
    return made


def _write(folder, clips, change=lambda signal: signal, rate_hz=16000, suffix=".wav"):
    folder.mkdir()
    for clip in clips:
        soundfile.write(folder / f"{clip.name}{suffix}", change(clip.noisy), rate_hz)
    return folder


def test_noisy_system_changes_nothing(clips):
    assert noisy_system().enhance(clips[0]) is clips[0].noisy


def test_network_forgets_a_file_before_the_next_one(clips, memory_backend, tmp_path):
    (tmp_path / "net").write_bytes(b"1")
    enhancer = StreamingEnhancer(memory_backend)
    system = network_system("n", lambda: enhancer.enhance, [tmp_path / "net"], backend="x")
    alone = system.enhance(clips[1])
    system.enhance(clips[0])
    np.testing.assert_array_equal(system.enhance(clips[1]), alone)


def test_network_is_opened_when_it_is_needed_and_identified_by_its_file(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for path in files:
        path.write_bytes(path.name.encode())

    def fail():
        raise AssertionError

    first, second = (network_system("n", fail, [path], backend="x") for path in files)
    assert first.facts != second.facts
    with pytest.raises(FileNotFoundError, match=r"must be a file. Received .*none"):
        network_system("n", fail, [tmp_path / "none"], backend="x")


@pytest.mark.parametrize("changed", ["src/fft.c", "src/nn_arithmetic.h", "platform/host/pipe.c"])
def test_firmware_is_identified_by_its_sources_too(tmp_path, monkeypatch, changed):
    copy = tmp_path / "microcontroller"
    for name in ("include", "src", "platform/host"):
        shutil.copytree(host._FIRMWARE / name, copy / name)
    monkeypatch.setattr(host, "_FIRMWARE", copy)
    (tmp_path / "net").write_bytes(b"1")

    def facts(backend):
        path = tmp_path / "net"
        return network_system("n", lambda: np.asarray, [path], backend=backend).facts

    before = facts("firmware"), facts("tflm")
    assert before == (facts("firmware"), facts("tflm"))
    (copy / changed).write_text((copy / changed).read_text() + "\n/* changed */\n")
    assert facts("firmware") != before[0]
    assert facts("tflm") == before[1]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_folder_is_read_by_the_names_of_the_clips(clips, tmp_path, suffix):
    system = folder_system("f", _write(tmp_path / "f", clips[::-1], suffix=suffix), clips)
    for clip in clips:
        np.testing.assert_allclose(system.enhance(clip), clip.noisy, atol=1e-4)
    assert system.facts["delay_samples"] == 0


def test_one_delay_is_taken_off_all_files(clips, tmp_path):
    late = _write(tmp_path / "f", clips, lambda s: np.concatenate([np.zeros(320), s])[:16000])
    system = folder_system("f", late, clips)
    assert system.facts["delay_samples"] == 320
    for clip in clips:
        np.testing.assert_allclose(system.enhance(clip)[:-320], clip.noisy[:-320], atol=1e-4)
    given = folder_system("f", late, clips, delay=0)
    assert np.abs(given.enhance(clips[0])[:320]).max() == 0.0


def test_files_of_a_higher_rate_are_resampled(clips, tmp_path):
    wide = _write(tmp_path / "f", clips, lambda s: soxr.resample(s, 16000, 48000), 48000)
    system = folder_system("f", wide, clips)
    error = system.enhance(clips[0]) - clips[0].speech
    plain = clips[0].noisy - clips[0].speech
    assert np.mean(error**2) == pytest.approx(np.mean(plain**2), rel=0.1)


def test_narrow_band_files_are_refused(clips, tmp_path):
    narrow = _write(tmp_path / "f", clips, lambda s: soxr.resample(s, 16000, 8000), 8000)
    with pytest.raises(
        ValueError, match=r"narrow-band.*wide-band PESQ. Received 1 channels at 8000 Hz"
    ):
        folder_system("f", narrow, clips)


def test_file_that_grows_with_every_clip_is_refused(clips, tmp_path):
    """A program that never empties its output buffer writes all clips so far."""
    buffer = []

    def append(signal):
        buffer.append(signal)
        return np.concatenate(buffer)

    with pytest.raises(ValueError, match=r"Received 32000 samples for 16000 in .*b.wav"):
        folder_system("f", _write(tmp_path / "f", clips, append), clips)


def test_stereo_is_refused(clips, tmp_path):
    stereo = _write(tmp_path / "f", clips, lambda s: np.stack([s, s], axis=1))
    with pytest.raises(ValueError, match="Received 2 channels at 16000 Hz"):
        folder_system("f", stereo, clips)


def test_missing_file_and_folder_are_named(clips, tmp_path):
    folder = _write(tmp_path / "f", clips[:2])
    with pytest.raises(FileNotFoundError, match=r"without c.wav. Enhance that clip too"):
        folder_system("f", folder, clips)
    with pytest.raises(FileNotFoundError, match=r"must lie in a folder. Received .*none"):
        folder_system("f", tmp_path / "none", clips)


def test_folder_is_identified_by_what_is_in_its_files(clips, tmp_path):
    first = folder_system("f", _write(tmp_path / "f", clips), clips)
    same = folder_system("g", _write(tmp_path / "g", clips), clips)
    other = folder_system("h", _write(tmp_path / "h", clips, lambda s: 0.5 * s), clips)
    assert first.facts == same.facts != other.facts
