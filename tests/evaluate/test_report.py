# SPDX-License-Identifier: Apache-2.0
import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from lmkd_tf.evaluate.report import write_report

_SYSTEMS = ("noisy", "teacher", "student", "pruned", "student <int8>")
_PROBE = """<script>
document.documentElement.style.width = "360px";
const wide = [...document.body.querySelectorAll("*")].filter(e => !e.closest(".scroll > *"))
  .filter(e => e.getBoundingClientRect().right > 361);
const clip = document.querySelector(".clip");
document.dispatchEvent(new KeyboardEvent("keydown", {key: "3"}));
clip.querySelectorAll(".picture")[1].dispatchEvent(new MouseEvent("click", {clientX: 1e6}));
document.title = ["wide", wide.map(e => e.className || e.tagName),
  "chosen", [...clip.querySelectorAll("[role=radio]")].findIndex(
    e => e.getAttribute("aria-checked") === "true"),
  "at", clip.querySelector("output").textContent].join(" ");
</script>"""


def _rows():
    return [
        {"system": system, "file": f"clip{clip}", "snr_db": snr, "noise_category": "rain",
         "pesq_wb": 1.2 + 0.3 * index + 0.01 * clip, "stoi": 0.8 + 0.01 * index,
         "si_sdr_db": snr + 2.0 * index, "note": ""}
        for index, system in enumerate(_SYSTEMS)
        for snr in (-5.0, 0.0, 5.0)
        for clip in range(4)
    ]  # fmt: skip


def _clips(num_samples=16000, num_clips=4):
    rng = np.random.default_rng(0)
    labels = ("noisy", "teacher", "student <int8>", "clean")
    return [
        {
            "name": f"clip{index}",
            "snr_db": 0.0,
            "sample_rate_hz": 16000,
            "signals": {
                label: (0.05 * rng.standard_normal(num_samples)).astype(np.float32)
                for label in labels
            },
        }
        for index in range(num_clips)
    ]


def _arguments():
    return {
        "title": "A & B",
        "description": "Fake figures.",
        "rows": _rows(),
        "history": {
            "teacher": {"loss": [1.0, 0.5], "val_loss": [1.1, 0.7]},
            "student": {"loss": [2.0, 1.0], "latent_mixup_loss": [0.3, 0.2]},
            "export": {},
        },
        "clips": _clips(),
        "models": [
            {"name": "teacher", "parameters": 800000, "macs_per_hop": 780000, "bytes": 3200000,
             "arena_bytes": None, "note": "float32"},
            {"name": "student <int8>", "parameters": 40000, "macs_per_hop": 39000,
             "bytes": 60100, "arena_bytes": 18400, "note": ""},
        ],
        "details": {"seed": 7, "distill": {"mixup_alpha": 1.0, "taps": [{"a": 1}]}},
        "is_synthetic": True,
    }  # fmt: skip


class _Counter(HTMLParser):
    """Counts tags and collects addresses."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def report(tmp_path):
    write_report(tmp_path / "report.html", **_arguments())
    return tmp_path / "report.html"


def test_report_has_players_spectrograms_tables_and_curves(report):
    tags = _Counter(report.read_text()).tags
    assert tags["audio"] == tags["img"] == 4 * 4
    assert tags["table"] == 3 + 1 + 2  # metrics, models, two groups of settings
    assert tags["svg"] >= 3 + 3 + len(_SYSTEMS)


def test_report_loads_nothing_from_elsewhere(report):
    addresses = _Counter(report.read_text()).addresses
    assert all(re.match(r"data:(image/png|audio/wav);|#", address) for address in addresses)
    assert not re.search(r"https?://|@import|url\(", report.read_text())


def test_report_states_the_gain_over_the_noisy_speech(report):
    text = report.read_text()
    assert '<div class="value">+1.20</div>' in text  # four systems of 0.3 each
    assert '<div class="value">+8.00<small>dB</small></div>' in text
    assert "40,000 parameters, 20 times fewer than teacher" in text
    assert '<div class="value">2.44<small>MMAC/s</small>' in text  # 39000 * 62.5 hops
    assert '<div class="value">18.4<small>kB</small>' in text


def test_report_marks_a_loss_of_quality_with_a_minus_sign(tmp_path):
    arguments = _arguments()
    arguments["rows"] = [row for row in _rows() if row["system"] != "noisy"][::-1]
    write_report(tmp_path / "report.html", **arguments)
    assert '<div class="value">\N{MINUS SIGN}0.90</div>' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("is_synthetic", [True, False])
def test_report_says_whether_the_corpus_is_synthetic(tmp_path, is_synthetic):
    arguments = {**_arguments(), "is_synthetic": is_synthetic}
    write_report(tmp_path / "report.html", **arguments)
    text = (tmp_path / "report.html").read_text()
    assert ("corpus of this run is synthetic" in text) == is_synthetic


def test_report_calls_the_method_a_reconstruction(report):
    assert "<strong>reconstruction</strong>" in report.read_text()


def test_report_escapes_what_it_is_given(report):
    text = report.read_text()
    assert "<h1>A &amp; B</h1>" in text
    assert "student &lt;int8&gt;" in text
    assert "<int8>" not in text


def test_report_stays_small_with_long_clips(tmp_path):
    arguments = {**_arguments(), "clips": _clips(num_samples=30 * 16000, num_clips=8)}
    write_report(tmp_path / "report.html", **arguments)
    assert (tmp_path / "report.html").stat().st_size < 12e6


def test_report_without_clips_models_and_history_is_still_whole(tmp_path):
    arguments = {**_arguments(), "clips": [], "models": [], "history": {}, "details": {}}
    arguments["rows"] = [{**row, "pesq_wb": None} for row in _rows() if row["snr_db"] == 0.0]
    write_report(tmp_path / "report.html", **arguments)
    text = (tmp_path / "report.html").read_text()
    assert "No model was recorded" in text
    assert "No training was recorded" in text
    assert "20 of 20 rows" in text


def test_report_without_rows_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one score"):
        write_report(tmp_path / "report.html", **{**_arguments(), "rows": []})
    assert list(tmp_path.iterdir()) == []


def test_report_with_signals_of_different_length_is_an_error(tmp_path):
    arguments = _arguments()
    arguments["clips"][1]["signals"]["noisy"] = np.zeros(5)
    with pytest.raises(ValueError, match=r"one length.*clip 'clip1'"):
        write_report(tmp_path / "report.html", **arguments)


def test_report_opens_in_a_browser_and_fits_a_phone(report, tmp_path, require_tool):
    chromium = require_tool("chromium", "chromium")
    probed = tmp_path / "probed.html"
    probed.write_text(report.read_text().replace("</body>", _PROBE + "</body>"))
    command = (
        f"{chromium} --headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--hide-scrollbars --enable-logging=stderr --window-size=500,900 "
        f"--user-data-dir={tmp_path / 'profile'} --virtual-time-budget=2000 --dump-dom"
    )
    result = subprocess.run(
        [*command.split(), probed.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in result.stderr
    assert 'class="has-script"' in result.stdout
    assert "<title>wide  chosen 1 at 1.0 s / 1.0 s</title>" in result.stdout
    assert result.stdout.count('<tr class="shipped">') == 3 + 1
    assert result.stdout.count('scope="row"') == 3 * len(_SYSTEMS) + 2 + 3
