# SPDX-License-Identifier: Apache-2.0
import base64
import io
import itertools
import re
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.evaluate.charts import (
    Line,
    Point,
    data_uri,
    line_chart,
    mark,
    png,
    scatter_chart,
    spectrogram_png,
    spectrum_db,
    ticks,
    wav,
)


def _decode(image):
    """Decodes the palette images that we write, by the PNG specification."""
    chunks, position = {}, 8
    while position < len(image):
        length, kind = struct.unpack(">I4s", image[position : position + 8])
        data = image[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", image[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(kind + data)
        chunks[kind] = data
        position += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    return rows[:, 1:], np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)


def test_png_holds_pixels_and_palette():
    pixels = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = np.array([[0, 0, 0], [9, 8, 7], [255, 255, 255]], np.uint8)
    image = png(pixels, palette)
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    decoded, colors = _decode(image)
    np.testing.assert_array_equal(decoded, pixels)
    np.testing.assert_array_equal(colors, palette)


def test_spectrogram_shows_a_tone_at_its_frequency():
    samples = 0.5 * np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000)
    level_db = spectrum_db(samples, StftConfig())
    assert set(np.argmax(level_db[2:-2], axis=1)) == {64}  # 2000 Hz in bins of 31.25 Hz
    pixels, _ = _decode(spectrogram_png(samples, StftConfig(), float(level_db.max())))
    assert pixels.shape == (257, 64)  # 63 hops of 256 samples, and one for the overlap
    assert set(np.argmax(pixels[:, 2:-2], axis=0)) == {256 - 64}  # high frequencies on top


def test_wav_is_read_back_exactly():
    samples = np.array([0.0, 0.5, -0.25], np.float32)
    decoded, rate_hz = soundfile.read(io.BytesIO(wav(samples, 22050)))
    assert rate_hz == 22050
    np.testing.assert_array_equal(decoded, samples)


def test_data_uri_holds_the_content():
    assert base64.b64decode(data_uri(b"abc", "text/plain").split(",")[1]) == b"abc"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.1, 2.9, [1.0, 1.5, 2.0, 2.5, 3.0]),
        (-3, 17, [-5, 0, 5, 10, 15, 20]),
        (0.82, 0.98, [0.8, 0.85, 0.9, 0.95, 1.0]),
        (0, 0, [-0.5, -0.25, 0.0, 0.25, 0.5]),
    ],
)
def test_ticks_are_round_and_enclose_the_range(low, high, expected):
    assert ticks(low, high) == expected


def test_line_chart_is_valid_and_puts_higher_values_higher():
    line = Line("a < b", 1, [0, 5], [1.0, 2.0], ([0.9, 1.8], [1.1, 2.2]))
    svg = line_chart([line], x_title="SNR (dB)", y_title="PESQ", has_marks=True)
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "PESQ over SNR (dB)"
    (path,) = root.findall("polyline")
    first, second = (tuple(map(float, p.split(","))) for p in path.attrib["points"].split())
    assert first[0] < second[0]
    assert first[1] > second[1]
    assert len(root.findall("polygon")) == 1 + 2  # the interval and two square marks


def test_whiskers_of_systems_stand_side_by_side():
    band = ([0.5, np.nan], [1.5, np.nan])
    lines = [
        Line("a", index, [0, 5], [1.0, np.nan], band, has_whiskers=True, shift=4.0 * index)
        for index in range(2)
    ]
    root = ElementTree.fromstring(line_chart(lines, x_title="x", y_title="y", has_marks=True))
    whiskers = [e.attrib for e in root.findall("line") if e.attrib["class"].startswith("whisker")]
    first, second = (float(whisker["x1"]) for whisker in whiskers)
    assert second - first == pytest.approx(4.0)
    (circle,) = root.findall("circle")  # the other mark is a square
    assert float(circle.attrib["cx"]) == first
    low, high = (float(whiskers[0][key]) for key in ("y1", "y2"))
    assert low > float(circle.attrib["cy"]) > high
    assert not [e for e in root.findall("polygon") if "band" in e.attrib["class"]]


def test_line_chart_leaves_a_gap_where_there_is_no_value():
    line = Line("a", 0, [0, 5, 10], [1.0, np.nan, 2.0])
    svg = line_chart([line], x_title="x", y_title="y", has_marks=True)
    root = ElementTree.fromstring(svg)
    assert len(root.findall("circle")) == 2
    assert "nan" not in svg


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [np.nan]])
def test_line_chart_copes_with_flat_single_and_missing_values(values):
    line = Line("a", 0, range(1, len(values) + 1), values)
    svg = line_chart([line], x_title="epoch", y_title="loss", has_marks=False)
    ElementTree.fromstring(svg)
    assert "nan" not in svg


def test_line_chart_of_epochs_labels_whole_epochs_only():
    line = Line("a", 0, [1, 2, 3], [3.0, 2.0, 1.5])
    root = ElementTree.fromstring(
        line_chart([line], x_title="epoch", y_title="loss", has_marks=False)
    )
    labels = [t.text for t in root.findall("text") if t.attrib["class"] == "tick"]
    assert labels == ["1", "2", "3"]


