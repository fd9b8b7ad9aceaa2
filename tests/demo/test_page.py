# SPDX-License-Identifier: Apache-2.0
"""The page in a browser: the sound that comes back is the file that lmkd-enhance writes."""

import base64
import io
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from lmkd_tf.cli.enhance import DEFAULT_PRESET
from lmkd_tf.demo import server
from lmkd_tf.demo.server import Limits
from lmkd_tf.evaluate.backends import open_backend
from lmkd_tf.evaluate.enhance import enhance_file
from lmkd_tf.models.presets import preset_files
from tests.demo.browser import OTHER_NAME, wait_for

_SAVED = """fetch(document.getElementById("save-%s").href).then(r => r.arrayBuffer())
  .then(b => btoa([...new Uint8Array(b)].map(x => String.fromCharCode(x)).join("")))"""

_PICTURE = "document.getElementById('picture-%s').toDataURL()"
_WIDTH = """(span => span.getBoundingClientRect().width /
  span.parentElement.getBoundingClientRect().width)(document.querySelector("#meter-%s span"))"""


# The browser's question is answered by `allow()`; `heard` is what the page gets then.
_SLOW_PERMISSION = """{
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (constraints) => {
    window.heard = await ask(constraints);
    return new Promise((resolve) => { window.allow = () => resolve(window.heard); });
  };
}"""


@pytest.fixture
def voice(tmp_path, speechlike):
    path = tmp_path / "voice.wav"
    soundfile.write(path, speechlike, 16000)
    return path


@pytest.fixture
def speechlike():
    time_s = np.arange(2 * 16000 + 77) / 16000
    tone = sum(np.sin(2 * np.pi * 150 * k * time_s) / k for k in range(1, 20))
    hiss = 0.02 * np.random.default_rng(0).standard_normal(len(time_s))
    return (0.1 * tone * np.sin(2 * np.pi * 3 * time_s) ** 2 + hiss).astype(np.float32)


