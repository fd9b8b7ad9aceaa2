# SPDX-License-Identifier: Apache-2.0
import resource
import subprocess

import numpy as np
import pytest
import soundfile

from lmkd_tf.firmware import emulator
from lmkd_tf.firmware.vectors import golden_signal

OLDER = b"what lay there before"


@pytest.fixture(scope="module")
def program(require_tool):
    require_tool("cmake", "cmake")
    return emulator.build("host", targets=["wav_filter"]) / "wav_filter"


@pytest.fixture
def run(program, tmp_path):
    """Function that runs the program in a folder of its own; returns its status and message."""

    def run_(*arguments, **options):
        command = [program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, **options)
        return done.returncode, done.stderr

    return run_


def write_wav(path, num_samples=1000, rate=16000, channels=1, subtype="PCM_16"):
    samples = np.repeat(golden_signal(num_samples, 1)[:, None], channels, axis=1)
    soundfile.write(path, samples, rate, subtype=subtype)


def test_output_has_the_length_of_the_input_and_replaces_an_older_file(run, tmp_path):
    write_wav(tmp_path / "in.wav", 1001)
    (tmp_path / "out.wav").write_bytes(OLDER)
    assert run("in.wav", "out.wav") == (0, "")
    assert soundfile.info(tmp_path / "out.wav").frames == 1001


def test_one_name_for_both_files_is_refused(run, tmp_path):
    write_wav(tmp_path / "in.wav")
    before = (tmp_path / "in.wav").read_bytes()
    status, message = run("in.wav", "in.wav")
    assert status == 1
    assert "must be another file than the input" in message
    assert (tmp_path / "in.wav").read_bytes() == before


def refusal(run, folder):
    """What is said of in.wav; an older out.wav stays as it was."""
    (folder / "out.wav").write_bytes(OLDER)
    status, message = run("in.wav", "out.wav")
    assert status == 1
    assert (folder / "out.wav").read_bytes() == OLDER
    return message


@pytest.mark.parametrize(
    "wrong", [{"channels": 2}, {"rate": 44100}, {"subtype": "PCM_24"}, {"num_samples": 0}]
)
def test_unsuitable_input_leaves_an_older_output(wrong, run, tmp_path):
    write_wav(tmp_path / "in.wav", **wrong)
    assert "must be a whole wav file" in refusal(run, tmp_path)


def test_input_cut_short_leaves_an_older_output(run, tmp_path):
    write_wav(tmp_path / "in.wav")
    content = (tmp_path / "in.wav").read_bytes()
    (tmp_path / "in.wav").write_bytes(content[:-1])
    assert "less than its header says" in refusal(run, tmp_path)


def test_missing_input_and_bad_limit_leave_an_older_output(run, tmp_path):
    write_wav(tmp_path / "in.wav")
    (tmp_path / "out.wav").write_bytes(OLDER)
    assert run("none.wav", "out.wav")[0] == 1
    assert run("in.wav", "out.wav", "-3") == (1, "wav_filter: status -6; see lmkd/status.h\n")
    assert (tmp_path / "out.wav").read_bytes() == OLDER


@pytest.mark.parametrize("word", ["", "loud", "12,5", "6dB"])
def test_limit_that_is_no_number_leaves_an_older_output(word, run, tmp_path):
    write_wav(tmp_path / "in.wav")
    (tmp_path / "out.wav").write_bytes(OLDER)
    status, message = run("in.wav", "out.wav", word)
    assert status == 1
    assert "The limit must be a number of dB" in message
    assert (tmp_path / "out.wav").read_bytes() == OLDER


def test_output_that_does_not_fit_is_removed(run, tmp_path):
    write_wav(tmp_path / "in.wav", 100_000)

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    # Python ignores the signal of a file that grows too large, and so then does the program.
    options = {"preexec_fn": limit_files, "restore_signals": False}
    status, message = run("in.wav", "out.wav", **options)
    assert status == 1
    assert "must fit on the disk" in message
    assert not (tmp_path / "out.wav").exists()
