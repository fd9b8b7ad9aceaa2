# SPDX-License-Identifier: Apache-2.0
import csv
import json

import numpy as np
import pytest
import soundfile
from absl import flags

from lmkd_tf.cli import evaluate
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.evaluate import scores


class HalvingBackend:
    """Gains of one half: every metric must be that of the noisy speech."""

    stft, num_bands, name = StftConfig(), 32, "half"

    def reset(self):
        pass

    def gains(self, features):
        return np.full_like(features, 0.5)


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(evaluate, "choose_backend", lambda *_: HalvingBackend)
    score_clips = scores.score_clips
    monkeypatch.setattr(
        scores, "score_clips", lambda *args, **kwargs: score_clips(*args, num_workers=0, **kwargs)
    )
    values = flags.FlagValues()
    evaluate.define_flags(values)
    return evaluate.main(values(["lmkd-evaluate", *map(str, arguments)]), values)


def _tone(seconds, seed):
    time = np.arange(round(16000 * seconds)) / 16000
    tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return 0.05 * tone * np.sin(2 * np.pi * 3 * time) ** 2, 0.01 * noise


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


def test_program_scores_the_noisy_speech_and_the_network(monkeypatch, data, tmp_path, capsys):
    output = tmp_path / "scores"
    flag = ("--benchmark=vbdemand96", f"--data={data}", f"--output={output}")
    assert _run(monkeypatch, *flag, "--preset=nano") == 0
    result = json.loads((output / "scores.json").read_text())
    assert [row["system"] for row in result["rows"]] == ["noisy"] * 3 + ["nano (half)"] * 3
    assert result["settings"]["benchmark"] == "vbdemand96"
    assert result["settings"]["backend"] == "half"
    noisy, halved = result["rows"][:3], result["rows"][3:]
    for first, second in zip(noisy, halved, strict=True):
        assert second["si_sdr_db"] == pytest.approx(first["si_sdr_db"], abs=1e-3)
    assert (output / "scores.md").read_text().count("\n") == 2 + 2 * 4
    assert "mean of SNRs" in capsys.readouterr().out


def test_split_without_recordings_is_an_error(monkeypatch, tmp_path):
    with pytest.raises((FileNotFoundError, ValueError), match=str(tmp_path)):
        _run(monkeypatch, f"--data={tmp_path}", f"--output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["data", "output"])
def test_program_needs_its_folders(monkeypatch, missing):
    given = {"data": "output", "output": "data"}[missing]
    with pytest.raises(ValueError, match=rf"needs --{missing}=FOLDER. Received none"):
        _run(monkeypatch, f"--{given}=x")


def test_program_takes_flags_only(monkeypatch):
    with pytest.raises(ValueError, match=r"takes flags only. Received \['x'\]"):
        _run(monkeypatch, "x")


def test_split_of_recordings_gives_the_configured_clips(shared_data):
    clips = evaluate.read_clips(shared_data, "test", None)
    assert len(clips) == 50
    assert {clip.snr_db for clip in clips} == {-5.0, 0.0, 5.0, 10.0, 15.0}
