# SPDX-License-Identifier: Apache-2.0
import xml.etree.ElementTree as ElementTree

from lmkd_tf.evaluate.histogram import histogram_picture

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_high_as_their_counts():
    text = histogram_picture({"Level <dBFS>": [(-10.0, 2), (-5.0, 8), (0.0, 0)]}, 5.0)
    root = ElementTree.fromstring(text)
    heights = [
        float(e.get("height", "0")) for e in root.iter(f"{SVG}rect") if e.get("width") != "100%"
    ]
    assert heights[1] == 4 * heights[0] > 0
    assert heights[2] == 0
    assert "Level <dBFS>" in [e.text for e in root.iter(f"{SVG}text")]
    assert "-5 to 0: 8 files" in [e.text for e in root.iter(f"{SVG}title")]


def test_a_panel_without_bins_and_a_picture_without_panels_are_drawn():
    for panels in ({"Nothing": []}, {}):
        assert ElementTree.fromstring(histogram_picture(panels, 5.0)).tag == f"{SVG}svg"
