# SPDX-License-Identifier: Apache-2.0
"""One HTML file that shows what a run achieved: figures, sounds, curves, sizes.

Everything is rendered here; the script in `report.js` only switches sounds. The
file loads nothing from anywhere, which its content security policy enforces.
"""

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from string import Template
from typing import Any

import numpy as np

from lmkd_tf.config.files import write_text
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.evaluate.charts import (
    Line,
    data_uri,
    line_chart,
    mark,
    spectrogram_png,
    spectrum_db,
    wav,
)
from lmkd_tf.evaluate.scores import METRICS
from lmkd_tf.evaluate.table import (
    ALL_CLIPS,
    MEAN_OF_SNRS,
    METRIC_TITLES,
    format_mean,
    summarize,
)

# The rest of the file takes 2 to 3 MB, so that it stays below 12 MB.
_MAX_AUDIO_BYTES = 9_000_000
_MAX_CLIP_SECONDS = 10.0
_PEAK = 0.9
_MAX_GAIN = 10.0
_NUM_COLORS = 7
_SYNTHETIC_NOTICE = (
    '<p class="notice"><strong>The corpus of this run is synthetic.</strong> A speech synthesizer '
    "spoke the sentences and programs made the noises. It is good for checking that every stage "
    "of the road works and for comparing the stages with each other. It says little about real "
    "voices in real noise: train and score on recordings for that.</p>"
)


def write_report(  # noqa: PLR0913 - one keyword per part of the page
    path: str | os.PathLike,
    *,
    title: str,
    description: str,
    rows: Sequence[dict[str, Any]],
    history: Mapping[str, Mapping[str, Sequence[float]]],
    clips: Sequence[dict[str, Any]],
    models: Sequence[dict[str, Any]],
    details: Mapping[str, Any],
    is_synthetic: bool,
) -> None:
    """Writes a self-contained HTML report, whole or not at all.

    Args:
        path: File to write.
        title: Headline.
        description: One or two sentences below it.
        rows: Rows of `score_clips` of all systems, the reference (noisy) first
            and the one that ships last.
        history: Stage to metric to one value per epoch; `val_` marks validation.
        clips: Sounds to show: `name` (as in the rows), `snr_db`, `sample_rate_hz`
            and `signals`, label to float array `(N,)` of one length per clip.
        models: Networks, the largest first and the one that ships last: `name`,
            `parameters`, `macs_per_hop`, `bytes`, `arena_bytes`, `note`; None
            where there is no such figure.
        details: Settings by group, shown at the end.
        is_synthetic: Whether the corpus was generated, which the report then says.

    Raises:
        ValueError: If there are no rows or the signals of a clip differ in length.
    """
    if not rows:
        raise ValueError(
            "`rows` must hold at least one score. Received none. Score the noisy clips first."
        )
    summary = summarize(rows)
    colors = {system: index % _NUM_COLORS for index, system in enumerate(_systems(summary))}
    stft = details.get("stft")
    frame = StftConfig(**stft) if isinstance(stft, Mapping) else StftConfig()
    parts = {
        "title": escape(title),
        "description": escape(description),
        "notice": _SYNTHETIC_NOTICE if is_synthetic else "",
        "tiles": _tiles(summary, models, frame),
        "clips": _clips(clips, rows, frame),
        "score_hint": _score_hint(rows),
        "legend": _legend(colors),
        "scores": "".join(_metric(metric, summary, colors) for metric in METRICS),
        "models": _models_table(models, frame),
        "training": _training(history),
        "details": _details(details),
        "css": _resource("report.css"),
        "script": _resource("report.js"),
    }
    write_text(path, Template(_resource("report.html")).substitute(parts))


def _resource(name: str) -> str:
    return (importlib.resources.files("lmkd_tf.evaluate") / name).read_text("utf-8")


def _systems(summary: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(entry["system"] for entry in summary))


def _find(summary: Sequence[dict[str, Any]], system: str, group: str) -> dict[str, Any]:
    return next(e for e in summary if e["system"] == system and e["group"] == group)


# Headline figures.


def _tiles(
    summary: Sequence[dict[str, Any]], models: Sequence[dict[str, Any]], frame: StftConfig
) -> str:
    systems = _systems(summary)
    first, last = (_find(summary, name, ALL_CLIPS) for name in (systems[0], systems[-1]))
    tiles = [_gain_tile(metric, first, last) for metric in METRICS]
    if models:
        tiles += _cost_tiles(models[0], models[-1], frame)
    return "\n".join(tile for tile in tiles if tile)


