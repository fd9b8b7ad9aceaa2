# SPDX-License-Identifier: Apache-2.0
"""Histograms as one SVG picture, readable on its own: no style sheet, no library."""

import html
from collections.abc import Mapping, Sequence

_WIDTH, _PANEL_HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 30


def histogram_picture(panels: Mapping[str, Sequence[tuple[float, int]]], bin_width: float) -> str:
    """Draws one histogram below the other.

    Args:
        panels: Title -> lower edge and count of each bin, in rising order.
        bin_width: Width of a bin.

    Returns:
        A complete SVG document.
    """
    height = _PANEL_HEIGHT * max(1, len(panels))
    parts = [
        _panel(title, bins, bin_width, _PANEL_HEIGHT * index)
        for index, (title, bins) in enumerate(panels.items())
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _panel(title: str, bins: Sequence[tuple[float, int]], bin_width: float, top: int) -> str:
    parts = [f'<text x="{_LEFT}" y="{top + 20}" font-weight="bold">{html.escape(title)}</text>']
    if not bins:
        return parts[0]
    base, room = top + _PANEL_HEIGHT - _BOTTOM, _PANEL_HEIGHT - _TOP - _BOTTOM
    most = max(count for _, count in bins)
    step = (_WIDTH - _LEFT - _RIGHT) / len(bins)
    for index, (edge, count) in enumerate(bins):
        x, bar = _LEFT + index * step, room * count / most
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{base - bar:.1f}" width="{max(step - 2, 1):.1f}" '
            f'height="{bar:.1f}" fill="#3b6ea5"><title>{edge:g} to {edge + bin_width:g}: '
            f"{count} files</title></rect>"
        )
        if step > 28 or index % 2 == 0:
            parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{edge:g}</text>')
    parts.append(f'<path d="M{_LEFT} {base}H{_WIDTH - _RIGHT}" stroke="#333"/>')
    parts.append(f'<text x="{_LEFT - 6}" y="{top + _TOP + 8}" text-anchor="end">{most}</text>')
    return "".join(parts)