def _texts(svg):
    return [text for text in ElementTree.fromstring(svg).findall("text") if text.text]


def test_scatter_chart_has_a_logarithmic_axis_with_round_ends():
    points = [Point("a", 0, 13e6, 1.7), Point("b", 1, 33e6, 2.3, (2.2, 2.4))]
    svg = scatter_chart(points, x_title="MAC/s", y_title="PESQ")
    texts = {t.text: float(t.attrib["x"]) for t in _texts(svg)}
    assert {"10M", "20M", "50M"} <= texts.keys()
    ratio = (texts["20M"] - texts["10M"]) / (texts["50M"] - texts["10M"])
    assert ratio == pytest.approx(np.log(2) / np.log(5), abs=0.01)
    (whisker,) = ElementTree.fromstring(svg).findall("line[@class='whisker s1']")
    assert float(whisker.attrib["y2"]) < float(whisker.attrib["y1"])


def test_names_of_points_do_not_overlap():
    points = [Point(f"name {index}", 0, 1e6 * 1.02**index, 2.0) for index in range(4)]
    svg = scatter_chart(points, x_title="x", y_title="y")
    boxes = []
    for text in _texts(svg):
        if str(text.text).startswith("name"):
            at, width = float(text.attrib["x"]), 5.8 * len(str(text.text))
            left = at - width if "end" in text.attrib["style"] else at
            boxes.append((left, left + width, float(text.attrib["y"])))
    for (a, b, row), (c, d, other) in itertools.combinations(boxes, 2):
        assert b <= c or d <= a or abs(row - other) >= 10.9


def test_scatter_chart_copes_with_one_point():
    svg = scatter_chart([Point("a < b", 2, 1000.0, 2.0)], x_title="x", y_title="y")
    assert [t.text for t in _texts(svg)].count("a < b") == 1
    assert "nan" not in svg


def test_marks_differ_in_shape_between_neighboring_series():
    shapes = {mark(kind, 0, 0, 0).split("points")[-1] for kind in range(4)}
    assert len(shapes) == 4


_LOOKS = """(() => Object.fromEntries([...document.querySelectorAll("svg[role=img] [class]")].map(
  e => [e, getComputedStyle(e)]).map(([e, look]) => [e.getAttribute("class"),
    [look.fill, look.stroke, look.opacity, look.textAnchor, look.strokeDasharray]])))()"""


def _chart():
    lines = [
        Line("a", 0, [0, 5], [1.0, 2.0], ([0.9, 1.8], [1.1, 2.2])),
        Line("b", 1, [0, 5], [1.5, 1.7], is_dashed=True),
    ]
    return line_chart(lines, x_title="x", y_title="y", has_marks=True)


def test_chart_is_readable_without_a_style_sheet(open_browser):
    browser = open_browser()
    browser.open(data_uri(f"<body style='color: rgb(1, 2, 3)'>{_chart()}".encode(), "text/html"))
    looks = browser.value(_LOOKS)
    grey, violet = "rgb(123, 132, 148)", "rgb(124, 58, 237)"
    assert looks["line s0"] == ["none", grey, "1", "start", "none"]
    assert looks["line s1 dashed"] == ["none", violet, "1", "start", "5px, 4px"]
    assert looks["band s0"][:3] == [grey, "none", "0.13"]
    assert looks["mark s1"][0] == violet
    assert looks["grid"][1] == looks["tick"][0] == "rgb(1, 2, 3)"  # as the text around it
    assert [looks[name][3] for name in ("tick", "tick end", "axis")] == ["middle", "end", "middle"]
    assert browser.value("document.querySelector('svg').getBoundingClientRect().width") == 460


def test_style_sheet_of_the_report_overrides_the_looks_of_a_chart(open_browser, project_root):
    style = (project_root / "lmkd_tf" / "evaluate" / "report.css").read_text()
    browser = open_browser()
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", features=dark)
    browser.open(data_uri(f"<style>{style}</style>{_chart()}".encode(), "text/html"))
    looks = browser.value(_LOOKS)
    assert looks["line s1 dashed"][:2] == ["none", "rgb(169, 139, 250)"]
    assert looks["band s0"][0] == looks["mark s0"][0] == "rgb(151, 163, 182)"
    assert looks["tick"][0] == "rgb(159, 173, 193)"
    assert looks["grid"][1] == "rgb(42, 54, 70)"


def test_colors_are_those_of_the_report(project_root):
    style = (project_root / "lmkd_tf" / "evaluate" / "report.css").read_text()
    light = style.partition("@media")[0]
    colors = re.findall(r"--series-\d: (#\w+)", light)
    assert len(colors) == 7
    for index, color in enumerate(colors):
        assert f'fill="{color}"' in mark(0, 0, 0, index)