def _gain_tile(metric: str, first: dict[str, Any], last: dict[str, Any]) -> str:
    if first[metric] is None or last[metric] is None:
        return ""
    unit = "dB" if metric.endswith("_db") else ""
    title = METRIC_TITLES[metric].removesuffix(" (dB)")
    end = format_mean(metric, last[metric])
    if first["system"] == last["system"]:
        return _tile(title, end, unit, escape(last["system"]))
    change = {"mean": last[metric]["mean"] - first[metric]["mean"]}
    signed = format_mean(metric, change)
    signed = signed.replace("-", "\N{MINUS SIGN}") if change["mean"] < 0 else f"+{signed}"
    start = format_mean(metric, first[metric])
    more = f"{escape(first['system'])} {start} &rarr; {escape(last['system'])} {end}"
    return _tile(title, signed, unit, more)


def _cost_tiles(largest: dict[str, Any], shipped: dict[str, Any], frame: StftConfig) -> list[str]:
    tiles = []
    if shipped.get("bytes"):
        more = f"{_count(shipped.get('parameters'))} parameters"
        if shipped.get("parameters") and (largest.get("parameters") or 0) > shipped["parameters"]:
            ratio = largest["parameters"] / shipped["parameters"]
            more += f", {ratio:.3g} times fewer than {escape(largest['name'])}"
        tiles.append(_tile("Model size", *_size(shipped["bytes"]), more))
    if shipped.get("macs_per_hop"):
        mmacs = shipped["macs_per_hop"] * frame.sample_rate_hz / frame.hop_length / 1e6
        hop_ms = 1000 * frame.hop_length / frame.sample_rate_hz
        more = f"million multiply-adds per second; one step every {hop_ms:g} ms"
        tiles.append(_tile("Compute", f"{mmacs:.3g}", "MMAC/s", more))
    if shipped.get("arena_bytes"):
        more = "working memory, measured in the TFLM interpreter"
        tiles.append(_tile("Memory", *_size(shipped["arena_bytes"]), more))
    return tiles


def _tile(name: str, value: str, unit: str, more: str) -> str:
    small = f"<small>{unit}</small>" if unit else ""
    return (
        f'<div class="tile"><div class="name">{name}</div>'
        f'<div class="value">{value}{small}</div><div class="more">{more}</div></div>'
    )


def _size(num_bytes: float) -> tuple[str, str]:
    kilobytes = num_bytes / 1000
    return (f"{kilobytes / 1000:.2f}", "MB") if kilobytes >= 1000 else (f"{kilobytes:.1f}", "kB")


def _count(value: float | None) -> str:
    return "-" if value is None else f"{round(value):,}"


# Sounds.


def _clips(
    clips: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], frame: StftConfig
) -> str:
    scores = {(row["system"], row["file"]): row for row in rows}
    prepared = _fitted(clips)
    return "\n".join(_clip(clip, scores, frame) for clip in prepared)


