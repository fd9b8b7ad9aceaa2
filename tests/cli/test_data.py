# SPDX-License-Identifier: Apache-2.0
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import soundfile


def run(*arguments):
    command = [sys.executable, "-m", "lmkd_tf.cli.data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def corpus(tmp_path):
    """Trees of 12 speakers and 12 recordings."""
    folder = tmp_path / "corpus"
    rng = np.random.default_rng(5)
    for number in range(12):
        for name in (f"speech/s{number}/{number}.flac", f"noise/kind{number % 3}/n{number}.wav"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / name, rng.uniform(-0.3, 0.3, 9000 + 100 * number), 16000)
    return folder


def test_inspect_prints_the_layout_and_draws_a_picture(corpus, tmp_path):
    (corpus / "noise" / "kind0" / "empty.wav").write_bytes(b"")
    done = run("inspect", corpus, f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "speech and noise trees" in done.stdout
    assert "1 unusable files" in done.stdout
    picture = ElementTree.parse(tmp_path / "out" / "inspection.svg").getroot()
    bars = [
        e for e in picture.iter("{http://www.w3.org/2000/svg}rect") if e.get("height") != "100%"
    ]
    assert len(bars) >= 2
    record = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert len(record["files"]) == 25


def test_pack_mix_and_verify_lead_from_corpus_to_pairs(corpus, tmp_path):
    done = run("pack", corpus, tmp_path / "packed")
    assert done.returncode == 0, done.stderr
    done = run("mix", tmp_path / "packed", tmp_path / "pairs", "--num_pairs=6", "--config=smoke")
    assert done.returncode == 0, done.stderr
    assert run("verify", tmp_path / "pairs").stdout.endswith("whole, 6 records\n")


def test_shard_names_the_files_that_it_left_out(corpus, tmp_path):
    (corpus / "noise" / "kind0" / "n0.wav").write_bytes(b"")
    done = run("shard", corpus, tmp_path / "shards", "--num_shards=1")
    assert done.returncode == 0, done.stderr
    assert "1 left out, see" in done.stdout
    assert "n0.wav" in (tmp_path / "shards" / "dead_letter.csv").read_text()


def test_sizes_and_checksums_are_shown_before_a_download(tmp_path):
    done = run("download", "voicebank-demand", tmp_path / "vb", "--check_only")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all(re.search(r"MD5 [0-9a-f]{32}$", line) for line in lines)
    assert "noisy_trainset_28spk_wav.zip: 2,830,205,201 bytes" in done.stdout
    assert not (tmp_path / "vb").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "must be one of inspect, pack, shard"),
        (("bake", "a"), "Received 'bake'"),
        (("pack", "a"), "takes 2 arguments. Received"),
        (("shard", "a", "b", "c"), "takes 2 arguments, and options of Apache Beam"),
        (("shard", "a", "b", "c", "--runner=direct"), "Received ['c'] besides"),
        (("inspect", "nowhere"), "corpus must exist. Received nowhere"),
        (("download", "timit", "a"), "Received 'timit'"),
        (("serve", "king"), "role must be 'dispatcher'"),
    ],
)
def test_mistakes_end_in_one_line_that_says_what_to_do(arguments, message):
    done = run(*arguments)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
