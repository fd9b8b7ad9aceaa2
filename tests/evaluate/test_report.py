# SPDX-License-Identifier: Apache-2.0
import base64
import io
import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from lmkd_tf.dsp.level import active_level_dbfs
from lmkd_tf.evaluate.comparison import compare
from lmkd_tf.evaluate.report import write_report

_SYSTEMS = ("noisy", "teacher", "student", "pruned", "student <int8>")
_PROBE = """<script>
document.documentElement.style.width = "360px";
document.querySelectorAll("details").forEach(details => { details.open = true; });
const wide = [...document.body.querySelectorAll("*")].filter(e => !e.closest(".scroll > *"))
  .filter(e => e.getBoundingClientRect().right > 361);
const clip = document.querySelector(".clip");
document.dispatchEvent(new KeyboardEvent("keydown", {key: "3"}));
clip.querySelectorAll(".picture")[1].dispatchEvent(new MouseEvent("click", {clientX: 1e6}));
const chosen = [...clip.querySelectorAll("[role=radio]")].findIndex(
  e => e.getAttribute("aria-checked") === "true");
const position = clip.querySelector("output").textContent;
const blind = clip.querySelector(".blind"), [isA, isB] = blind.querySelectorAll("[data-answer]");
blind.dispatchEvent(new Event("toggle"));
const isLocked = isA.disabled;
const key = new KeyboardEvent("keydown", {key: "x", bubbles: true});
blind.querySelector("summary").dispatchEvent(key);
const isShown = clip.querySelector(".is-chosen, [aria-checked=true]") !== null;
isA.click();
document.title = ["wide", wide.map(e => e.className || e.tagName), "chosen", chosen,
  "at", position, "locked", isLocked, "shown", isShown, isB.disabled,
  blind.querySelector("output").textContent.replace(/X was [AB]. [01]/, "")].join(" ");
</script>"""


def _rows():
    return [
        {"system": system, "file": f"clip{clip}", "snr_db": snr, "noise_category": "rain",
         "pesq_wb": 1.2 + 0.3 * index + 0.01 * clip, "stoi": 0.8 + 0.01 * index,
         "si_sdr_db": snr + 2.0 * index, "csig": 3.0, "note": ""}
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
        "comparisons": compare(_rows(), "student <int8>", "noisy"),
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


def _samples(address):
    return soundfile.read(io.BytesIO(base64.b64decode(address.split(",")[1])))[0]


@pytest.fixture
def report(tmp_path):
    write_report(tmp_path / "report.html", **_arguments())
    return tmp_path / "report.html"


def test_report_has_players_spectrograms_tables_and_curves(report):
    tags = _Counter(report.read_text()).tags
    assert tags["audio"] == tags["img"] == 4 * 4
    assert tags["table"] == 4 + 1 + 1 + 2  # metrics, pairs, models, two groups of settings
    assert tags["svg"] >= 4 + 2 + 3 + len(_SYSTEMS)


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


def test_report_states_paired_differences_and_wins(report):
    text = report.read_text()
    assert "Difference to noisy on the same clips" in text
    assert "<td>+1.20<small>+1.20 to +1.20</small><small>wins 100 %</small></td>" in text


def test_report_draws_quality_over_cost_with_published_systems(tmp_path):
    published = [
        {"name": "P & Q", "training": "DNS-3", "pesq_wb": 2.0, "dnsmos_ovrl": 2.5,
         "macs_per_second": 33e6, "bytes": None},
        {"name": "measured", "training": "VCTK", "pesq_wb": {"mean": 2.1, "low": 1.9, "high": 2.2},
         "dnsmos_ovrl": None, "macs_per_second": 40e6, "bytes": None},
    ]  # fmt: skip
    arguments = _arguments()
    arguments["models"][1]["instructions_per_hop"] = 255972
    write_report(tmp_path / "r.html", **arguments, published=published)
    text = (tmp_path / "r.html").read_text()
    assert text.count('aria-label="PESQ-WB over multiply-adds per second"') == 1
    assert text.count('aria-label="PESQ-WB over bytes of the network"') == 1
    measured = 'aria-label="PESQ-WB over instructions per hop, firmware on Cortex-M4F"'
    assert text.count(measured) == 1
    assert text.count(">P &amp; Q</text>") == 1
    assert "P &amp; Q: DNS-3" in text
    assert "<td>255,972</td>" in text
    assert text.count('<line class="whisker s0"') >= 1  # the interval of a published system
    assert '<div class="value">255,972</div>' in text


def test_figures_at_the_top_are_those_of_the_system_that_ships(tmp_path):
    write_report(tmp_path / "report.html", **_arguments(), shipped="teacher")
    text = (tmp_path / "report.html").read_text()
    assert '<div class="value">+0.30</div>' in text
    assert text.count('<tr class="shipped"><th scope="row">teacher</th>') == 4


def test_versions_of_a_clip_are_played_at_one_level(tmp_path):
    arguments = _arguments()
    signals = arguments["clips"][0]["signals"]
    signals["noisy"], signals["clean"] = 2.0 * signals["noisy"], 0.3 * signals["clean"]
    write_report(tmp_path / "report.html", **arguments)
    sounds = [a for a in _Counter((tmp_path / "report.html").read_text()).addresses if "wav" in a]
    levels = [active_level_dbfs(_samples(sound)) for sound in sounds[: len(signals)]]
    assert np.ptp(levels) < 0.05
    assert max(np.abs(_samples(sound)).max() for sound in sounds) == pytest.approx(0.9, abs=0.01)


def test_many_systems_are_all_in_the_tables_and_some_in_the_charts(tmp_path):
    rows = [{**row, "system": f"s{index}"} for index in range(9) for row in _rows()[:12]]
    write_report(tmp_path / "report.html", **{**_arguments(), "rows": rows, "comparisons": ()})
    text = (tmp_path / "report.html").read_text()
    assert "7 of the systems are drawn" in text
    assert text.count('<th scope="row">s8</th>') == 4


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
        "--autoplay-policy=no-user-gesture-required --hide-scrollbars "
        "--enable-logging=stderr --window-size=500,900 "
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
    assert "<title>wide  chosen 1 at 1.0 s / 1.0 s locked true shown false true" in result.stdout
    assert re.search(r" of 1 right; by guessing, .* (0.500|1.000).</title>", result.stdout)
    assert result.stdout.count('<tr class="shipped">') == 4 + 1
    assert result.stdout.count('scope="row"') == 4 * len(_SYSTEMS) + 1 + 2 + 3


def test_unknown_snr_of_a_clip_is_left_out(tmp_path):
    arguments = _arguments()
    arguments["clips"] = [{**clip, "snr_db": None} for clip in arguments["clips"][:1]]
    write_report(tmp_path / "r.html", **arguments)
    text = (tmp_path / "r.html").read_text()
    assert "</h3><span>1.0 s</span>" in text
    assert "nan dB" not in text
