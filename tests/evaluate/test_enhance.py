# SPDX-License-Identifier: Apache-2.0
import os
import signal as signals
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import chirp, correlate, correlation_lags

from lmkd_tf.evaluate import enhance
from lmkd_tf.evaluate.enhance import enhance_file, enhance_folder


def _chirp(rate_hz, seconds=1.3):
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return 0.4 * chirp(time_s, 100, seconds, min(6000, 0.4 * rate_hz))


def _enhanced(tmp_path, samples, make_backend, rate_hz=16000, **kwargs):
    kwargs.setdefault("subtype", "PCM_16")
    soundfile.write(tmp_path / "in.wav", samples, rate_hz, **kwargs)
    enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", make_backend)
    return soundfile.read(tmp_path / "out.wav")[0]


def _names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 44100, 48000])
def test_enhance_file_keeps_length_and_alignment_at_any_rate(tmp_path, make_identity, rate_hz):
    samples = _chirp(rate_hz)
    enhanced = _enhanced(tmp_path, samples, make_identity, rate_hz)
    assert len(enhanced) == len(samples)
    lags = correlation_lags(len(samples), len(enhanced))
    assert lags[np.argmax(correlate(samples, enhanced, method="fft"))] == 0
    error = (enhanced - samples)[200:-200]  # the resamplers ring where the chirp is cut off
    assert 10 * np.log10(np.mean(samples**2) / np.mean(error**2)) > 50


@pytest.mark.parametrize("num_channels", [1, 2, 6])
def test_enhance_file_keeps_every_channel_in_its_place(tmp_path, make_identity, num_channels):
    clicks = np.zeros((44100, num_channels))
    positions = 3000 + 5000 * np.arange(num_channels)
    clicks[positions, np.arange(num_channels)] = 0.9
    enhanced = _enhanced(tmp_path, clicks, make_identity, 44100).reshape(clicks.shape)
    np.testing.assert_array_equal(np.argmax(np.abs(enhanced), axis=0), positions)


def test_enhance_file_runs_one_network_per_channel(tmp_path, make_memory, signal):
    alone = _enhanced(tmp_path, signal, make_memory)
    (tmp_path / "out.wav").unlink()
    both = _enhanced(tmp_path, np.stack([signal[::-1], signal], axis=1), make_memory)
    np.testing.assert_array_equal(both[:, 1], alone)


@pytest.mark.parametrize("block_seconds", [0.02, 0.3, 60.0])
def test_enhance_file_result_does_not_depend_on_the_block_length(
    tmp_path, make_memory, monkeypatch, block_seconds
):
    expected = _enhanced(tmp_path, _chirp(22050), make_memory, 22050)
    (tmp_path / "out.wav").unlink()
    monkeypatch.setattr(enhance, "_BLOCK_SECONDS", block_seconds)
    enhanced = _enhanced(tmp_path, _chirp(22050), make_memory, 22050)
    np.testing.assert_allclose(enhanced, expected, atol=1.1 / 32768)


@pytest.mark.parametrize("num_frames", [1, 80, 160, 441])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100])
def test_enhance_file_works_on_very_short_files(tmp_path, make_identity, rate_hz, num_frames):
    assert len(_enhanced(tmp_path, np.full(num_frames, 0.1), make_identity, rate_hz)) == num_frames


@pytest.mark.parametrize(
    ("subtype", "expected"),
    [("PCM_U8", "PCM_16"), ("ULAW", "PCM_16"), ("PCM_24", "PCM_24"), ("PCM_32", "PCM_24"),
     ("FLOAT", "FLOAT"), ("DOUBLE", "FLOAT")],
)  # fmt: skip
def test_enhance_file_keeps_the_resolution(tmp_path, make_identity, signal, subtype, expected):
    enhanced = _enhanced(tmp_path, signal, make_identity, subtype=subtype)
    stored = soundfile.read(tmp_path / "in.wav")[0]
    assert soundfile.info(tmp_path / "out.wav").subtype == expected
    np.testing.assert_allclose(enhanced, stored, atol={"PCM_16": 2e-5}.get(expected, 1e-6))


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_enhance_file_reads_compressed_files(tmp_path, make_identity, signal, suffix):
    soundfile.write(tmp_path / f"in.{suffix}", signal, 16000)
    stored = soundfile.read(tmp_path / f"in.{suffix}")[0]
    enhance_file(tmp_path / f"in.{suffix}", tmp_path / "out.wav", make_identity)
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav")[0], stored, atol=2e-5)


def test_enhance_file_keeps_silence_silent(tmp_path, make_memory):
    enhanced = _enhanced(tmp_path, np.zeros(12345), make_memory, 44100)
    assert enhanced.shape == (12345,)
    assert not enhanced.any()


