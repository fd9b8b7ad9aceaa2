# SPDX-License-Identifier: Apache-2.0
"""The firmware bundle: all that a firmware engineer needs, in one folder and one zip.

The same model gives the same bytes. `lmkd_tf.firmware.bundle_check` says what differs in a bundle
that was made elsewhere.
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from lmkd_tf.config.files import atomic_path, read_json
from lmkd_tf.config.loader import package_versions
from lmkd_tf.export.manifest import manifest_path, read_manifest
from lmkd_tf.firmware.bundle_texts import model_card, op_resolver, readme
from lmkd_tf.firmware.cost_sheet import cost_sheet
from lmkd_tf.firmware.emulator import FIRMWARE
from lmkd_tf.firmware.generate import generate
from lmkd_tf.firmware.golden_stages import golden_stages
from lmkd_tf.firmware.graph import read_quantized_graph
from lmkd_tf.firmware.headers import generated_notice
from lmkd_tf.firmware.package import PUBLIC_HEADERS, SOURCES

BUNDLE_FORMAT = "lmkd-bundle"
BUNDLE_VERSION = 1
MANIFEST = "manifest.json"
SCHEMA = "manifest.schema.json"
SCHEMA_SOURCE = Path(__file__).with_name("bundle.schema.json")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first day that a zip can hold
_LIBRARY_HEADERS = ("fft.h", "front_end.h", "checksum.h", "network.h", "nn.h", "nn_arithmetic.h")


def generator() -> str:
    """Returns the name and version of what writes bundles."""
    return f"lmkd-tf {package_versions()['lmkd-tf']}"


def write_bundle(model_path: str | Path, folder: str | Path) -> Path:
    """Writes a bundle as a folder and, beside it, as `<folder>.zip`.

    Args:
        model_path: Exported `.tflite` with its manifest beside it.
        folder: Folder to write; an older bundle in it is replaced, whole or not at all.

    Returns:
        The zip.

    Raises:
        FileExistsError: If something else has the name of the folder or of the zip, or lies in the
            folder.
        FileNotFoundError: If the model or the sources of the firmware are missing.
        ValueError: If the model is not one that firmware runs.
    """
    target = Path(folder)
    _check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle-") as scratch:
        made = Path(scratch) / "new"
        _fill(Path(model_path), made)
        content = zip_bytes(read_folder(made), target.name)
        archive = _archive_of(target)
        with atomic_path(archive) as temporary:
            temporary.write_bytes(content)
            if target.exists():
                target.rename(Path(scratch) / "old")
            made.rename(target)
    return archive


def zip_bytes(files: dict[str, bytes], name: str) -> bytes:
    """Returns files as a zip whose bytes depend on nothing else: stored, sorted, undated.

    Args:
        files: Content by path within the bundle.
        name: Folder that the paths lie under.

    Returns:
        The archive.
    """
    with tempfile.TemporaryFile() as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(files):
                entry = zipfile.ZipInfo(f"{name}/{path}", _EPOCH)
                entry.external_attr = 0o644 << 16
                entry.create_system = 3  # Unix, wherever this runs
                archive.writestr(entry, files[path])
        stream.seek(0)
        return stream.read()


def read_folder(folder: Path) -> dict[str, bytes]:
    """Returns every file of a folder by its path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest_of(record: dict[str, Any]) -> str:
    """Returns the SHA-256 of a bundle's manifest without its own entry `digest`."""
    rest = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_c_sources(model: Path, folder: Path) -> dict[str, int] | None:
    """Writes what a bundle has under `c/`.

    Args:
        model: `.tflite` file with its manifest beside it.
        folder: Folder to write to.

    Returns:
        Bytes of the generated C's constants and memory; None where there is no generated C.
    """
    record = read_json(manifest_path(model))
    generate(manifest_path(model), folder)
    notice = generated_notice(manifest_path(model))
    (folder / "op_resolver.h").write_text(op_resolver(record, notice))
    if not record.get("has_c_kernels", True):
        return None
    macros = dict(
        line.split()[1:3]
        for line in (folder / "model_aot.h").read_text().splitlines()
        if line.startswith("#define LMKD_") and len(line.split()) == 3
    )
    return {
        "image": int(macros["LMKD_IMAGE_BYTES"].rstrip("u")),
        "memory": int(macros["LMKD_AOT_MEMORY_BYTES"].rstrip("u")),
    }


