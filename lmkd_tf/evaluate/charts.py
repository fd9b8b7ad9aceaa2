# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, spectrograms as PNG, sounds as WAV: what a report embeds."""

import base64
import html
import io
import struct
import wave
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.pcm import float_to_int16
from lmkd_tf.dsp.stft import stft

_WIDTH, _HEIGHT = 380, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 34
_MARKS = ("circle", "square", "diamond", "triangle")
_SHOWN_WIDTH = 460  # px, where no style sheet says otherwise
# The looks of a chart in a page without report.css, such as a notebook. Attributes yield to any
# style sheet, so the report has its own; these are to be read on a white and on a dark ground.
_SERIES = ("#7b8494", "#7c3aed", "#2563eb", "#c2620a", "#0b7a75", "#c02672", "#4d7c0f")
_TEXT = 'fill="currentColor" font-size="11.5"'
_LOOKS = {
    "grid": 'stroke="currentColor" stroke-opacity="0.2"',
    "leader": 'stroke="currentColor" stroke-width="0.8"',
    "axis": f'{_TEXT} text-anchor="middle"',
    "tick": f'{_TEXT} text-anchor="middle"',
    "tick end": f'{_TEXT} text-anchor="end"',
    "line": 'fill="none" stroke-width="2" stroke="{}"',
    "dashed": 'fill="none" stroke-width="2" stroke-dasharray="5 4" stroke="{}"',
    "mark": 'fill="{}"',
    "whisker": 'stroke-width="1.6" opacity="0.55" stroke="{}"',
    "band": 'opacity="0.13" fill="{}"',
}
_SPECTROGRAM_RANGE_DB = 70.0
_NUM_SHADES = 64  # enough for the eye, and PNGs half as large as with 256
# Dark to bright with even steps of lightness, after matplotlib's "inferno".
_COLOR_ANCHORS = (
    (0, 0, 4), (22, 11, 57), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84),
    (221, 81, 58), (243, 120, 25), (252, 165, 10), (246, 215, 70), (252, 255, 164),
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        label: Name, shown as a tooltip.
        color: Index of the color, `--series-0` and on in the style sheet of the report.
        x: Positions, shape `(P,)`.
        y: Values, shape `(P,)`; NaN leaves a gap.
        band: Lower and upper bounds around `y`, each of shape `(P,)`, or empty.
        is_dashed: Whether the line is dashed.
        has_whiskers: Whether the bounds are drawn as one whisker per point, not as an area.
        shift: By how much it is drawn to the right, in px, so that whiskers stand side by side.
    """

    label: str
    color: int
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[Sequence[float]] = field(default=())
    is_dashed: bool = False
    has_whiskers: bool = False
    shift: float = 0.0


@dataclass(frozen=True)
class Point:
    """One point of a scatter chart.

    Args:
        label: Name, written beside the mark.
        color: Index of the color, and of the shape of the mark.
        x: Position, above zero.
        y: Value.
        interval: Lower and upper bound of `y`, or empty.
    """

    label: str
    color: int
    x: float
    y: float
    interval: Sequence[float] = ()


def scatter_chart(points: Sequence[Point], *, x_title: str, y_title: str) -> str:
    """Draws points with their names over a logarithmic axis.

    Args:
        points: At least one point.
        x_title: Name of the horizontal axis, with its unit.
        y_title: Name of the vertical axis, with its unit; also the text for screen readers.

    Returns:
        An `<svg>` element.
    """
    values = [v for point in points for v in (point.y, *point.interval)]
    y_ticks = ticks(min(values), max(values))
    exponents = [float(np.log10(point.x)) for point in points]
    x_ticks = _log_ticks(min(exponents), max(exponents))
    scale = _Scale(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    places = [(scale.x(e), scale.y(p.y)) for e, p in zip(exponents, points, strict=True)]
    parts = [_grid(scale, x_ticks, y_ticks, _power_text)]
    parts += _names([point.label for point in points], places)
    for point, (x, y) in zip(points, places, strict=True):
        if point.interval:
            low, high = (scale.y(bound) for bound in point.interval)
            parts.append(_whisker(x, low, high, point.color))
        parts.append(mark(point.color, x, y, point.color, f"{point.label}: {point.y:.3g}"))
    return _drawing(parts, x_title, y_title)


def line_chart(lines: Sequence[Line], *, x_title: str, y_title: str, has_marks: bool) -> str:
    """Draws lines over a numeric axis.

    Args:
        lines: At least one line.
        x_title: Name of the horizontal axis, with its unit.
        y_title: Name of the vertical axis, with its unit; also the text for screen readers.
        has_marks: Whether to mark the points and label the axis at each of them.

    Returns:
        An `<svg>` element.
    """
    xs = sorted({x for line in lines for x in line.x})
    values = [v for line in lines for row in (line.y, *line.band) for v in row if np.isfinite(v)]
    y_ticks = ticks(min(values, default=0.0), max(values, default=1.0))
    x_ticks = xs if has_marks else _whole_ticks(xs[0], xs[-1])
    scale = _Scale(xs[0], xs[-1], y_ticks[0], y_ticks[-1])
    parts = [_grid(scale, x_ticks, y_ticks, "{:g}".format)]
    parts += [_bounds(line, scale) for line in lines if line.band]
    parts += [_path(line, scale) for line in lines]
    if has_marks:
        parts += [_marks(line, scale) for line in lines]
    return _drawing(parts, x_title, y_title)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns round numbers that enclose a range.

    Example:
        >>> ticks(1.1, 2.9)
        [1.0, 1.5, 2.0, 2.5, 3.0]
    """
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / (count - 1)
    power = 10.0 ** np.floor(np.log10(raw))
    step = min((f * power for f in (1, 2, 2.5, 5, 10)), key=lambda s: abs(np.log(s / raw)))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [float(round(index * step, 10)) for index in np.arange(first, last + 1)]


