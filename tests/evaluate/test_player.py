# SPDX-License-Identifier: Apache-2.0
"""The players of a report, in a browser."""

import time

import numpy as np
import pytest

from lmkd_tf.evaluate.report import write_report
from tests.demo.browser import wait_for

_LABELS = ("noisy", "student", "clean")
_SECONDS = 8
_COUNT_VOICES = """{
  window.numStarted = window.numStopped = 0;
  const {start, stop} = AudioBufferSourceNode.prototype;
  AudioBufferSourceNode.prototype.start = function (...at) {
    numStarted += 1;
    start.apply(this, at);
  };
  AudioBufferSourceNode.prototype.stop = function () {
    numStopped += 1;
    stop.apply(this);
  };
}"""
_PRESS = """(() => {
  const event = new KeyboardEvent("keydown", {bubbles: true, cancelable: true, ...%s});
  document.querySelector("%s").dispatchEvent(event);
  return event.defaultPrevented;
})()"""


@pytest.fixture
def browser(open_browser, tmp_path):
    """Browser on a report with one clip."""
    hiss = 0.05 * np.random.default_rng(0).standard_normal(_SECONDS * 16000)
    write_report(
        tmp_path / "report.html",
        title="A",
        description="B",
        rows=[
            {"system": system, "file": "clip", "snr_db": 0.0, "noise_category": "rain",
             "pesq_wb": 1.5, "stoi": 0.8, "si_sdr_db": 5.0, "note": ""}
            for system in _LABELS[:2]
        ],
        history={},
        clips=[{"name": "clip", "snr_db": 0.0, "sample_rate_hz": 16000,
                "signals": dict.fromkeys(_LABELS, hiss.astype(np.float32))}],
        models=[],
        details={},
        is_synthetic=False,
    )  # fmt: skip
    browser = open_browser()
    browser.open((tmp_path / "report.html").as_uri())
    browser.value(_COUNT_VOICES)
    return browser


def _press(browser, key, selector="body", modifier="{}"):
    """Presses a key and returns whether the page took it from the browser."""
    return browser.value(_PRESS % (f'{{key: "{key}", ...{modifier}}}', selector))


def _position(browser):
    return browser.value("document.querySelector('.position output').textContent")


def _is_playing(browser):
    return browser.value("document.querySelector('.clip').classList.contains('is-playing')")


def _wait_for_one_set_of_voices(browser):
    wait_for(lambda: browser.value("numStarted") >= len(_LABELS), "the voices")
    time.sleep(0.5)  # a second set would follow at once
    assert browser.value("numStarted - numStopped") == len(_LABELS)


def test_three_quick_clicks_start_one_set_of_voices(browser):
    browser.value("for (let i = 0; i < 3; i += 1) document.querySelector('.play').click()")
    _wait_for_one_set_of_voices(browser)
    browser.value("document.querySelector('.play').click()")
    assert browser.value("numStarted - numStopped") == 0


def test_held_space_starts_the_clip_once(browser):
    assert _press(browser, " ")
    for _ in range(3):
        assert _press(browser, " ", modifier="{repeat: true}")  # else the page would scroll
    assert _is_playing(browser)
    _wait_for_one_set_of_voices(browser)


def test_arrow_keys_seek_while_paused(browser):
    assert _position(browser) == "0.0 s / 8.0 s"
    for _ in range(3):
        assert _press(browser, "ArrowRight")
    assert _press(browser, "ArrowLeft")
    assert _position(browser) == "2.0 s / 8.0 s"
    assert not _press(browser, "ArrowRight", ".scroll")  # a table scrolls
    assert _position(browser) == "2.0 s / 8.0 s"


@pytest.mark.parametrize("modifier", ["ctrlKey", "metaKey", "altKey"])
def test_blind_test_leaves_key_combinations_to_the_browser(browser, modifier):
    assert not _press(browser, "x", ".blind summary")  # it is closed
    browser.value("document.querySelector('.blind summary').click()")
    wait_for(lambda: browser.value("document.querySelector('.blind').open"), "the blind test")
    for letter in "ax":
        assert not _press(browser, letter, ".blind summary", f"{{{modifier}: true}}")
    assert not _is_playing(browser)
    assert _press(browser, "x", ".blind summary")
    assert _is_playing(browser)


def test_position_is_not_read_out_while_a_clip_plays(browser):
    assert browser.value("document.querySelector('.position output').ariaLive") == "off"
