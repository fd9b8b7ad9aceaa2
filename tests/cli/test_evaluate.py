# SPDX-License-Identifier: Apache-2.0
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from absl import flags

from lmkd_tf.cli import evaluate, system_specs
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.evaluate.evaluation import listed_snrs_db
from lmkd_tf.metrics import utterance
from lmkd_tf.metrics.p835 import Dnsmos


class HalvingBackend:
    """Gains of one half: what does not hear the level must be that of the noisy speech."""

    stft, num_bands, name = StftConfig(), 32, "half"

    def reset(self):
        pass

    def gains(self, features):
        return np.full_like(features, 0.5)


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(system_specs, "choose_backend", lambda *_: HalvingBackend)
    values = flags.FlagValues()
    evaluate.define_flags(values)
    texts = ["lmkd-evaluate", "--num_workers=0", *map(str, arguments)]
    return evaluate.main(values(texts), values)


def _tone(seconds, seed):
    time = np.arange(round(16000 * seconds)) / 16000
    tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return 0.05 * tone * np.sin(2 * np.pi * 3 * time) ** 2, 0.01 * noise


@pytest.fixture
def quick_opinion(monkeypatch):
    """Spares the network of DNSMOS, which takes longer than all the other scores."""
    monkeypatch.setattr(utterance, "dnsmos", lambda _: Dnsmos(3.0, 3.0, 3.0))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "benchmark" / "vbdemand96"
    rows = []
    for index, snr in enumerate((2.5, 2.5, 7.5)):
        speech, noise = _tone(1.5, index)
        for kind, samples in (("clean", speech), ("noisy", speech + noise)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / kind / f"p{index}.flac", samples, 16000)
        rows.append(
            {
                "noisy": f"noisy/p{index}.flac",
                "clean": f"clean/p{index}.flac",
                "nearest_nominal_snr_db": snr,
                "speaker": "p",
                "seconds": 1.5,
            }
        )
    with open(folder / "manifest.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def _flags(data, output):
    return ("--benchmark=vbdemand96", f"--data={data}", f"--output={output}")


def test_program_scores_the_noisy_speech_and_the_network(monkeypatch, data, tmp_path, capsys):
    output = tmp_path / "scores"
    assert _run(monkeypatch, *_flags(data, output), "--preset=nano") == 0
    result = json.loads((output / "scores.json").read_text())
    assert [row["system"] for row in result["rows"]] == ["noisy"] * 3 + ["nano (tflm)"] * 3
    assert result["settings"]["benchmark"] == "vbdemand96"
    assert result["command"].startswith("lmkd-evaluate")
    assert {"git_commit", "versions", "bootstrap_seed", "evaluation_seed"} <= result.keys()
    assert result["versions"]["pesq"]
    assert [entry.get("backend") for entry in result["systems"]] == [None, "tflm"]
    noisy, halved = result["rows"][:3], result["rows"][3:]
    for first, second in zip(noisy, halved, strict=True):
        assert second["si_sdr_db"] == pytest.approx(first["si_sdr_db"], abs=1e-3)
    assert "mean of SNRs" in capsys.readouterr().out
    assert (output / "report.html").read_text().count("<audio") == 3 * 3


@pytest.mark.usefixtures("quick_opinion")
def test_second_run_reuses_the_rows_and_adds_a_folder(monkeypatch, data, tmp_path):
    output, theirs = tmp_path / "scores", tmp_path / "theirs"
    _run(monkeypatch, *_flags(data, output))
    lines = (output / "rows.jsonl").read_text().splitlines()
    assert (
        _run(monkeypatch, f"--data={data}", "--benchmark=vbdemand96", f"--write_noisy={theirs}")
        == 0
    )
    specs = ("--system=base", f"--system=theirs={theirs}", "--baseline=theirs")
    _run(monkeypatch, *_flags(data, output), *specs)
    assert (output / "rows.jsonl").read_text().splitlines()[:6] == lines
    result = json.loads((output / "scores.json").read_text())
    assert len((output / "rows.jsonl").read_text().splitlines()) == 9
    against = {e["system"]: e for e in result["comparisons"] if e["group"] == "all"}
    assert against["noisy"]["pesq_wb"]["difference"] == pytest.approx(0.0, abs=0.01)
    assert against.keys() == {"noisy", "base (tflm)"}


@pytest.mark.usefixtures("quick_opinion")
def test_earlier_scores_join_the_table(monkeypatch, data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    _run(monkeypatch, *_flags(data, first))
    scores = f"--scores={first / 'scores.csv'}"
    _run(monkeypatch, *_flags(data, second), "--system=again=nano", scores)
    systems = {e["system"] for e in json.loads((second / "scores.json").read_text())["summary"]}
    assert systems == {"noisy", "again", "base (tflm)"}


@pytest.mark.usefixtures("quick_opinion")
def test_earlier_scores_of_a_system_that_is_scored_again_are_refused(monkeypatch, data, tmp_path):
    _run(monkeypatch, *_flags(data, tmp_path / "out"))
    scores = f"--scores={tmp_path / 'out' / 'scores.csv'}"
    before = (tmp_path / "out" / "scores.json").read_text()
    with pytest.raises(ValueError, match=r"Received base \(tflm\) in .*NAME=TARGET"):
        _run(monkeypatch, *_flags(data, tmp_path / "out"), scores)
    assert (tmp_path / "out" / "scores.json").read_text() == before


@pytest.mark.usefixtures("quick_opinion")
def test_page_shows_the_network_named_last_with_its_cost(monkeypatch, data, tmp_path):
    """`presets` are more systems than the page has room for; the last one must not be lost."""
    _run(monkeypatch, *_flags(data, tmp_path / "out"), "--system=presets")
    text = (tmp_path / "out" / "report.html").read_text()
    cost = system_specs.describe_cost("small@tflm") or {}
    tiles, _, rest = text.partition("<audio")
    assert "small (tflm)" in tiles
    assert f"{cost['bytes'] / 1000:.1f}<small>kB</small>" in tiles
    assert rest.count("small (tflm)</b>") >= 3  # a player of each clip
    assert (
        f'<tr class="shipped"><th scope="row">small (tflm)</th><td>{cost["parameters"]:,}' in rest
    )


def test_noisy_clips_are_written_once_and_replace_nothing(monkeypatch, data, tmp_path):
    arguments = (f"--data={data}", "--benchmark=vbdemand96", f"--write_noisy={tmp_path / 'n'}")
    assert _run(monkeypatch, *arguments) == 0
    samples, rate_hz = soundfile.read(tmp_path / "n" / "p0.wav", dtype="int16")
    source = data / "benchmark" / "vbdemand96" / "noisy" / "p0.flac"
    np.testing.assert_array_equal(samples, soundfile.read(source, dtype="int16")[0])
    assert rate_hz == 16000
    with pytest.raises(ValueError, match="new or empty folder"):
        _run(monkeypatch, *arguments)


def test_listed_files_are_those_of_the_benchmark_folder(shared_data):
    expected, _ = evaluate.read_clips(shared_data, "test", "vbdemand96")
    assert listed_snrs_db("vbdemand96") == {clip.name: clip.snr_db for clip in expected}


@pytest.mark.usefixtures("quick_opinion")
@pytest.mark.parametrize("other", [None, "benchmark/other", "benchmark/vbdemand96"])
def test_benchmark_is_taken_from_the_test_files_of_the_corpus(monkeypatch, data, tmp_path, other):
    """Whoever has VoiceBank+DEMAND itself needs no folder `benchmark`, or has others in it."""
    if other:
        (tmp_path / "vb" / other).mkdir(parents=True)
    source = data / "benchmark" / "vbdemand96"
    for kind in ("clean", "noisy"):
        (tmp_path / "vb" / f"{kind}_testset_wav").mkdir(parents=True)
        for path in (source / kind).iterdir():
            name = tmp_path / "vb" / f"{kind}_testset_wav" / f"{path.stem}.wav"
            soundfile.write(name, *soundfile.read(path))
    listed = {"p2": 7.5, "p0": 2.5}
    monkeypatch.setattr("lmkd_tf.evaluate.evaluation.listed_snrs_db", lambda _: listed)
    clips, is_synthetic = evaluate.read_clips(tmp_path / "vb", "test", "vbdemand96")
    assert [(clip.name, clip.snr_db) for clip in clips] == [("p2", 7.5), ("p0", 2.5)]
    assert not is_synthetic


def test_split_without_recordings_is_an_error(monkeypatch, tmp_path):
    with pytest.raises((FileNotFoundError, ValueError), match=str(tmp_path)):
        _run(monkeypatch, f"--data={tmp_path}", f"--output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_misspelt_baseline_is_refused_before_anything_is_scored(monkeypatch, data, tmp_path):
    with pytest.raises(ValueError, match=r"Received 'nosy'; there are noisy, base \(tflm\)"):
        _run(monkeypatch, *_flags(data, tmp_path / "out"), "--baseline=nosy")
    assert not Path(tmp_path / "out").exists()


@pytest.mark.usefixtures("quick_opinion")
def test_scores_and_baseline_are_checked_before_anything_is_scored(monkeypatch, data, tmp_path):
    _run(monkeypatch, *_flags(data, tmp_path / "out"))
    scores = tmp_path / "out" / "scores.csv"
    monkeypatch.setattr(
        "lmkd_tf.evaluate.evaluation.score_systems", lambda *_: pytest.fail("scored")
    )
    new = (*_flags(data, tmp_path / "new"), "--system=again=nano", f"--scores={scores}")
    with pytest.raises(ValueError, match=r"'nosy'; there are noisy, again, base \(tflm\)\."):
        _run(monkeypatch, *new, "--baseline=nosy")
    scores.write_text(scores.read_text().replace(",0,p0,", ",zero,p0,"))
    with pytest.raises(ValueError, match="Received 'zero' as seed of p0"):
        _run(monkeypatch, *new)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("quick_opinion")
def test_results_of_another_benchmark_are_not_replaced(monkeypatch, data, tmp_path):
    _run(monkeypatch, *_flags(data, tmp_path / "out"))
    before = (tmp_path / "out" / "scores.json").read_text()
    clips = evaluate.read_clips(data, "test", "vbdemand96")
    monkeypatch.setattr(evaluate, "read_clips", lambda *_: clips)
    arguments = ("--benchmark=pairs", f"--data={data}", f"--output={tmp_path / 'out'}")
    with pytest.raises(ValueError, match=r"Received --benchmark=pairs .*Give another --output"):
        _run(monkeypatch, *arguments)
    assert (tmp_path / "out" / "scores.json").read_text() == before


@pytest.mark.parametrize("missing", ["data", "output"])
def test_program_needs_its_folders(monkeypatch, missing):
    given = {"data": "output", "output": "data"}[missing]
    with pytest.raises(ValueError, match=rf"needs --{missing}=FOLDER. Received none"):
        _run(monkeypatch, f"--{given}=x")


def test_program_takes_flags_only(monkeypatch):
    with pytest.raises(ValueError, match=r"takes flags only. Received \['x'\]"):
        _run(monkeypatch, "x")


def test_system_and_preset_exclude_each_other(monkeypatch):
    with pytest.raises(ValueError, match=r"Received --system=nano and wide. Leave one out"):
        _run(monkeypatch, "--data=x", "--output=y", "--system=nano", "--preset=wide")


def _specs(*arguments):
    values = flags.FlagValues()
    evaluate.define_flags(values)
    values(["lmkd-evaluate", *arguments])
    return evaluate._specs(values)


def test_preset_and_model_are_not_taken_for_each_other(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    (network,) = system_specs.read_systems(_specs("--preset=nano"), [])
    assert (network.name, network.facts["backend"]) == ("nano (tflm)", "tflm")
    model = tmp_path / "a=b@2.tflite"
    model.write_bytes(b"1")
    for path, backend in ((model.name, "firmware"), (str(model), "tflite")):
        (network,) = system_specs.read_systems(
            _specs(f"--model={path}", f"--backend={backend}"), []
        )
        assert (network.name, network.facts["backend"]) == (f"a=b@2 ({backend})", backend)
    with pytest.raises(ValueError, match=r"Received '\./small'"):
        system_specs.read_systems(_specs("--model=small"), [])


def test_split_of_recordings_gives_the_configured_clips(shared_data):
    clips, _ = evaluate.read_clips(shared_data, "test", None)
    assert len(clips) == 50
    assert {clip.snr_db for clip in clips} == {-5.0, 0.0, 5.0, 10.0, 15.0}


def test_program_reproduces_the_published_noisy_scores(monkeypatch, shared_data, tmp_path):
    """On four files of the benchmark, with the peers' scores beside ours on the same files."""
    source, copy = shared_data / "benchmark" / "vbdemand96", tmp_path / "benchmark" / "vbdemand96"
    copy.mkdir(parents=True)
    for kind in ("clean", "noisy"):
        (copy / kind).symlink_to(source / kind)
    lines = (source / "manifest.csv").read_text().splitlines()
    (copy / "manifest.csv").write_text("\n".join([lines[0], *lines[1::30]]) + "\n")
    flag = (*_flags(tmp_path, tmp_path / "out"), f"--scores={source / 'peers.csv'}")
    assert _run(monkeypatch, *flag, "--baseline=rnnoise_0.1.1") == 0
    systems = {
        r["system"] for r in json.loads((tmp_path / "out" / "scores.json").read_text())["rows"]
    }
    assert {"noisy", "rnnoise_0.1.1", "gtcrn_vctk"} <= systems


def _descendants(pid):
    """Processes below one, of which those that ended and await their parent do not count."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs the /proc of Linux")
def test_terminated_program_leaves_no_process_and_keeps_its_rows(data, tmp_path, project_root):
    output = tmp_path / "scores"
    command = [sys.executable, "-m", "lmkd_tf.cli.evaluate", *_flags(data, output)]
    environment = {**os.environ, "PYTHONPATH": str(project_root)}
    with subprocess.Popen(
        [*command, "--num_workers=2"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        rows = output / "rows.jsonl"
        _wait_until(lambda: process.poll() is not None or rows.is_file(), 300)
        workers = _descendants(process.pid)
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    assert len(workers) >= 2
    _wait_until(lambda: not any(map(_is_running, workers)), 60)
    assert rows.read_text().splitlines()
    assert not (output / "scores.json").exists()