def test_enhance_file_clips_and_never_wraps(tmp_path, make_identity):
    loud = np.sign(np.sin(np.arange(8000) / 9.0))
    for subtype in ("PCM_16", "PCM_24"):
        enhanced = _enhanced(tmp_path, loud, make_identity, 11025, subtype=subtype)
        strong = np.abs(enhanced) > 0.5
        np.testing.assert_array_equal(np.sign(enhanced[strong]), loud[strong])
        (tmp_path / "out.wav").unlink()


def test_enhance_file_beyond_four_gigabytes_switches_to_rf64(
    tmp_path, make_identity, monkeypatch, signal
):
    monkeypatch.setattr(enhance, "_MAX_WAV_BYTES", 1000)
    _enhanced(tmp_path, signal, make_identity)
    assert soundfile.info(tmp_path / "out.wav").format == "RF64"


def test_enhance_file_reports_seconds(tmp_path, make_identity):
    soundfile.write(tmp_path / "in.wav", np.zeros(160000), 16000)
    calls = []
    enhance_file(
        tmp_path / "in.wav",
        tmp_path / "out.wav",
        make_identity,
        on_progress=lambda *call: calls.append(call),
    )
    assert calls[-1] == (10.0, 10.0, "in.wav")
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


def test_enhance_file_without_input_says_so(tmp_path, make_identity):
    with pytest.raises(FileNotFoundError, match=r"none\.wav, which does not"):
        enhance_file(tmp_path / "none.wav", tmp_path / "out.wav", make_identity)


def test_enhance_file_refuses_to_replace_its_input(tmp_path, make_identity, signal):
    soundfile.write(tmp_path / "in.wav", signal, 16000)
    (tmp_path / "link.wav").symlink_to(tmp_path / "in.wav")
    for output in ("in.wav", "link.wav"):
        with pytest.raises(ValueError, match="must not replace the input"):
            enhance_file(tmp_path / "in.wav", tmp_path / output, make_identity, overwrite=True)


