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
from lmkd_tf.dsp.level import active_level_dbfs, db_to_gain
from lmkd_tf.evaluate.charts import (
    Line,
    Point,
    data_uri,
    line_chart,
    mark,
    scatter_chart,
    spectrogram_png,
    spectrum_db,
    wav,
)
from lmkd_tf.evaluate.scores import METRICS
from lmkd_tf.evaluate.table import (
    ALL_CLIPS,
    MAIN_METRICS,
    MEAN_OF_SNRS,
    METRIC_TITLES,
    digits_of,
    format_mean,
    missing_clips,
    summarize,
)

# The rest of the file takes 2 to 3 MB, so that it stays below 12 MB.
_MAX_AUDIO_BYTES = 9_000_000
_MAX_CLIP_SECONDS = 10.0
_PEAK = 0.9
_MAX_GAIN = 10.0
_NUM_COLORS = 7
_PUBLISHED_COLOR = 0
_WHISKER_SPACING = 3.5  # px between the intervals of systems at one SNR
# Cost in a network's description or a published system's -> title and quality over it.
_COSTS = {
    "macs_per_second": "multiply-adds per second",
    "bytes": "bytes of the network",
    "instructions_per_hop": "instructions per hop, firmware on Cortex-M4F",
}
_QUALITIES = ("pesq_wb", "dnsmos_ovrl")
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
    comparisons: Sequence[dict[str, Any]] = (),
    published: Sequence[Mapping[str, Any]] = (),
    shipped: str | None = None,
) -> None:
    """Writes a self-contained HTML report, whole or not at all.

    Args:
        path: File to write.
        title: Headline.
        description: One or two sentences below it.
        rows: Rows of `score_clips` of all systems, the reference (noisy) first.
        history: Stage to metric to one value per epoch; `val_` marks validation.
        clips: Sounds to show: `name` (as in the rows), `snr_db` (None where unknown),
            `sample_rate_hz` and `signals`, label to float array `(N,)` of one length per
            clip. They are brought to one level of active speech.
        models: Networks, the largest first and the one that ships last: `name`,
            `parameters`, `macs_per_hop`, `bytes`, `arena_bytes`, `note`, and
            `instructions_per_hop` where it is known; None where there is no such figure.
        details: Settings by group, shown at the end.
        is_synthetic: Whether the corpus was generated, which the report then says.
        comparisons: Results of `compare`, of any number of systems.
        published: Other systems on the same files: `name`, `training`, `pesq_wb`,
            `dnsmos_ovrl`, `macs_per_second` and `bytes`; a score is a number, or its `mean`
            with the bounds `low` and `high`.
        shipped: System whose figures stand at the top; the last one if None.

    Raises:
        ValueError: If there are no rows or the signals of a clip differ in length.
    """
    if not rows:
        raise ValueError(
            "`rows` must hold at least one score. Received none. Score the noisy clips first."
        )
    summary = summarize(rows)
    systems = _systems(summary)
    shipped = shipped or systems[-1]
    metrics = [m for m in METRICS if any(entry[m] for entry in summary)]
    colors = {system: index for index, system in enumerate(drawn_systems(systems, shipped))}
    stft = details.get("stft")
    frame = StftConfig(**stft) if isinstance(stft, Mapping) else StftConfig()
    quality = _quality(summary, models, published, frame)
    parts = {
        "title": escape(title),
        "description": escape(description),
        "notice": _SYNTHETIC_NOTICE if is_synthetic else "",
        "tiles": _tiles(summary, shipped, models, frame),
        "clips": _clips(clips, rows, frame),
        "score_hint": _score_hint(rows, summary),
        "legend": _legend(colors),
        "scores": _scores(summary, shipped, metrics, colors),
        "comparisons": _comparisons(comparisons),
        "quality": quality,
        "quality_link": '<a href="#quality">Quality against cost</a>' if quality else "",
        "models": _models_table(models, frame),
        "training": _training(history),
        "details": _details(details),
        "css": _resource("report.css"),
        "script": _resource("report.js"),
    }
    write_text(path, Template(_resource("report.html")).substitute(parts))


def drawn_systems(systems: Sequence[str], shipped: str) -> list[str]:
    """Chooses the systems that are drawn and heard where there are more than colors.

    Args:
        systems: Names of all systems, the reference first.
        shipped: The one that must not be left out.

    Returns:
        All of them, or the first ones and the shipped one.
    """
    if len(systems) <= _NUM_COLORS:
        return list(systems)
    others = [system for system in systems if system != shipped]
    return [*others[: _NUM_COLORS - 1], shipped]


