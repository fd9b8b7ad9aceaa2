# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from lmkd_tf.data import espeak_process
from lmkd_tf.data.espeak_process import NO_ENGINE_STATUS, CommandSpeaker, find_speaker


def job(path, voice="en-us+m1"):
    return {
        "voice": voice,
        "pitch": 50,
        "rate_wpm": 160,
        "text": "Good morning.",
        "path": str(path),
    }


def run_process(tmp_path, jobs, environment=None):
    jobs_path = tmp_path / "jobs.json"
    jobs_path.write_text(json.dumps(jobs))
    return subprocess.run(
        [sys.executable, "-m", "lmkd_tf.data.espeak_process", str(jobs_path)],
        cwd=Path(espeak_process.__file__).parents[2],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def hide_package(tmp_path):
    """Environment in which `import espeakng_loader` fails and no command is on the path."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "espeakng_loader.py").write_text("raise ImportError('hidden')\n")
    return {"PYTHONPATH": str(hidden), "PATH": str(tmp_path / "bin")}


def write_command(folder, script):
    folder.mkdir(exist_ok=True)
    command = folder / "espeak-ng"
    command.write_text(f"#!{sys.executable}\n{script}")
    command.chmod(0o755)
    return command


def test_each_job_leaves_a_mono_wave_file_and_a_line(require_espeak, tmp_path):
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    result = run_process(tmp_path, [job(paths[0]), job(paths[1], voice="de+f2")])
    assert (result.returncode, result.stdout) == (0, "done\ndone\n"), result.stderr
    for path in paths:
        with wave.open(str(path)) as file:
            assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
            assert 0.3 < file.getnframes() / file.getframerate() < 3.0


def test_the_same_jobs_give_the_same_audio(require_espeak, tmp_path):
    jobs = [job(tmp_path / f"{index}.wav") for index in range(3)]
    contents = []
    for _ in range(2):
        assert run_process(tmp_path, jobs).returncode == 0
        contents.append([Path(item["path"]).read_bytes() for item in jobs])
    assert contents[0] == contents[1]


def test_an_unknown_voice_is_named(require_espeak, tmp_path):
    result = run_process(tmp_path, [job(tmp_path / "a.wav", voice="zz-nowhere+m1")])
    assert result.returncode == 1
    assert "zz-nowhere+m1" in result.stderr


def test_without_espeak_the_process_says_so(tmp_path, hide_package):
    result = run_process(tmp_path, [job(tmp_path / "a.wav")], hide_package)
    assert result.returncode == NO_ENGINE_STATUS
    assert "Neither the package espeakng-loader nor the command espeak-ng" in result.stderr


def test_without_the_package_the_command_is_used(tmp_path, hide_package):
    script = "import sys; open(sys.argv[sys.argv.index('-w') + 1], 'w').write(sys.stdin.read())"
    write_command(tmp_path / "bin", script)
    result = run_process(tmp_path, [job(tmp_path / "a.wav")], hide_package)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a.wav").read_text() == "Good morning."


def test_a_failing_command_is_reported_with_its_message(tmp_path):
    command = write_command(tmp_path, "import sys; sys.exit('no such voice')")
    with pytest.raises(RuntimeError, match=r"status 1 for voice en-us\+m1: no such voice"):
        CommandSpeaker(str(command))(job(tmp_path / "a.wav"))


def test_find_speaker_falls_back_to_the_command(tmp_path, monkeypatch):
    command = write_command(tmp_path, "")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    speaker = find_speaker()
    assert isinstance(speaker, CommandSpeaker)
    assert command.exists()
