# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from absl import flags

from lmkd_tf.cli import enhance
from lmkd_tf.config.schema import StftConfig


class HalvingBackend:
    """Gains of one half."""

    stft, num_bands, name = StftConfig(), 32, "half"

    def reset(self):
        pass

    def gains(self, features):
        return np.full_like(features, 0.5)


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(enhance, "choose_backend", lambda *_: HalvingBackend)
    values = flags.FlagValues()
    enhance.define_flags(values)
    return enhance.main(values(["lmkd-enhance", *map(str, arguments)]), values)


def _run_program(*arguments):
    code = "from lmkd_tf.cli.enhance import run; run()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path[1:]])}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def recording(tmp_path):
    soundfile.write(tmp_path / "in.wav", np.full(8000, 0.5), 8000)
    return tmp_path / "in.wav"


def test_program_enhances_a_file_and_says_how_fast(monkeypatch, recording, tmp_path, capsys):
    assert _run(monkeypatch, recording, tmp_path / "out.wav") == 0
    enhanced, rate_hz = soundfile.read(tmp_path / "out.wav")
    assert rate_hz == 8000
    np.testing.assert_allclose(enhanced[500:-500], 0.25, atol=2e-3)
    output = capsys.readouterr()
    assert "out.wav: " in output.out
    assert "times real time" in output.out
    assert "Enhance in.wav: done in" in output.err


def test_program_enhances_a_folder(monkeypatch, recording, tmp_path, capsys):
    assert _run(monkeypatch, tmp_path, tmp_path / "out") == 0
    assert (tmp_path / "out" / "in.wav").is_file()
    assert "1 files written" in capsys.readouterr().out


def test_program_lists_failed_files_and_returns_one(monkeypatch, recording, tmp_path, capsys):
    (tmp_path / "bad.flac").write_bytes(b"bad")
    (tmp_path / "notes.txt").touch()
    assert _run(monkeypatch, tmp_path, tmp_path / "out") == 1
    output = capsys.readouterr()
    assert "1 files written, 1 without audio left out" in output.out
    assert "1 files failed:" in output.err
    assert "bad.flac, which is not audio" in output.err


def test_program_keeps_existing_outputs_unless_told(monkeypatch, recording, tmp_path):
    (tmp_path / "out.wav").touch()
    with pytest.raises(ValueError, match="Add --overwrite"):
        _run(monkeypatch, recording, tmp_path / "out.wav")
    assert _run(monkeypatch, recording, tmp_path / "out.wav", "--overwrite") == 0


def test_program_limits_the_attenuation(monkeypatch, recording, tmp_path):
    limit = "--attenuation_limit_db=3.5"
    assert _run(monkeypatch, recording, tmp_path / "out.wav", limit) == 0
    enhanced, _ = soundfile.read(tmp_path / "out.wav")
    np.testing.assert_allclose(enhanced[500:-500], 0.5 * 10 ** (-3.5 / 20), atol=2e-3)


def test_program_refuses_a_negative_limit_before_it_writes(monkeypatch, recording, tmp_path):
    limit = "--attenuation_limit_db=-3"
    for source, target in ((recording, tmp_path / "out.wav"), (tmp_path, tmp_path / "out")):
        with pytest.raises(ValueError, match=r"Received -3\.0\. Use for example 12"):
            _run(monkeypatch, source, target, limit)
        assert not target.exists()


@pytest.mark.parametrize("arguments", [[], ["in.wav"], ["a", "b", "c"]])
def test_program_needs_two_arguments(monkeypatch, arguments):
    with pytest.raises(ValueError, match=r"needs INPUT and OUTPUT. Received"):
        _run(monkeypatch, *arguments)


def test_preset_and_model_exclude_each_other():
    with pytest.raises(ValueError, match=r"--preset=nano and --model=a\.keras. Leave one out"):
        enhance.choose_backend("nano", "a.keras", None)


def test_default_is_the_best_network_in_int8_and_on_the_firmware_its_own():
    found = enhance.choose_backend(None, None, None)()
    assert (found.name, found.num_bands) == ("tflm", 256)
    assert enhance.default_preset("firmware") == "nano"
    assert {enhance.default_preset(kind) for kind in (None, "keras", "tflite")} == {"base"}


def test_unknown_preset_is_named():
    with pytest.raises(ValueError, match="'huge'"):
        enhance.choose_backend("huge", None, None)


def test_backend_that_does_not_fit_the_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"needs a \.tflite file"):
        enhance.choose_backend(None, str(tmp_path / "a.keras"), "tflm")()


def test_missing_model_is_named(tmp_path):
    for name in ("a.keras", "a.tflite"):
        with pytest.raises(FileNotFoundError, match=name):
            enhance.choose_backend(None, str(tmp_path / name), None)()


def test_mistake_ends_in_one_line_and_status_one(tmp_path):
    result = _run_program(tmp_path / "none.wav", tmp_path / "out.wav", "--model=none.keras")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "none.wav, which does not. Check the path." in result.stderr.splitlines()[-1]


def test_help_shows_the_usage_and_the_flags_without_loading_tensorflow():
    result = _run_program("--help")
    assert result.returncode == 0
    for text in ("INPUT OUTPUT [--preset=NAME", "--[no]overwrite", "<keras|tflite|tflm|firmware>"):
        assert text in result.stdout
    assert "tensorflow" not in result.stderr.lower()
