# SPDX-License-Identifier: Apache-2.0
"""Reads a corpus folder: `speech/`, `noise/` and, for training only, `speech_opus/`.

Each of these folders has a `manifest.csv` with the columns `path` (relative to the
manifest), `seconds` and `split`. Speech may name a `speaker`; noise may name a
`recording` and a `category`. `speech_opus/` needs no `split`: all of it is training
speech whose codec dulls the treble. Other folders, benchmarks above all, are not read.
"""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lmkd_tf.config.files import read_json
from lmkd_tf.data.index import SPLITS, Clip, Corpus, clips_in

# Median loss of the 32 kbit/s Opus files against their sources is 2.2 dB at 4-6 kHz and
# 3.2 to 3.6 dB above (measured on 64 files when that set was made).
OPUS_TREBLE_LIFT_DB = 3.0

_REQUIRED_COLUMNS = ("path", "seconds", "split")


def read_folder(path: str | Path, required_splits: tuple[str, ...] = SPLITS) -> Corpus:
    """Reads the manifests of a corpus folder; opens no audio file.

    Files that are listed but missing stay in the index: loading counts them as
    unreadable.

    Args:
        path: Folder that holds `speech/manifest.csv` and `noise/manifest.csv`.
        required_splits: Splits that must hold speech and noise.

    Returns:
        The corpus, in the order of the manifests.

    Raises:
        FileNotFoundError: If the folder or a manifest is missing.
        ValueError: If a manifest lacks a column, a row is wrong, a required split is
            empty, or one speaker or recording is in two splits.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            "The corpus folder must exist. "
            f"Received {folder}, which is not a folder. "
            "Give a folder with speech/manifest.csv and noise/manifest.csv, or build the "
            "embedded corpus with lmkd_tf.data.embedded.build_embedded_corpus."
        )
    speech = _read_clips(folder, "speech")
    if (folder / "speech_opus").is_dir():
        speech += _read_clips(folder, "speech_opus")
    noise = _read_clips(folder, "noise")
    for split in required_splits:
        clips_in(speech, split, "speech")
        clips_in(noise, split, "noise")
    _check_disjoint(speech, "speaker", folder / "speech")
    _check_disjoint(noise, "recording", folder / "noise")
    return _describe(folder, speech, noise)


def _describe(folder: Path, speech: tuple[Clip, ...], noise: tuple[Clip, ...]) -> Corpus:
    facts = read_json(folder / "corpus.json") if (folder / "corpus.json").is_file() else {}
    hours = sum(clip.seconds for clip in speech) / 3600.0
    minutes = sum(clip.seconds for clip in noise) / 60.0
    default = f"Recordings read from a folder: {hours:.2f} h of speech, {minutes:.1f} min of noise."
    return Corpus(
        name=str(facts.get("name", folder.resolve().name)),
        is_synthetic=bool(facts.get("is_synthetic", False)),
        speech=speech,
        noise=noise,
        description=str(facts.get("description", default)),
    )


def _read_clips(folder: Path, part: str) -> tuple[Clip, ...]:
    manifest = folder / part / "manifest.csv"
    clips = tuple(_clip_of_row(manifest, part, line, row) for line, row in _read_rows(manifest))
    if not clips:
        raise ValueError(
            "A manifest must list at least one file. "
            f"Received {manifest} with no rows. "
            f"Add rows with the columns {', '.join(_REQUIRED_COLUMNS)}."
        )
    return clips


def _read_rows(manifest: Path) -> Iterator[tuple[int, dict[str, str]]]:
    if not manifest.is_file():
        raise FileNotFoundError(
            f"The corpus part '{manifest.parent.name}' must have a manifest. "
            f"Received no file {manifest}. "
            f"Write it with the columns {', '.join(_REQUIRED_COLUMNS)}."
        )
    required = _REQUIRED_COLUMNS[:2] if manifest.parent.name == "speech_opus" else _REQUIRED_COLUMNS
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        missing = [name for name in required if name not in columns]
        if missing:
            raise ValueError(
                f"A manifest must have the columns {', '.join(required)}. "
                f"Received {manifest} with {', '.join(columns) or 'no header'}. "
                f"Add the column {', '.join(missing)}."
            )
        for row in reader:
            yield reader.line_num, row


def _clip_of_row(manifest: Path, part: str, line: int, row: dict[str, str]) -> Clip:
    relative = PurePosixPath(row["path"] or "")
    split = "train" if part == "speech_opus" else row["split"]
    if not relative.name or relative.is_absolute() or ".." in relative.parts:
        _refuse_row(manifest, line, "path", row["path"], "a path inside the manifest's folder")
    if split not in SPLITS:
        _refuse_row(manifest, line, "split", split, f"one of {', '.join(SPLITS)}")
    group = row.get("recording") if part == "noise" else row.get("speaker")
    return Clip(
        path=manifest.parent / relative,
        seconds=_parse_seconds(manifest, line, row["seconds"]),
        split=split,
        # A file of an unknown speaker is a group of its own: never joined with another.
        group=group or str(relative),
        category=(row.get("category") or "unknown") if part == "noise" else "",
        treble_lift_db=OPUS_TREBLE_LIFT_DB if part == "speech_opus" else 0.0,
    )


def _parse_seconds(manifest: Path, line: int, text: str | None) -> float:
    try:
        seconds = float(text or 0.0)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        _refuse_row(manifest, line, "seconds", text, "a length in seconds")
    return seconds


def _refuse_row(manifest: Path, line: int, column: str, value: str | None, wanted: str) -> None:
    raise ValueError(
        f"Column '{column}' of a manifest must hold {wanted}. "
        f"Received {value!r} in {manifest}, line {line}. "
        "Correct that row."
    )


def _check_disjoint(clips: tuple[Clip, ...], kind: str, folder: Path) -> None:
    split_of_group: dict[str, str] = {}
    for clip in clips:
        first = split_of_group.setdefault(clip.group, clip.split)
        if first != clip.split:
            raise ValueError(
                f"A {kind} must be in one split only, or the scores on held-out files are false. "
                f"Received {kind} '{clip.group}' in '{first}' and '{clip.split}' of {folder}. "
                f"Move all its files to one split."
            )