@pytest.mark.parametrize(
    ("output", "message"),
    [("folder", "a folder. Use"), ("out.flac", r"Use .*out\.wav"), ("old.wav", "--overwrite")],
)
def test_enhance_file_refuses_outputs_that_are_in_the_way(
    tmp_path, make_identity, signal, output, message
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.wav").touch()
    soundfile.write(tmp_path / "in.wav", signal, 16000)
    with pytest.raises(ValueError, match=message):
        enhance_file(tmp_path / "in.wav", tmp_path / output, make_identity)


def test_enhance_file_replaces_an_output_on_demand(tmp_path, make_identity, signal):
    (tmp_path / "out.wav").touch()
    soundfile.write(tmp_path / "in.wav", signal, 16000)
    enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", make_identity, overwrite=True)
    assert soundfile.info(tmp_path / "out.wav").frames == len(signal)


@pytest.mark.parametrize(("content", "found"), [(b"", "empty"), (b"no audio" * 99, "not audio")])
def test_enhance_file_refuses_what_is_not_audio(tmp_path, make_identity, content, found):
    (tmp_path / "in.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"in\.wav, which is {found}"):
        enhance_file(tmp_path / "in.wav", tmp_path / "out.wav", make_identity)
    assert _names(tmp_path) == ["in.wav"]


def test_enhance_file_refuses_a_file_without_samples(tmp_path, make_identity):
    with pytest.raises(ValueError, match="at least one sample"):
        _enhanced(tmp_path, np.zeros(0), make_identity)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_enhance_file_refuses_truncated_files(tmp_path, make_identity, signal, name, share):
    soundfile.write(tmp_path / name, np.tile(signal, 10), 16000)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"must be complete. Received .*a\.\w+, which ends"):
        enhance_file(tmp_path / name, tmp_path / "out.wav", make_identity)
    assert _names(tmp_path) == [name]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_enhance_file_names_the_first_sample_that_is_not_finite(tmp_path, make_identity, value):
    samples = np.zeros((90000, 2), np.float32)
    samples[80000, 1] = value
    with pytest.raises(ValueError, match=r"sample 80000 \(5.000 s\), channel 2 of .*in\.wav"):
        _enhanced(tmp_path, samples, make_identity, subtype="FLOAT")
    assert _names(tmp_path) == ["in.wav"]


def test_enhance_file_interrupted_leaves_nothing(tmp_path, make_identity, signal):
    soundfile.write(tmp_path / "in.wav", signal, 16000)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enhance_file(
            tmp_path / "in.wav", tmp_path / "out.wav", make_identity, on_progress=interrupt
        )
    assert _names(tmp_path) == ["in.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process exist on POSIX only")
def test_enhance_file_on_a_full_disk_says_so_and_leaves_nothing(tmp_path):
    # A limit on the size of files fails a write just as a full disk does.
    program = textwrap.dedent(f"""
        import resource, signal, numpy as np, soundfile
        from lmkd_tf.config.schema import StftConfig
        from lmkd_tf.evaluate.enhance import enhance_file
        class Identity:
            stft, num_bands, name = StftConfig(), 32, "identity"
            def reset(self): pass
            def gains(self, features): return np.ones_like(features)
        soundfile.write("in.wav", np.full(160000, 0.1), 16000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
        signal.signal({int(signals.SIGXFSZ)}, signal.SIG_IGN)
        try:
            enhance_file("in.wav", "out.wav", Identity)
        except OSError as error:
            print(error)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path[1:]])}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "must fit on the disk. Received out.wav" in result.stdout
    assert _names(tmp_path) == ["in.wav"]


@pytest.fixture
def folder(tmp_path, signal):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "a.flac", signal, 16000)
    soundfile.write(tmp_path / "in" / "deep" / "b.ogg", np.stack([signal] * 2, axis=1), 8000)
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    (tmp_path / "in" / ".hidden.wav").write_text("no audio")
    return tmp_path / "in"


def test_enhance_folder_keeps_relative_names(folder, tmp_path, make_identity):
    result = enhance_folder(folder, tmp_path / "out", make_identity)
    assert _names(tmp_path / "out") == ["a.wav", "deep/b.wav"]
    assert len(result.written) == 2
    assert result.failed == []
    assert [path.name for path in result.skipped] == ["notes.txt"]


def test_enhance_folder_goes_on_after_a_bad_file(folder, tmp_path, make_identity):
    (folder / "a.flac").write_bytes(b"bad")
    result = enhance_folder(folder, tmp_path / "out", make_identity)
    assert _names(tmp_path / "out") == ["deep/b.wav"]
    assert [path.name for path, _ in result.failed] == ["a.flac"]


def test_enhance_folder_gives_the_same_as_one_file_at_a_time(folder, tmp_path, make_memory):
    enhance_folder(folder, tmp_path / "out", make_memory)
    enhance_file(folder / "deep" / "b.ogg", tmp_path / "b.wav", make_memory)
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / "out" / "deep" / "b.wav")[0],
        soundfile.read(tmp_path / "b.wav")[0],
    )


def test_enhance_folder_loads_each_back_end_once(folder, tmp_path, make_memory, signal):
    soundfile.write(folder / "c.wav", np.stack([signal] * 2, axis=1), 16000)
    made = []
    enhance_folder(folder, tmp_path / "out", lambda: made.append(make_memory()) or made[-1])
    assert len(made) == 2


def test_enhance_folder_reports_progress_over_all_files(folder, tmp_path, make_identity):
    calls = []
    enhance_folder(
        folder, tmp_path / "out", make_identity, on_progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == (20000 / 16000 + 20000 / 8000, 20000 / 16000 + 20000 / 8000, "b.ogg")


def test_enhance_folder_keeps_existing_outputs_and_does_the_rest(folder, tmp_path, make_identity):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wav").write_text("old")
    result = enhance_folder(folder, tmp_path / "out", make_identity)
    assert (tmp_path / "out" / "a.wav").read_text() == "old"
    assert [path.name for path, _ in result.failed] == ["a.flac"]
    assert len(result.written) == 1


def test_enhance_folder_into_a_folder_inside_leaves_its_own_outputs_out(folder, make_identity):
    for _ in range(2):
        enhance_folder(folder, folder / "enhanced", make_identity, overwrite=True)
    assert _names(folder / "enhanced") == ["a.wav", "deep/b.wav"]


def test_enhance_folder_into_the_folder_above_takes_all_inputs(folder, make_identity):
    result = enhance_folder(folder, folder.parent, make_identity)
    assert len(result.written) == 2
    assert (folder.parent / "a.wav").is_file()
    assert (folder.parent / "deep" / "b.wav").is_file()


def test_enhance_folder_knows_its_own_outputs_by_a_relative_path(
    folder, make_identity, monkeypatch
):
    monkeypatch.chdir(folder)
    for _ in range(2):
        enhance_folder(folder, Path("enhanced"), make_identity, overwrite=True)
    assert _names(folder / "enhanced") == ["a.wav", "deep/b.wav"]


def test_enhance_folder_refuses_two_files_with_one_output(folder, tmp_path, make_identity, signal):
    soundfile.write(folder / "a.wav", signal, 16000)
    with pytest.raises(ValueError, match=r"file of its own.*a\.wav.*Rename"):
        enhance_folder(folder, tmp_path / "out", make_identity)
    assert not (tmp_path / "out").exists()


def test_enhance_folder_refuses_to_write_over_its_inputs(folder, make_identity, signal):
    soundfile.write(folder / "c.wav", signal, 16000)
    with pytest.raises(ValueError, match="and no input"):
        enhance_folder(folder, folder, make_identity, overwrite=True)


@pytest.mark.parametrize(
    ("input_name", "output_name", "error", "message"),
    [
        ("none", "out", FileNotFoundError, "input folder must exist"),
        ("empty", "out", ValueError, r"must hold audio \(\.wav"),
        ("in", "file", ValueError, "must be a folder"),
    ],
)
def test_enhance_folder_refuses_folders_it_cannot_use(
    folder, tmp_path, make_identity, input_name, output_name, error, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        enhance_folder(tmp_path / input_name, tmp_path / output_name, make_identity)
