# SPDX-License-Identifier: Apache-2.0
"""Checks a firmware bundle made elsewhere, bit by bit, and says what was tampered with."""

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lmkd_tf.export.flatbuffer import read_graph
from lmkd_tf.export.manifest import manifest_path, read_manifest
from lmkd_tf.export.metadata import METADATA_NAME, read_metadata
from lmkd_tf.export.op_check import check_graph
from lmkd_tf.firmware.bundle import (
    BUNDLE_FORMAT,
    BUNDLE_VERSION,
    MANIFEST,
    SCHEMA_SOURCE,
    digest_of,
    generator,
    has_library,
    read_folder,
    write_derived,
    zip_bytes,
)
from lmkd_tf.firmware.golden_stages import NUM_FRAMES, Stage, golden_stages

# A bundle holds about 3 MB; what says it is larger than this is not one.
_MAX_BYTES = 256 * 2**20
# Its floats depend on the machine; golden/ holds more of the same, which is compared.
_NOT_REGENERATED = ("c/golden.c",)


def verify_bundle(path: str | Path) -> list[str]:
    """Checks every file of a bundle against its manifest, its model and the generator.

    A change of a file alone shows in its hash. A change of file and hash shows where the file is
    made anew from the model: C sources, library, costs and texts byte by byte, golden vectors by
    their tolerances, with the network in TFLite Micro. `not_checked` says what was left out.

    Args:
        path: Folder or zip.

    Returns:
        One line per thing that is not as the generator of the bundle made it; empty if all is.

    Raises:
        FileNotFoundError: If there is nothing at that path.
        ValueError: If it is no bundle, one of another version, or a zip that reaches outside.
    """
    files, findings = _read(Path(path))
    record = _read_manifest(files, path)
    findings += _schema_findings(record)
    if findings:
        return findings
    findings += _hash_findings(files, record)
    return findings or list(_model_findings(files, record))


def not_checked(path: str | Path) -> list[str]:
    """Names the files of a bundle that `verify_bundle` holds against their hashes alone.

    Those of another version may be right without being what this one writes. What the manifest
    of the model says of it beyond frame, bands, features and states is taken as it is, too.

    Args:
        path: Folder or zip, as for `verify_bundle`.

    Returns:
        One line per reason, with the files; empty where only `c/golden.c` is left out.
    """
    files, _ = _read(Path(path))
    made_by = _read_manifest(files, path).get("generator")
    if made_by != generator():
        names = "c/, lib/, golden/ but the masks, cost.json and texts"
        remedy = f"this is {generator()}. Check it with that version"
        return [f"{names}: not checked, made by {made_by}; {remedy}"]
    if not has_library():
        return ["lib/, LICENSE: not checked, they lie in a checkout. Run this from one"]
    return []


def _read(path: Path) -> tuple[dict[str, bytes], list[str]]:
    if path.is_dir():
        return read_folder(path), []
    if not path.is_file():
        raise FileNotFoundError(
            f"A bundle is needed. Received {path}, which does not exist. Check the path."
        )
    content = path.read_bytes()
    name, files = _read_zip(content, path)
    if zip_bytes(files, name) != content:
        return files, [f"{path.name}: the archive holds bytes that are in no file of it"]
    return files, []