def _fitted(clips: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cuts clips so that all sounds fit the file, and gives each clip one gain."""
    for clip in clips:
        lengths = {label: len(signal) for label, signal in clip["signals"].items()}
        if len(set(lengths.values())) != 1 or min(lengths.values()) == 0:
            raise ValueError(
                "All `signals` of a clip must have one length, above zero. "
                f"Received {lengths} for clip {clip['name']!r}. Cut them to the shortest."
            )
    bytes_per_second = sum(
        len(clip["signals"]) * clip["sample_rate_hz"] * 2 * 4 / 3 for clip in clips
    )
    seconds = min(_MAX_CLIP_SECONDS, _MAX_AUDIO_BYTES / max(1.0, bytes_per_second))
    fitted = []
    for clip in clips:
        num_samples = int(seconds * clip["sample_rate_hz"])
        signals = {k: np.asarray(v[:num_samples], np.float32) for k, v in clip["signals"].items()}
        peak = max(float(np.max(np.abs(signal))) for signal in signals.values())
        gain = np.float32(min(_MAX_GAIN, _PEAK / max(peak, 1e-9)))
        is_cut = num_samples < len(next(iter(clip["signals"].values())))
        signals = {k: gain * v for k, v in signals.items()}
        fitted.append({**clip, "signals": signals, "length": "first " if is_cut else ""})
    return fitted


def _clip(clip: dict[str, Any], scores: Mapping[tuple[str, str], Any], frame: StftConfig) -> str:
    name, labels = escape(str(clip["name"])), list(clip["signals"])
    seconds = len(clip["signals"][labels[0]]) / clip["sample_rate_hz"]
    facts = f"{clip['snr_db']:g} dB SNR, {clip['length']}{seconds:.1f} s"
    peak_db = max(float(np.max(spectrum_db(s, frame))) for s in clip["signals"].values())
    versions = "".join(
        f'<button type="button" role="radio" aria-checked="false">{escape(label)}</button>'
        for label in labels
    )
    panels = "".join(
        _panel(clip, label, scores.get((label, clip["name"])), frame, peak_db) for label in labels
    )
    return f"""<article class="card clip" data-seconds="{seconds:.4f}">
<header><h3>{name}</h3><span>{facts}</span></header>
<div class="controls">
<button type="button" class="play" aria-label="Play"><svg viewBox="0 0 20 20" aria-hidden="true">\
<path class="start" d="M5 2.5v15l13-7.5z"/><path class="pause" d="M4 3h4v14H4zM12 3h4v14h-4z"/>\
</svg></button>
<div class="versions" role="radiogroup" aria-label="Version of {name}">{versions}</div>
<div class="position"><input type="range" min="0" max="{seconds:.4f}" step="0.01" value="0" \
aria-label="Position in {name}"><output></output></div>
</div>
<div class="panels" style="--columns: {_num_columns(len(labels))}">{panels}</div>
</article>"""


def _num_columns(num_panels: int) -> int:
    return num_panels if num_panels <= 5 else -(-num_panels // 2)


def _panel(clip: dict[str, Any], label: str, row: Any, frame: StftConfig, peak_db: float) -> str:
    signal, text = clip["signals"][label], escape(label)
    picture = data_uri(spectrogram_png(signal, frame, peak_db), "image/png")
    sound = data_uri(wav(signal, clip["sample_rate_hz"]), "audio/wav")
    shown = (("pesq_wb", "PESQ&nbsp;{:.2f}"), ("si_sdr_db", "SI&#8209;SDR&nbsp;{:.1f}&nbsp;dB"))
    figures = ", ".join(f.format(row[m]) for m, f in shown if row and row[m] is not None)
    top_khz = clip["sample_rate_hz"] / 2000
    return (
        f'<figure class="panel"><div class="picture"><img src="{picture}" '
        f'alt="Spectrogram of {text}"><span class="scale high">{top_khz:g} kHz</span>'
        f'<span class="scale low">0</span><span class="head"></span></div>'
        f"<figcaption><b>{text}</b><span>{figures}</span></figcaption>"
        f'<audio controls preload="none" src="{sound}"></audio></figure>'
    )


# Scores.


def _score_hint(rows: Sequence[dict[str, Any]]) -> str:
    num_clips = len({row["file"] for row in rows})
    hint = (
        f"Means over {num_clips} held-out clips. After ± stands half of the 95 % bootstrap "
        "interval; it is shaded for the first and the last system."
    )
    num_undefined = sum(any(row[m] is None for m in METRICS) for row in rows)
    if num_undefined:
        hint += f" In {num_undefined} of {len(rows)} rows a metric is undefined and left out."
    return hint


def _legend(colors: Mapping[str, int]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 26 12" aria-hidden="true"><line class="line s{color}" x1="0" '
        f'x2="26" y1="6" y2="6"/>{mark(color, 13, 6, color)}</svg>{escape(system)}</li>'
        for system, color in colors.items()
    )
    return f'<ul class="legend">{items}</ul>'


def _metric(metric: str, summary: Sequence[dict[str, Any]], colors: Mapping[str, int]) -> str:
    lines = [_score_line(metric, system, summary, color) for system, color in colors.items()]
    # More than two intervals would hide each other; the table has all of them.
    lines[1:-1] = [replace(line, band=()) for line in lines[1:-1]]
    title = METRIC_TITLES[metric]
    chart = line_chart(lines, x_title="SNR (dB)", y_title=title, has_marks=True)
    table = _metric_table(metric, summary)
    return (
        f'<div class="card metric"><h3>{title}</h3><div>{chart}</div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">{table}</div></div>'
    )


def _score_line(metric: str, system: str, summary: Sequence[dict[str, Any]], color: int) -> Line:
    entries = [e for e in summary if e["system"] == system and e["snr_db"] is not None]
    values = [e[metric] or {"mean": np.nan, "low": np.nan, "high": np.nan} for e in entries]
    mean, low, high = ([v[key] for v in values] for key in ("mean", "low", "high"))
    return Line(system, color, [e["snr_db"] for e in entries], mean, (low, high))


def _metric_table(metric: str, summary: Sequence[dict[str, Any]]) -> str:
    systems, groups = _systems(summary), list(dict.fromkeys(e["group"] for e in summary))
    counts = {_find(summary, systems[0], g)["num_clips"] for g in groups[:-2]}
    if len(counts) == 1:
        groups.remove(MEAN_OF_SNRS)  # the same as over all clips
    heads = "".join(f'<th scope="col">{escape(group)}</th>' for group in groups)
    lines = []
    for system in systems:
        entries = {e["group"]: e for e in summary if e["system"] == system}
        cells = "".join(_score_cell(metric, entries.get(g, {}).get(metric)) for g in groups)
        shipped = ' class="shipped"' if system == systems[-1] and len(systems) > 1 else ""
        lines.append(f'<tr{shipped}><th scope="row">{escape(system)}</th>{cells}</tr>')
    return (
        f'<table><thead><tr><th scope="col">System</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _score_cell(metric: str, interval: dict[str, float] | None) -> str:
    if interval is None:
        return "<td>-</td>"
    half = {"mean": (interval["high"] - interval["low"]) / 2}
    return f"<td>{format_mean(metric, interval)}<small>±{format_mean(metric, half)}</small></td>"


# Size and compute.


def _models_table(models: Sequence[dict[str, Any]], frame: StftConfig) -> str:
    if not models:
        return "<p>No model was recorded.</p>"
    hops_per_second = frame.sample_rate_hz / frame.hop_length
    heads = ("Parameters", "MAC per hop", "MMAC/s", "File", "TFLM arena")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = ""
    for index, model in enumerate(models):
        macs = model.get("macs_per_hop")
        cells = [_count(model.get("parameters")), _count(macs)]
        cells.append(f"{macs * hops_per_second / 1e6:.2f}" if macs else "-")
        cells += [_bytes_cell(model.get(key)) for key in ("bytes", "arena_bytes")]
        shipped = ' class="shipped"' if index + 1 == len(models) > 1 else ""
        note = escape(str(model.get("note") or ""))
        body += f'<tr{shipped}><th scope="row">{escape(model["name"])}</th>'
        body += "".join(f"<td>{cell}</td>" for cell in cells)
        body += f'<td class="note">{note}</td></tr>'
    return (
        '<div class="card scroll" tabindex="0" role="region" aria-label="Size and compute"><table>'
        f'<thead><tr><th scope="col">Network</th>{head}<th scope="col" class="note">Note</th></tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _bytes_cell(num_bytes: float | None) -> str:
    return " ".join(_size(num_bytes)) if num_bytes else "-"


# Training.


def _training(history: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    charts = [
        _curve(stage, name, metrics)
        for stage, metrics in history.items()
        for name in dict.fromkeys(name.removeprefix("val_") for name in metrics)
    ]
    if not charts:
        return "<p>No training was recorded: the networks were loaded.</p>"
    return f'<div class="curves">{"".join(charts)}</div>'


def _curve(stage: str, name: str, metrics: Mapping[str, Sequence[float]]) -> str:
    pairs = (("training", name, 2), ("validation", f"val_{name}", 3))
    lines = [
        Line(label, color, range(1, len(metrics[key]) + 1), metrics[key], is_dashed=color == 3)
        for label, key, color in pairs
        if len(metrics.get(key, ())) > 0
    ]
    if not lines:
        return ""
    has_marks = max(len(line.x) for line in lines) == 1
    chart = line_chart(lines, x_title="epoch", y_title=name, has_marks=has_marks)
    title = f"<h3>{escape(stage)}</h3><h4>{escape(name.replace('_', ' '))}</h4>"
    return f'<div class="card">{title}{chart}</div>'


# Settings.


def _details(details: Mapping[str, Any]) -> str:
    groups = {k: v for k, v in details.items() if isinstance(v, Mapping)}
    plain = {k: v for k, v in details.items() if k not in groups}
    groups = {"general": plain, **groups} if plain else groups
    return "\n".join(
        f"<details><summary>{escape(str(name))}</summary><table><tbody>"
        + "".join(
            f'<tr><th scope="row">{escape(key)}</th><td>{escape(str(value))}</td></tr>'
            for key, value in _flattened(group)
        )
        + "</tbody></table></details>"
        for name, group in groups.items()
    )


def _flattened(group: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in group.items():
        name = f"{prefix}{key}"
        pairs += _flattened(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return pairs
