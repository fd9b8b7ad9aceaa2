# SPDX-License-Identifier: Apache-2.0
"""Reads one CSV file that lists the clips or pairs of a corpus.

Columns of a list of clips: `path` and `kind` (`speech`, `noise` or `room`), and where known
`split`, `speaker`, `recording`, `category`. Columns of a list of pairs: `noisy` and `clean`,
and where known `split`, `speaker`, `category`, `snr_db`. Further columns are not read: the
length comes from the file. Paths are relative to the list and stay inside its folder. A pair
without a split is a test pair.
"""

import csv
from pathlib import Path, PurePosixPath

from lmkd_tf.data.index import SPLITS, Corpus
from lmkd_tf.data.readers.layout import (
    Labels,
    Layout,
    describe,
    make_clips,
    make_pairs,
    noise_of_pairs,
    speech_of_pairs,
)

_KINDS = ("speech", "noise", "room")
_SNR_COLUMNS = ("snr_db", "nearest_nominal_snr_db", "measured_snr_db")


def recognizes(path: Path) -> bool:
    """Tells whether this is a CSV file with the columns of clips or pairs, or holds one."""
    manifest = _manifest_of(path)
    if not manifest.is_file():
        return False
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            columns = set(next(csv.reader(file), ()))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return {"path", "kind"} <= columns or {"noisy", "clean"} <= columns


def read(path: Path) -> Corpus:
    """Reads the list.

    Raises:
        ValueError: If a row is wrong or its path leads out of the folder of the list.
    """
    manifest = _manifest_of(path)
    rows = _read_rows(manifest)
    is_pairs = "noisy" in rows[0][1]
    return _read_pairs(manifest, rows) if is_pairs else _read_clips(manifest, rows)


def _manifest_of(path: Path) -> Path:
    return path / "manifest.csv" if path.is_dir() else path


def _read_rows(manifest: Path) -> list[tuple[int, dict[str, str]]]:
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = [(reader.line_num, {k: v or "" for k, v in row.items() if k}) for row in reader]
    if not rows:
        raise ValueError(
            "A manifest must list at least one file. "
            f"Received {manifest} with no rows. Add rows below the columns."
        )
    return rows


def _file_of(manifest: Path, line: int, row: dict[str, str], column: str) -> Path:
    relative = PurePosixPath(row[column])
    is_inside = relative.name and not relative.is_absolute() and ".." not in relative.parts
    return manifest.parent / relative if is_inside else _refuse(manifest, line, row, column)


def _refuse(manifest: Path, line: int, row: dict[str, str], column: str) -> Path:
    wanted = {"split": f"one of {', '.join(SPLITS)}", "kind": f"one of {', '.join(_KINDS)}"}
    raise ValueError(
        f"Column '{column}' of a manifest must hold "
        f"{wanted.get(column, 'a path inside the folder of the manifest')}. "
        f"Received {row.get(column)!r} in {manifest}, line {line}. Correct that row."
    )


def _labels_of(manifest: Path, line: int, row: dict[str, str], default: str) -> Labels:
    split = row.get("split") or default
    if split and split not in SPLITS:
        _refuse(manifest, line, row, "split")
    name = row.get("path") or row.get("noisy") or ""
    group = row.get("speaker") or row.get("recording") or PurePosixPath(name).with_suffix("")
    return Labels(split, str(group), row.get("category") or "")


def _read_clips(manifest: Path, rows: list[tuple[int, dict[str, str]]]) -> Corpus:
    labels: dict[str, dict[Path, Labels]] = {kind: {} for kind in _KINDS}
    for line, row in rows:
        if row["kind"] not in _KINDS:
            _refuse(manifest, line, row, "kind")
        path = _file_of(manifest, line, row, "path")
        labels[row["kind"]][path] = _labels_of(manifest, line, row, "")
    clips = {kind: make_clips(list(known), known.__getitem__) for kind, known in labels.items()}
    return Corpus(
        name=manifest.stem if manifest.stem != "manifest" else manifest.parent.resolve().name,
        is_synthetic=False,
        speech=clips["speech"],
        noise=clips["noise"],
        description=describe(f"Files listed in {manifest.name}", clips),
        responses=clips["room"],
        layout=LAYOUT.name,
    )


def _read_pairs(manifest: Path, rows: list[tuple[int, dict[str, str]]]) -> Corpus:
    files, labels, snrs_db = [], {}, {}
    for line, row in rows:
        noisy, clean = (_file_of(manifest, line, row, column) for column in ("noisy", "clean"))
        files.append((noisy, clean))
        labels[noisy] = _labels_of(manifest, line, row, "test")
        stated = next((row[name] for name in _SNR_COLUMNS if row.get(name)), "")
        snrs_db[noisy] = float(stated) if stated else None
    pairs = make_pairs(files, labels.__getitem__, snrs_db.__getitem__)
    return Corpus(
        name=manifest.parent.resolve().name,
        is_synthetic=False,
        speech=speech_of_pairs(pairs),
        noise=noise_of_pairs(pairs),
        description=describe(f"Pairs listed in {manifest.name}", {"pairs": pairs}),
        pairs=pairs,
        layout=LAYOUT.name,
    )


LAYOUT = Layout(
    "CSV manifest",
    "a CSV file (or manifest.csv) with the columns path and kind, or noisy and clean",
    recognizes,
    read,
)