def _read_zip(content: bytes, path: Path) -> tuple[str, dict[str, bytes]]:
    """Returns the folder in the archive and its files; nothing is written anywhere."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            _check_entries(entries, path)
            read = {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise ValueError(
            f"The file must hold a whole zip. Received {path}, which is damaged ({error}). "
            "Get the bundle again."
        ) from error
    names = [name.split("/", 1) for name in read]
    folders = {parts[0] for parts in names}
    if len(folders) != 1 or any(len(parts) != 2 for parts in names):
        raise ValueError(
            "The zip of a bundle must hold one folder. "
            f"Received {path} with {sorted(folders)[:5]}. Use the zip that lmkd-export wrote."
        )
    return folders.pop(), {name.split("/", 1)[1]: data for name, data in read.items()}


def _check_entries(entries: list[zipfile.ZipInfo], path: Path) -> None:
    names = [entry.filename for entry in entries]
    outside = [n for n in names if _is_outside(n)]
    if outside:
        raise ValueError(
            "A zip must not reach outside of its folder. "
            f"Received {path} with {outside[0]!r}. Do not unpack it; get the bundle again."
        )
    if len(set(names)) != len(names) or sum(e.file_size for e in entries) > _MAX_BYTES:
        raise ValueError(
            f"A bundle must hold every file once and at most {_MAX_BYTES} bytes. "
            f"Received {path}, which does not. Get the bundle again."
        )


def _is_outside(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or ":" in name


def _read_manifest(files: dict[str, bytes], path: str | Path) -> dict[str, Any]:
    try:
        record = json.loads(files[MANIFEST])
        is_bundle = record["format"] == BUNDLE_FORMAT
    except (KeyError, TypeError, ValueError):
        is_bundle, record = False, {}
    if not is_bundle:
        raise ValueError(
            f"A bundle must hold a {MANIFEST} of lmkd-export. "
            f"Received {path}, whose manifest is missing or damaged. Get the bundle again."
        )
    if record.get("version") != BUNDLE_VERSION:
        raise ValueError(
            f"This version of lmkd-tf checks bundles of version {BUNDLE_VERSION}. "
            f"Received {path} of version {record.get('version')}, made by "
            f"{record.get('generator')}. Check it with that version, or make it anew."
        )
    return record


def _schema_findings(record: dict[str, Any]) -> list[str]:
    import jsonschema

    schema = json.loads(SCHEMA_SOURCE.read_text("utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(record)
    lines = sorted(f"{MANIFEST}: {'/'.join(map(str, e.path))}: {e.message[:200]}" for e in errors)
    if not lines and record["digest"] != digest_of(record):
        lines = [f"{MANIFEST}: its entries are not those that its digest was made of"]
    return lines


def _hash_findings(files: dict[str, bytes], record: dict[str, Any]) -> list[str]:
    listed, present = record["files"], {name for name in files if name != MANIFEST}
    lines = [f"{name}: missing" for name in sorted(listed.keys() - present)]
    lines += [f"{name}: not part of the bundle" for name in sorted(present - listed.keys())]
    for name in sorted(present & listed.keys()):
        found = hashlib.sha256(files[name]).hexdigest()
        if found != listed[name]["sha256"]:
            lines.append(
                f"{name}: changed ({len(files[name])} bytes, SHA-256 {found[:12]}...; the manifest "
                f"says {listed[name]['bytes']} bytes, {listed[name]['sha256'][:12]}...)"
            )
    return lines


def _model_findings(files: dict[str, bytes], record: dict[str, Any]) -> Iterator[str]:
    """Whether the files follow from the model, however well their hashes agree."""
    with tempfile.TemporaryDirectory() as scratch:
        name = record["model"]["file"]
        model = Path(scratch) / "model" / name
        model.parent.mkdir()
        try:
            model.write_bytes(files[f"model/{name}"])
            described = f"model/{manifest_path(model).name}"
            manifest_path(model).write_bytes(files[described])
            manifest = read_manifest(model)
            graph = read_graph(model)
            check_graph(graph, manifest.model["dtype"])
        except (KeyError, ValueError) as error:
            yield f"model/{name}: {error}"
            return
        if METADATA_NAME in graph.metadata:  # the shipped preset may be older than the record
            yield from _metadata_findings(model, manifest)
        is_ours = record["generator"] == generator()  # another may write other files
        if is_ours:
            yield from _derived_findings(model, files, record)
        yield from _golden_findings(model, files, is_ours)


def _metadata_findings(model: Path, manifest: Any) -> Iterator[str]:
    inside = read_metadata(model)
    for entry in ("created_from", "states", "stft", "num_bands", "features"):
        if inside.get(entry) != getattr(manifest, entry):
            yield f"{model.name}: its record and its manifest disagree on {entry}"


def _derived_findings(
    model: Path, files: dict[str, bytes], record: dict[str, Any]
) -> Iterator[str]:
    folder = model.parent.parent / "made"
    entries = json.loads(json.dumps(write_derived(model, folder)))
    for entry, value in entries.items():
        if record.get(entry) != value:
            yield f"{MANIFEST}: {entry}: not what the manifest of the model says"
    made = read_folder(folder)
    for name, content in made.items():
        if name not in _NOT_REGENERATED and files.get(name) != content:
            source = "this version holds" if name.startswith("lib/") else "the model gives"
            yield f"{name}: not what {source}"
    folders = ("c/", "lib/") if has_library() else ("c/",)
    for name in sorted(files.keys() - made.keys()):
        if name.startswith(folders):
            yield f"{name}: not part of a bundle"


def _golden_findings(model: Path, files: dict[str, bytes], is_ours: bool) -> Iterator[str]:
    try:
        records = json.loads(files["golden/vectors.json"])
        found = {name: _golden_values(files, entry) for name, entry in records.items()}
        num_frames = len(found["codes"])
        if is_ours and num_frames != NUM_FRAMES:
            yield f"golden/codes.bin: {num_frames} frames instead of {NUM_FRAMES}"
            return
        made = golden_stages(model, num_frames, found["codes"])
        stages = {stage.name: stage for stage in made}
        if is_ours and records != {name: stage.record for name, stage in stages.items()}:
            yield "golden/vectors.json: not what this version writes"
            return
        checked = stages if is_ours else {"masks": stages["masks"]}
        wrong = [name for name, stage in checked.items() if not _agrees(found[name], stage)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        yield f"golden/vectors.json: not readable ({type(error).__name__}: {error})"
        return
    for name in wrong:
        source = stages[name].source
        by = "TensorFlow Lite Micro computes" if source == "codes" else "this version computes"
        yield f"golden/{stages[name].file}: not what {by} from golden/{source}.bin"


def _golden_values(files: dict[str, bytes], entry: dict[str, Any]) -> np.ndarray:
    content = files[f"golden/{entry['file']}"]
    return np.frombuffer(content, entry["dtype"]).reshape(entry["shape"])


def _agrees(found: np.ndarray, stage: Stage) -> bool:
    # A feature on the border of two codes falls to either side.
    allowed = 1 if stage.name == "codes" else stage.max_difference
    difference = np.abs(found.astype(np.float64) - stage.values.astype(np.float64))
    return found.shape == stage.values.shape and bool(np.all(difference <= allowed))