def _whole_ticks(low: float, high: float) -> list[float]:
    return [t for t in ticks(low, high, 6) if low <= t <= high and t == round(t)]


def spectrogram_png(samples: np.ndarray, config: StftConfig, peak_db: float) -> bytes:
    """Draws the spectrogram of a signal, low frequencies at the bottom.

    Args:
        samples: Samples in [-1, 1], shape `(N,)`.
        config: Frame of the transform; one column per hop.
        peak_db: Level of the brightest shade; 70 dB below it is black.

    Returns:
        PNG file.
    """
    level_db = spectrum_db(samples, config).T[::-1]  # (F, T), high frequencies first
    share = np.clip((level_db - peak_db) / _SPECTROGRAM_RANGE_DB + 1.0, 0.0, 1.0)
    return png(np.round(share * (_NUM_SHADES - 1)).astype(np.uint8), _palette())


def spectrum_db(samples: np.ndarray, config: StftConfig) -> np.ndarray:
    """Computes the level of every bin in dB, shape `(T, F)`."""
    spectrum = np.asarray(ops.convert_to_numpy(stft(np.asarray(samples, np.float32)[None], config)))
    return 10.0 * np.log10(np.sum(spectrum[0] ** 2, axis=-1) + 1e-10)


def png(pixels: np.ndarray, palette: np.ndarray) -> bytes:
    """Encodes an image with a palette.

    Args:
        pixels: uint8 indices into the palette, shape `(H, W)`, first row on top.
        palette: uint8 red, green and blue, shape `(K, 3)`, K at most 256.

    Returns:
        PNG file.
    """
    height, width = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)  # filter 0 per row
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette.tobytes())]
    chunks += [(b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def wav(samples: np.ndarray, sample_rate_hz: int) -> bytes:
    """Encodes samples in [-1, 1], shape `(N,)`, as a mono WAV file of 16 bits."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate_hz)
        writer.writeframes(float_to_int16(np.asarray(samples, np.float32)).astype("<i2").tobytes())
    return stream.getvalue()


def data_uri(content: bytes, media_type: str) -> str:
    """Returns content as an address that needs no request."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class _Scale:
    """Maps values to the coordinates of the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        inner = 14.0  # keeps marks off the axis
        width = _WIDTH - _RIGHT - _LEFT - 2 * inner
        span = self.x_high - self.x_low
        share = (value - self.x_low) / span if span > 0 else 0.5
        return round(_LEFT + inner + width * share, 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share, 1)


def _drawing(parts: Sequence[str], x_title: str, y_title: str) -> str:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    place = f'x="{middle:.0f}" y="{_HEIGHT - 4}"'
    title = f"<text {_look('axis')} {place}>{html.escape(x_title)}</text>"
    label = html.escape(f"{y_title} over {x_title}", quote=True)
    size = f'width="{_SHOWN_WIDTH}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg {size} role="img" aria-label="{label}">' + "".join(parts) + f"{title}</svg>"


def _look(kind: str) -> str:
    return f'class="{kind}" {_LOOKS[kind]}'


def _series_look(kind: str, color: int, is_dashed: bool = False) -> str:
    names = f"{kind} s{color}{' dashed' if is_dashed else ''}"
    look = _LOOKS["dashed" if is_dashed else kind].format(_SERIES[color % len(_SERIES)])
    return f'class="{names}" {look}'


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns exponents of ten, of 1, 2 and 5 times its powers, that enclose a range."""
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 2)
    steps = [power + float(np.log10(factor)) for power in powers for factor in (1, 2, 5)]
    first = max(index for index, step in enumerate(steps) if step <= low + 1e-9)
    last = min(i for i, step in enumerate(steps) if i > first and step >= high - 1e-9)
    chosen = steps[first : last + 1]
    inner = chosen[1:-1] if len(chosen) <= 7 else [s for s in chosen[1:-1] if s == round(s)]
    return [chosen[0], *inner, chosen[-1]]


def _power_text(exponent: float) -> str:
    """Returns ten to the power of an exponent with a prefix, such as 20k or 1.5M.

    Example:
        >>> _power_text(4.301), _power_text(6.0), _power_text(1.0)
        ('20k', '1M', '10')
    """
    value = 10.0**exponent
    factor, prefix = (1e6, "M") if value > 999e3 else (1e3, "k") if value > 999 else (1.0, "")
    return f"{value / factor:.3g}{prefix}"


def _names(names: Sequence[str], places: Sequence[tuple[float, float]]) -> list[str]:
    """Writes names beside their points; one that has to move away is tied to its point."""
    taken = [(x - 5, x + 5, y) for x, y in places]
    parts = []
    for name, (x, y) in zip(names, places, strict=True):
        width = 5.8 * len(name)
        spots = [
            (start, y + 11 * step)
            for step in sorted(range(-12, 13), key=abs)
            for start in (x + 8, x - 8 - width)
            if _LEFT < start < _WIDTH - 2 - width and _TOP <= y + 11 * step <= _HEIGHT - _BOTTOM
        ]
        start, middle = next((s for s in spots if _is_free(s, width, taken)), (x + 8, y))
        taken.append((start, start + width, middle))
        side, at = ("start", start) if start > x else ("end", start + width)
        if middle != y:
            ends = f'x1="{x}" y1="{y}" x2="{at:.1f}" y2="{middle:.1f}"'
            parts.append(f"<line {_look('leader')} {ends}/>")
        place = f'x="{at:.1f}" y="{middle + 4:.1f}" style="text-anchor: {side}"'
        parts.append(f"<text {_look('tick')} {place}>{html.escape(name)}</text>")
    return parts


def _is_free(
    spot: tuple[float, float], width: float, taken: Sequence[tuple[float, float, float]]
) -> bool:
    start, middle = spot
    return not any(
        left < start + width and start < right and abs(middle - row) < 11
        for left, right, row in taken
    )


def _grid(
    scale: _Scale,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    format_x: Callable[[float], str],
) -> str:
    lines = [
        f'<line {_look("grid")} x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{scale.y(t)}" '
        f'y2="{scale.y(t)}"/><text {_look("tick end")} x="{_LEFT - 6}" '
        f'y="{scale.y(t) + 4}">{t:g}</text>'
        for t in y_ticks
    ]
    labels = [
        f'<text {_look("tick")} x="{scale.x(t)}" y="{_HEIGHT - _BOTTOM + 15}">{format_x(t)}</text>'
        for t in x_ticks
    ]
    return "".join(lines + labels)


def _points(line: Line, scale: _Scale) -> list[tuple[float, float]]:
    pairs = zip(line.x, line.y, strict=True)
    return [(round(scale.x(x) + line.shift, 1), scale.y(y)) for x, y in pairs if np.isfinite(y)]


def _path(line: Line, scale: _Scale) -> str:
    points = " ".join(f"{x},{y}" for x, y in _points(line, scale))
    look = _series_look("line", line.color, line.is_dashed)
    title = f"<title>{html.escape(line.label)}</title>"
    return f'<polyline {look} points="{points}">{title}</polyline>'


def _bounds(line: Line, scale: _Scale) -> str:
    low, high = line.band
    if line.has_whiskers:
        return "".join(
            _whisker(round(scale.x(x) + line.shift, 1), scale.y(a), scale.y(b), line.color)
            for x, a, b in zip(line.x, low, high, strict=True)
            if np.isfinite(a)
        )
    edge = [(x, y) for x, y in zip(line.x, low, strict=True) if np.isfinite(y)]
    edge += [(x, y) for x, y in zip(line.x, high, strict=True) if np.isfinite(y)][::-1]
    points = " ".join(f"{scale.x(x)},{scale.y(y)}" for x, y in edge)
    return f'<polygon {_series_look("band", line.color)} points="{points}"/>'


def _whisker(x: float, low: float, high: float, color: int) -> str:
    return f'<line {_series_look("whisker", color)} x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'


def mark(kind: int, x: float, y: float, color: int, tooltip: str = "") -> str:
    """Draws the mark of a series, so that color is not the only difference.

    Args:
        kind: Number of the series, which chooses the shape.
        x: Center, in px.
        y: Center, in px.
        color: Number of the color class.
        tooltip: Text shown on hover.

    Returns:
        SVG element.
    """
    shape, look = _MARKS[kind % len(_MARKS)], _series_look("mark", color)
    title = f"<title>{html.escape(tooltip)}</title>" if tooltip else ""
    if shape == "circle":
        return f'<circle {look} cx="{x}" cy="{y}" r="3.6">{title}</circle>'
    offsets = {
        "square": ((-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)),
        "diamond": ((0, -4.6), (4.6, 0), (0, 4.6), (-4.6, 0)),
        "triangle": ((0, -4.4), (4.4, 3.4), (-4.4, 3.4)),
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in offsets)
    return f'<polygon {look} points="{points}">{title}</polygon>'


def _marks(line: Line, scale: _Scale) -> str:
    values = [(x, y) for x, y in zip(line.x, line.y, strict=True) if np.isfinite(y)]
    return "".join(
        mark(
            line.color,
            round(scale.x(x) + line.shift, 1),
            scale.y(y),
            line.color,
            f"{line.label}: {y:.3g} at {x:g}",
        )
        for x, y in values
    )


def _palette() -> np.ndarray:
    anchors = np.array(_COLOR_ANCHORS, np.float64)
    positions = np.linspace(0, len(anchors) - 1, _NUM_SHADES)
    channels = [np.interp(positions, range(len(anchors)), column) for column in anchors.T]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)