def _resource(name: str) -> str:
    return (importlib.resources.files("lmkd_tf.evaluate") / name).read_text("utf-8")


def _systems(summary: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(entry["system"] for entry in summary))


def _find(summary: Sequence[dict[str, Any]], system: str, group: str) -> dict[str, Any]:
    return next(e for e in summary if e["system"] == system and e["group"] == group)


# Headline figures.


def _tiles(
    summary: Sequence[dict[str, Any]],
    shipped: str,
    models: Sequence[dict[str, Any]],
    frame: StftConfig,
) -> str:
    first, last = (_find(summary, name, ALL_CLIPS) for name in (_systems(summary)[0], shipped))
    tiles = [_gain_tile(metric, first, last) for metric in MAIN_METRICS]
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
    if shipped.get("instructions_per_hop"):
        more = "instructions per hop of the firmware on a Cortex-M4F, counted in an emulator"
        tiles.append(_tile("Firmware", _count(shipped["instructions_per_hop"]), "", more))
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
    """Cuts clips so that all sounds fit the file, and brings them to one level of speech."""
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
        is_cut = num_samples < len(next(iter(clip["signals"].values())))
        signals = _matched(signals, clip["sample_rate_hz"])
        fitted.append({**clip, "signals": signals, "length": "first " if is_cut else ""})
    return fitted


def _matched(signals: Mapping[str, np.ndarray], sample_rate_hz: int) -> dict[str, np.ndarray]:
    """Gives all versions the same active speech level, as loud as the peaks allow.

    What is louder sounds better, so versions that differ in level cannot be compared by ear.
    """
    levels = {k: active_level_dbfs(v, sample_rate_hz) for k, v in signals.items()}
    target = max(levels.values())
    gains = {k: min(_MAX_GAIN, db_to_gain(target - level)) for k, level in levels.items()}
    peak = max(float(gains[k] * np.max(np.abs(v))) for k, v in signals.items())
    common = min(_MAX_GAIN, _PEAK / max(peak, 1e-9))
    return {k: np.float32(common * gains[k]) * v for k, v in signals.items()}


