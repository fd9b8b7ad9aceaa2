# SPDX-License-Identifier: Apache-2.0
"""Writes `microcontroller/generated` from a shipped model; run by `./x firmware`."""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.firmware.aot import write_aot
from lmkd_tf.firmware.headers import generated_notice, read_manifest, write_c_arrays
from lmkd_tf.firmware.tables import write_tables
from lmkd_tf.firmware.vectors import write_golden

_PROJECT_ROOT = Path(__file__).resolve().parents[2]
DEFAULT_MANIFEST = _PROJECT_ROOT / "lmkd_tf" / "presets" / "nano_int8.manifest.json"
DEFAULT_FOLDER = _PROJECT_ROOT / "microcontroller" / "generated"


def generate(manifest_path: str | os.PathLike, out_dir: str | os.PathLike) -> list[Path]:
    """Writes every generated source of the firmware.

    Args:
        manifest_path: `<stem>.manifest.json` with its model beside it.
        out_dir: Folder to write to.

    Returns:
        Paths of the files: the model as `.tflite` and as C, its configuration, the tables and the
        golden vectors; without the model as C and the vectors where it has 16-bit activations,
        which run in TFLite Micro only.

    Raises:
        FileNotFoundError: If the manifest or the model is missing.
        ValueError: If manifest and model do not belong together, or the
            manifest contradicts its frame.
    """
    manifest_path = Path(manifest_path).resolve()
    manifest = read_manifest(manifest_path)
    config = StftConfig(**manifest["stft"])
    if manifest["num_bins"] != config.num_bins:
        raise ValueError(
            "`num_bins` of a manifest must follow from its fft_length. "
            f"Received {manifest['num_bins']}, expected {config.num_bins}. "
            "Export the model again with lmkd-export."
        )
    # Elsewhere the path says nothing of the model: a bundle made within a checkout is any bundle.
    is_shipped = manifest_path.parent == DEFAULT_MANIFEST.parent
    source = str(manifest_path.relative_to(_PROJECT_ROOT)) if is_shipped else None
    notice = generated_notice(manifest_path, source)
    written = [
        *write_c_arrays(manifest_path, out_dir, source),
        *write_tables(config, manifest["num_bands"], out_dir, notice),
    ]
    if manifest.get("has_c_kernels", True):
        written += write_aot(manifest_path, out_dir, source)
        written += write_golden(manifest_path, out_dir, notice)
    return written


def changed_files(manifest_path: str | os.PathLike, out_dir: str | os.PathLike) -> list[str]:
    """Names the files of a folder that differ from what would be generated.

    Args:
        manifest_path: `<stem>.manifest.json` with its model beside it.
        out_dir: Folder to compare; nothing is written there.

    Returns:
        Names of files that differ, are missing or do not belong there, sorted.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = {path.name: path.read_bytes() for path in generate(manifest_path, folder)}
    present = {path.name: path.read_bytes() for path in Path(out_dir).glob("*") if path.is_file()}
    names = sorted(wanted.keys() | present.keys())
    return [name for name in names if wanted.get(name) != present.get(name)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Generates the firmware sources, or checks that they are up to date.

    Args:
        arguments: Words of the command line; by default those of the process.

    Raises:
        SystemExit: With `--check`, if a file would change.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lmkd_tf.firmware.generate", description=__doc__
    )
    parser.add_argument("--manifest", type=Path, default=DEFAULT_MANIFEST)
    parser.add_argument("--out-dir", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a file differs"
    )
    options = parser.parse_args(arguments)
    if not options.check:
        generate(options.manifest, options.out_dir)
        return
    changed = changed_files(options.manifest, options.out_dir)
    if changed:
        parser.error(
            f"{options.out_dir} must hold what `./x firmware` writes. "
            f"Received other content in {', '.join(changed)}. Run ./x firmware and commit."
        )


if __name__ == "__main__":
    main()