@pytest.fixture
def program(project_root):
    """Address that the real program prints; it runs the shipped int8 network in TFLite Micro."""
    command = [sys.executable, "-m", "lmkd_tf.cli.demo", "--port=0"]
    with subprocess.Popen(command, cwd=project_root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in (0, 130, -signal.SIGINT)


def _saved(browser, which):
    content = base64.b64decode(browser.value(_SAVED % which))
    samples, rate_hz = soundfile.read(io.BytesIO(content), dtype="int16")
    assert rate_hz == 16000
    return samples


def _state(browser):
    return browser.value("document.body.dataset.state")


def _play(browser, path, state="finished"):
    browser.choose_file("#file", path)
    if state != "failed":  # a refusal may come before "running" was seen
        wait_for(lambda: _state(browser) == "running", "running")
    wait_for(lambda: _state(browser) == state, state)


def _text(browser, name):
    return browser.value(f"document.getElementById('{name}').textContent")


def _enhanced(samples, tmp_path):
    """What lmkd-enhance writes for these samples."""
    source, target = tmp_path / "source.wav", tmp_path / "target.wav"
    soundfile.write(source, samples, 16000)
    network = preset_files(DEFAULT_PRESET)["tflite"]
    enhance_file(source, target, lambda: open_backend("tflm", network), overwrite=True)
    return soundfile.read(target, dtype="int16")[0]


def test_sound_that_comes_back_is_what_lmkd_enhance_writes(program, open_browser, voice, tmp_path):
    browser = open_browser(microphone=voice)
    browser.open(program)
    browser.value("document.getElementById('microphone').click()")
    wait_for(lambda: float(_text(browser, "seconds").split()[0]) > 1.5, "microphone")
    browser.value("document.getElementById('stop').click()")
    wait_for(lambda: _state(browser) == "finished", "the end")
    heard = _saved(browser, "in")
    assert len(heard) > 16000
    assert np.std(heard) > 100  # the voice in the file, not silence
    np.testing.assert_array_equal(_saved(browser, "out"), _enhanced(heard, tmp_path))

    recorded = soundfile.read(voice, dtype="int16")[0]
    _play(browser, voice)
    np.testing.assert_array_equal(_saved(browser, "in"), recorded)
    np.testing.assert_array_equal(_saved(browser, "out"), _enhanced(recorded, tmp_path))

    base = program.partition("?")[0].removeprefix("http://")
    own = (f"http://{base}", f"ws://{base}", "blob:", "data:")
    assert [a for a in browser.addresses() if not a.startswith(own)] == []
    assert browser.complaints() == []


def test_levels_and_spectrograms_show_what_goes_in_and_comes_out(
    serve, open_browser, voice, speechlike
):
    browser = open_browser()
    browser.open(serve().page)
    blank = [browser.value(_PICTURE % which) for which in ("in", "out")]
    assert blank[0] == blank[1]
    browser.choose_file("#file", voice)
    wait_for(lambda: browser.value(_WIDTH % "in") > 0.1, "level that goes in")
    wait_for(lambda: browser.value(_WIDTH % "out") > 0.05, "level that comes out")
    wait_for(lambda: _state(browser) == "finished", "the end")
    pictures = [browser.value(_PICTURE % which) for which in ("in", "out")]
    assert len({blank[0], *pictures}) == 3


def test_settings_reach_the_network(serve, open_browser, voice, tmp_path):
    browser = open_browser()
    browser.open(serve().page)
    browser.value("document.getElementById('bypass').click()")
    _play(browser, voice)
    np.testing.assert_allclose(_saved(browser, "out"), _saved(browser, "in"), atol=1)
    browser.value("document.getElementById('bypass').click()")
    _play(browser, voice)
    free = _saved(browser, "out")
    browser.value("limit.value = 3; limit.dispatchEvent(new Event('input'))")
    assert _text(browser, "limit-text") == "3 dB"
    _play(browser, voice)
    assert np.std(_saved(browser, "out")) > 1.1 * np.std(free)


def test_dropouts_of_a_slow_network_are_counted(
    serve, open_browser, voice, make_backend, monkeypatch
):
    gains = make_backend.gains

    def slow(self, features):
        time.sleep(0.1)
        return gains(self, features)

    monkeypatch.setattr(make_backend, "gains", slow)
    browser = open_browser()
    browser.open(serve().page)
    browser.choose_file("#file", voice)
    wait_for(lambda: int(_text(browser, "dropouts")) > 2, "dropouts")


def test_microphone_allowed_after_stop_is_let_go(serve, open_browser, voice):
    browser = open_browser(microphone=voice)
    browser.open(serve().page)
    browser.value(_SLOW_PERMISSION)
    browser.value("document.getElementById('microphone').click()")
    wait_for(lambda: browser.value("typeof allow") == "function", "the question")
    browser.value("document.getElementById('stop').click()")
    assert _text(browser, "status") == "Stopped."
    browser.value("allow()")
    wait_for(lambda: browser.value("heard.getTracks()[0].readyState") == "ended", "its end")
    assert _text(browser, "status") == "Stopped."


def test_refusal_and_broken_file_are_told(serve, open_browser, voice, tmp_path):
    browser = open_browser()
    browser.open(serve(Limits(num_streams=0)).page)
    _play(browser, voice, "failed")
    assert _text(browser, "status") == "All streams are in use. Try again later."
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    browser.open(serve().page)
    _play(browser, tmp_path / "broken.wav", "failed")
    assert "decode" in _text(browser, "status")


def test_page_without_https_says_why_it_gives_no_sound(serve, open_browser, voice):
    browser = open_browser()
    browser.open(serve(name=OTHER_NAME).page)
    assert not browser.value("isSecureContext")
    assert "over HTTPS" in _text(browser, "status")
    controls = "[...document.querySelectorAll('button, input')]"
    assert browser.value(f"{controls}.length") == 5
    assert browser.value(f"{controls}.every(control => control.disabled)")
    browser.choose_file("#file", voice)
    assert _state(browser) == "idle"
    assert browser.complaints() == []


def test_saving_ends_with_the_minutes_that_are_kept(serve, open_browser, voice, monkeypatch):
    resource = server._resource

    def shortened(name):
        text = resource(name)
        return text.replace("MAX_SAVED_SECONDS = 600", "MAX_SAVED_SECONDS = 0.6")

    browser = open_browser()
    browser.open(serve().page)
    _play(browser, voice)
    assert _text(browser, "kept") == ""
    monkeypatch.setattr(server, "_resource", shortened)
    browser.open(serve().page)
    _play(browser, voice)
    assert _text(browser, "kept") == "Only the first 0.01 minutes are kept for saving."
    assert len(_saved(browser, "in")) == len(_saved(browser, "out")) == 38 * 256  # 0.6 s and a bit


def test_levels_are_not_read_out(serve, open_browser):
    browser = open_browser()
    browser.open(serve().page)
    live = "[...document.querySelectorAll('output, [role=status], [aria-live]')].map(e => e.id)"
    assert browser.value(live) == ["status", "limit-text", "kept"]


def test_page_fits_a_phone_and_every_control_is_reached_by_keyboard(serve, open_browser):
    browser = open_browser()
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=360,
        height=780,
        deviceScaleFactor=1,
        mobile=True,
    )
    browser.open(serve(model_name="a-rather-long-name-of-a-network_int8.tflite").page)
    assert browser.value("document.documentElement.scrollWidth") <= 360
    reached = []
    for _ in range(6):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                         windowsVirtualKeyCode=9)  # fmt: skip
        reached.append(browser.value("document.activeElement.id"))
    assert reached[:4] == ["microphone", "file", "limit", "bypass"]
