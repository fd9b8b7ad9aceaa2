# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from pathlib import Path

import pytest

from lmkd_tf.cli import preset_cards
from lmkd_tf.config.files import read_json, sha256_of
from lmkd_tf.models import presets as preset_module
from lmkd_tf.models.presets import preset_files, preset_names

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"
SETS = {"test", "vbdemand96"}


def test_the_page_says_what_the_records_say():
    assert PAGE.read_text() == preset_cards.page(), "Run python -m lmkd_tf.cli.preset_cards."


@pytest.mark.parametrize("name", preset_names())
def test_every_arithmetic_of_a_preset_has_scores_on_both_sets(name):
    scores = read_json(preset_files(name)["record"])["scores"]
    kinds = {"noisy", "float"} | ({"int8 (TFLM)"} if "tflite" in preset_files(name) else set())
    assert set(scores) == SETS
    assert all(set(entry["systems"]) == kinds for entry in scores.values())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the shipped preset `nano`, alone, without scores."""
    presets = tmp_path / "presets"
    presets.mkdir()
    for path in preset_files("nano").values():
        shutil.copy(path, presets)
    record = read_json(presets / "nano.json")
    record.pop("scores")
    (presets / "nano.json").write_text(json.dumps(record))
    monkeypatch.setattr(preset_module, "_folder", lambda: presets)
    return tmp_path


def _rows(system, values):
    """Two clips; `values` are (PESQ, STOI, SI-SDR) of each."""
    facts = [("a", 0.0, "rain"), ("b", 15.0, "pouring_water")]
    return [
        {"system": system, "file": file, "snr_db": snr_db, "noise_category": noise}
        | dict(zip(("pesq_wb", "stoi", "si_sdr_db"), scores, strict=True))
        for (file, snr_db, noise), scores in zip(facts, values, strict=True)
    ]


def _networks():
    """The two networks of the preset as lmkd-evaluate names them."""
    files = preset_files("nano")
    return [
        {"name": name, "backend": backend, "sha256": {"file": sha256_of(files[kind])}}
        for name, backend, kind in (("mine", "tflm", "tflite"), ("whole", "keras", "weights"))
    ]


def _scores(folder, networks):
    summary = [
        {"system": system, "group": group, "num_clips": 2}
        | {m: {"mean": mean, "low": mean - 0.5, "high": mean + 0.5} for m in preset_cards.METRICS}
        for system, mean in (("noisy", 1.0), ("mine", 2.0), ("whole", 3.0))
        for group in ("0 dB", "all", "mean of SNRs")
    ]
    rows = _rows("noisy", [(1.2, 0.7, 0.0), (2.5, 0.9, None)])
    rows += _rows("mine", [(1.9, 0.6, 9.0), (2.25, 0.88, 1.0)])
    rows += _rows("whole", [(1.0, 0.1, -9.0), (1.0, 0.1, -9.0)])
    folder_of_files = {"name": "theirs", "kind": "folder", "sha256": "0" * 64}
    results = {
        "systems": [{"name": "noisy"}, folder_of_files, *networks],
        "settings": {"benchmark": None, "split": "test"},
        "git_commit": "c0ffee",
        "bootstrap_seed": 0,
        "summary": summary,
        "rows": rows,
    }
    path = folder / "scores.json"
    path.write_text(json.dumps(results))
    return path


def test_scores_of_the_very_files_reach_the_card(folder):
    path = _scores(folder, _networks())
    assert "Not scored yet." in preset_cards.card("nano")
    assert preset_cards.add_scores(path) == ["nano"]
    lines = preset_cards.card("nano").splitlines()
    for label, mean in (("float", 3), ("int8 (TFLM)", 2)):
        interval = f"{mean}.00 [{mean - 1}.50, {mean}.50]"
        stoi = f"{mean}.000 [{mean - 1}.500, {mean}.500]"
        si_sdr = f"{mean}.0 [{mean - 1}.5, {mean}.5]"
        cells = [label, "all", "2", interval, stoi, si_sdr, *[interval] * 3]
        assert f"| {' | '.join(cells)} |" in lines
    # By hand: PESQ falls by 0.25 on b, STOI by 0.1 on a and 0.02 on b; b has no SI-SDR before.
    assert (
        "Below the noisy input, int8 (TFLM): PESQ-WB on 1 of 2 (at the worst by 0.25, at 15 dB of "
        "pouring water); STOI on 2 of 2 (at the worst by 0.100, at 0 dB of rain); SI-SDR (dB) on "
        "no clip." in lines
    )


def _other_file(networks):
    return [network | {"sha256": {"file": "0" * 64}} for network in networks]


def _other_arithmetic(networks):
    return [network | {"backend": "firmware"} for network in networks]


def _several_seeds(networks):
    return [network for network in networks for _ in range(2)]


def _one_arithmetic(networks):
    return networks[:1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_file, r"Received .*scores\.json, which scored none of them"),
        (_other_arithmetic, r"Received .*scores\.json, which scored none of them"),
        (_several_seeds, r"Received .*scores\.json, which scored none of them"),
        (_one_arithmetic, r"Score --system=nano@keras --system=nano@tflm\."),
    ],
)
def test_scores_of_something_else_are_refused_and_nothing_is_written(folder, change, message):
    before = preset_files("nano")["record"].read_bytes()
    path = _scores(folder, change(_networks()))
    with pytest.raises(ValueError, match=message):
        preset_cards.add_scores(path)
    assert preset_files("nano")["record"].read_bytes() == before