def _clip(clip: dict[str, Any], scores: Mapping[tuple[str, str], Any], frame: StftConfig) -> str:
    name, labels = escape(str(clip["name"])), list(clip["signals"])
    seconds = len(clip["signals"][labels[0]]) / clip["sample_rate_hz"]
    snr = "" if clip["snr_db"] is None else f"{clip['snr_db']:g} dB SNR, "
    facts = f"{snr}{clip['length']}{seconds:.1f} s"
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
aria-label="Position in {name}"><output aria-live="off"></output></div>
</div>
<div class="panels" style="--columns: {_num_columns(len(labels))}">{panels}</div>
{_blind_test(labels)}
</article>"""


def _blind_test(labels: Sequence[str]) -> str:
    """Returns the form of an A/B/X test of two versions, which the script runs."""
    if len(labels) < 2:
        return ""
    chosen = {"A": labels[0], "B": labels[-2] if len(labels) > 2 else labels[1]}
    choices = "".join(
        f'<label>{letter} <select aria-label="Version {letter}">'
        + "".join(
            f"<option{' selected' if label == own else ''}>{escape(label)}</option>"
            for label in labels
        )
        + "</select></label>"
        for letter, own in chosen.items()
    )
    hear = "".join(f'<button type="button" data-hear="{x}">{x}</button>' for x in "ABX")
    answers = "".join(
        f'<button type="button" data-answer="{x}" disabled>X is {x}</button>' for x in "AB"
    )
    return (
        '<details class="blind"><summary>Blind test: is X the same as A or as B?</summary>'
        f'<div class="row">{choices}</div><div class="row"><span>Hear</span>{hear}</div>'
        f'<div class="row"><span>Answer</span>{answers}</div>'
        '<output aria-live="polite">Hear X, then answer.</output></details>'
    )


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


def _score_hint(rows: Sequence[dict[str, Any]], summary: Sequence[dict[str, Any]]) -> str:
    num_clips = len({row["file"] for row in rows})
    hint = (
        f"Means over {num_clips} held-out clips. After ± stands half of the 95 % bootstrap "
        "interval; charts draw it as a vertical line, or as an area if there are two systems."
    )
    if len({row["system"] for row in rows}) > _NUM_COLORS:
        hint += f" {_NUM_COLORS} of the systems are drawn; the tables have all of them."
    num_undefined = sum(any(row.get(m, 0) is None for m in METRICS) for row in rows)
    if num_undefined:
        hint += f" In {num_undefined} of {len(rows)} rows a metric is undefined and left out."
    for line in missing_clips(summary):
        hint += f" {escape(line)}."
    return hint


def _legend(colors: Mapping[str, int]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 26 12" aria-hidden="true"><line class="line s{color}" x1="0" '
        f'x2="26" y1="6" y2="6"/>{mark(color, 13, 6, color)}</svg>{escape(system)}</li>'
        for system, color in colors.items()
    )
    return f'<ul class="legend">{items}</ul>'


def _scores(
    summary: Sequence[dict[str, Any]],
    shipped: str,
    metrics: Sequence[str],
    colors: Mapping[str, int],
) -> str:
    """Returns the sections of all metrics, those of less weight folded away."""
    sections = {metric: _metric(metric, summary, shipped, colors) for metric in metrics}
    main = "".join(text for metric, text in sections.items() if metric in MAIN_METRICS)
    more = "".join(text for metric, text in sections.items() if metric not in MAIN_METRICS)
    titles = ", ".join(METRIC_TITLES[m] for m in metrics if m not in MAIN_METRICS)
    return main + (f"<details><summary>{titles}</summary>{more}</details>" if more else "")


def _metric(
    metric: str, summary: Sequence[dict[str, Any]], shipped: str, colors: Mapping[str, int]
) -> str:
    lines = [_score_line(metric, system, summary, color) for system, color in colors.items()]
    if len(lines) > 2:  # more than two areas would hide each other
        middle = (len(lines) - 1) / 2
        lines = [
            replace(line, has_whiskers=True, shift=_WHISKER_SPACING * (index - middle))
            for index, line in enumerate(lines)
        ]
    title = METRIC_TITLES[metric]
    lines = [line for line in lines if len(line.x)]
    chart = line_chart(lines, x_title="SNR (dB)", y_title=title, has_marks=True) if lines else ""
    table = _metric_table(metric, summary, shipped)
    return (
        f'<div class="card metric"><h3>{title}</h3><div>{chart}</div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">{table}</div></div>'
    )


def _score_line(metric: str, system: str, summary: Sequence[dict[str, Any]], color: int) -> Line:
    entries = [e for e in summary if e["system"] == system and e["snr_db"] is not None]
    values = [e[metric] or {"mean": np.nan, "low": np.nan, "high": np.nan} for e in entries]
    mean, low, high = ([v[key] for v in values] for key in ("mean", "low", "high"))
    return Line(system, color, [e["snr_db"] for e in entries], mean, (low, high))


def _metric_table(metric: str, summary: Sequence[dict[str, Any]], shipped: str) -> str:
    systems, groups = _systems(summary), list(dict.fromkeys(e["group"] for e in summary))
    by_snr = [
        e["num_clips"] for e in summary if e["system"] == systems[0] and e["snr_db"] is not None
    ]
    if len(set(by_snr)) == 1:
        groups.remove(MEAN_OF_SNRS)  # the same as over all clips
    heads = "".join(f'<th scope="col">{escape(group)}</th>' for group in groups)
    lines = []
    for system in systems:
        entries = {e["group"]: e for e in summary if e["system"] == system}
        cells = "".join(_score_cell(metric, entries.get(g, {}).get(metric)) for g in groups)
        own = ' class="shipped"' if system == shipped and len(systems) > 1 else ""
        lines.append(f'<tr{own}><th scope="row">{escape(system)}</th>{cells}</tr>')
    return (
        f'<table><thead><tr><th scope="col">System</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _score_cell(metric: str, interval: dict[str, float] | None) -> str:
    if interval is None:
        return "<td>-</td>"
    half = {"mean": (interval["high"] - interval["low"]) / 2}
    return f"<td>{format_mean(metric, interval)}<small>±{format_mean(metric, half)}</small></td>"


def _comparisons(comparisons: Sequence[dict[str, Any]]) -> str:
    """Returns the table of paired differences over all clips."""
    entries = [entry for entry in comparisons if entry["group"] == ALL_CLIPS]
    if not entries:
        return ""
    heads = "".join(f'<th scope="col">{METRIC_TITLES[m]}</th>' for m in MAIN_METRICS)
    body = "".join(
        f'<tr><th scope="row">{escape(e["system"])}</th>'
        + "".join(_difference_cell(m, e[m]) for m in MAIN_METRICS)
        + "</tr>"
        for e in entries
    )
    return (
        f"<h3>Difference to {escape(entries[0]['baseline'])} on the same clips</h3>"
        '<p class="hint">Below it the 95 % interval of the paired difference, and the share of '
        "clips on which the system is better.</p>"
        '<div class="card scroll" tabindex="0" role="region" aria-label="Paired differences">'
        f'<table><thead><tr><th scope="col">System</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _difference_cell(metric: str, result: Mapping[str, float] | None) -> str:
    if result is None:
        return "<td>-</td>"
    difference, low, high = (
        f"{result[key]:+.{digits_of(metric)}f}".replace("-", "\N{MINUS SIGN}")
        for key in ("difference", "low", "high")
    )
    wins = f"wins {100 * result['win_rate']:.0f} %"
    return f"<td>{difference}<small>{low} to {high}</small><small>{wins}</small></td>"


# Quality against cost.


def _quality(
    summary: Sequence[dict[str, Any]],
    models: Sequence[dict[str, Any]],
    published: Sequence[Mapping[str, Any]],
    frame: StftConfig,
) -> str:
    """Returns charts of quality over cost, with the published systems as further points."""
    hops_per_second = frame.sample_rate_hz / frame.hop_length
    own = []
    for model in models:
        own_names = (model["name"], f"{model['name']} (TFLM)")
        entries = [e for e in summary if e["system"] in own_names and e["group"] == ALL_CLIPS]
        macs = model.get("macs_per_hop")
        cost = {**model, "macs_per_second": macs * hops_per_second if macs else None}
        own += [(cost, entry) for entry in entries]
    points = {
        (quality, cost): _quality_points(quality, cost, own, published)
        for cost in _COSTS
        for quality in _QUALITIES
    }
    if max(map(len, points.values())) < 2:
        return ""  # one point cannot be compared with anything
    charts = [
        _quality_chart(*axes, found)
        for axes, found in points.items()
        if any(point.color != _PUBLISHED_COLOR for point in found)
    ]
    trained = "; ".join(f"{p['name']}: {p['training']}" for p in published)
    note = f" Published systems (grey) and what they were trained on: {escape(trained)}."
    return (
        '<section id="quality"><h2>Quality against cost</h2><p class="hint">Up and to the left is '
        "better. Means over all clips with 95 % intervals; cost on a logarithmic axis."
        f'{note if published else ""}</p><div class="curves">{"".join(charts)}</div></section>'
    )


def _quality_points(
    quality: str,
    cost: str,
    own: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    published: Sequence[Mapping[str, Any]],
) -> list[Point]:
    """Returns the systems whose quality and cost are known."""
    points = []  # ours first: their names get the places beside their marks
    for index, (model, entry) in enumerate(own):
        score = entry[quality]
        if model.get(cost) and score:
            color = 1 + index % (_NUM_COLORS - 1)
            points.append(Point(model["name"], color, model[cost], *_mean_and_interval(score)))
    return points + [
        Point(str(p["name"]), _PUBLISHED_COLOR, p[cost], *_mean_and_interval(p[quality]))
        for p in published
        if p.get(cost) and p.get(quality)
    ]


def _mean_and_interval(score: float | Mapping[str, float]) -> tuple[float, Sequence[float]]:
    if isinstance(score, Mapping):
        return score["mean"], (score["low"], score["high"])
    return score, ()


def _quality_chart(quality: str, cost: str, points: Sequence[Point]) -> str:
    chart = scatter_chart(points, x_title=_COSTS[cost], y_title=METRIC_TITLES[quality])
    title = f"<h3>{METRIC_TITLES[quality]}</h3><h4>over {_COSTS[cost]}</h4>"
    return f'<div class="card">{title}{chart}</div>'


# Size and compute.


def _models_table(models: Sequence[dict[str, Any]], frame: StftConfig) -> str:
    if not models:
        return "<p>No model was recorded.</p>"
    hops_per_second = frame.sample_rate_hz / frame.hop_length
    heads = ["Parameters", "MAC per hop", "MMAC/s", "File", "TFLM arena"]
    has_instructions = any(model.get("instructions_per_hop") for model in models)
    heads += ["Instructions per hop (M4F firmware)"] if has_instructions else []
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = ""
    for index, model in enumerate(models):
        macs = model.get("macs_per_hop")
        cells = [_count(model.get("parameters")), _count(macs)]
        cells.append(f"{macs * hops_per_second / 1e6:.2f}" if macs else "-")
        cells += [_bytes_cell(model.get(key)) for key in ("bytes", "arena_bytes")]
        cells += [_count(model.get("instructions_per_hop"))] if has_instructions else []
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