def _check_target(target: Path) -> None:
    # Links that lead nowhere count as well: they are somebody's.
    if (target.exists() or target.is_symlink()) and not target.is_dir():
        raise FileExistsError(
            "A bundle must go to a new folder or replace an older bundle. "
            f"Received {target}, which is no folder. Give another name, or move that away."
        )
    archive = _archive_of(target)
    if (archive.exists() or archive.is_symlink()) and not _is_zip_of_bundle(archive):
        raise FileExistsError(
            "The zip beside a bundle must be new or replace the zip of an older bundle. "
            f"Received {target}, beside which {archive.name} is something else. "
            "Give another name, or move that file away."
        )
    if target.is_dir() and any(target.iterdir()) and not _is_bundle(target):
        raise FileExistsError(
            "A bundle must go to a new folder or replace an older bundle. "
            f"Received {target}, which holds other files. Give another name."
        )
    if not has_library():
        raise FileNotFoundError(
            "A bundle holds the C library, which lies in a checkout of this project. "
            f"Received an installation without {FIRMWARE.name}/. Run this from a checkout."
        )


def _is_bundle(folder: Path) -> bool:
    try:
        return read_json(folder / MANIFEST).get("format") == BUNDLE_FORMAT
    except (FileNotFoundError, ValueError, AttributeError):
        return False


def has_library() -> bool:
    """Returns whether the sources of the C library are here: in a checkout, not if installed."""
    return (FIRMWARE / "src").is_dir()


def write_derived(model: Path, folder: Path) -> dict[str, Any]:
    """Writes what follows to the byte from a model and this version: all but golden vectors.

    Args:
        model: `.tflite` file with its manifest beside it.
        folder: Folder of the bundle; it gets library and license only where they are at hand.

    Returns:
        What the manifest of the bundle says, without its list of files and its digest.
    """
    record = read_json(manifest_path(model))
    c_bytes = write_c_sources(model, folder / "c")
    _write_json(folder / "cost.json", cost_sheet(record, c_bytes))
    (folder / "README.md").write_text(readme(record, generator()))
    (folder / "MODEL_CARD.md").write_text(model_card(record))
    shutil.copyfile(SCHEMA_SOURCE, folder / SCHEMA)
    if has_library():
        _copy_library(folder / "lib")
        shutil.copyfile(FIRMWARE.parent / "LICENSE", folder / "LICENSE")
    copied = ("name", "model", "runtime", "stft", "num_bands", "arena_bytes", "states", "operators")
    made_by = {"format": BUNDLE_FORMAT, "version": BUNDLE_VERSION, "generator": generator()}
    return {**made_by, **{entry: record[entry] for entry in copied}}


def _archive_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def _is_zip_of_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.split("/")[1:] == [MANIFEST]]
            records = [json.loads(archive.read(name)) for name in names]
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):  # RuntimeError: a password
        return False
    return [isinstance(r, dict) and r.get("format") for r in records] == [BUNDLE_FORMAT]


def _fill(source: Path, folder: Path) -> None:
    read_manifest(source)  # refuses a model that is not the one of its manifest
    model = folder / "model" / source.name
    model.parent.mkdir(parents=True)
    shutil.copyfile(source, model)
    shutil.copyfile(manifest_path(source), manifest_path(model))
    read_quantized_graph(model)
    entry = write_derived(model, folder)
    _write_golden(model, folder / "golden")
    files = {
        path: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in read_folder(folder).items()
    }
    entry["files"] = files
    _write_json(folder / MANIFEST, {**entry, "digest": digest_of(entry)})


def _write_golden(model: Path, folder: Path) -> None:
    folder.mkdir()
    stages = golden_stages(model)
    for stage in stages:
        values = stage.values.astype(stage.values.dtype.newbyteorder("<"))
        (folder / stage.file).write_bytes(values.tobytes())
    _write_json(folder / "vectors.json", {stage.name: stage.record for stage in stages})


def _copy_library(folder: Path) -> None:
    sources = [name for name in SOURCES if name.startswith("src/")]
    headers = [f"src/{name}" for name in _LIBRARY_HEADERS]
    for name in (*sources, *headers, *PUBLIC_HEADERS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FIRMWARE / name, folder / name)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
