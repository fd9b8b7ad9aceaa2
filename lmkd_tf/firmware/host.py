# SPDX-License-Identifier: Apache-2.0
"""Runs the firmware on this machine: generated for a model, compiled, in a second process."""

import atexit
import functools
import hashlib
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from lmkd_tf.config.files import sha256_of
from lmkd_tf.firmware.generate import generate
from lmkd_tf.firmware.headers import read_manifest

_FIRMWARE = Path(__file__).resolve().parents[2] / "microcontroller"
_SOURCES = (
    "platform/host/pipe.c",
    "src/lmkd.c",
    "src/front_end.c",
    "src/fft.c",
    "src/checksum.c",
    "src/network_aot.c",
    "src/nn_dense.c",
    "src/nn_simple.c",
)
_GENERATED = ("tables.c", "model_aot.c", "model_image.c")
_OPTIONS = ("-std=c11", "-O2", "-ffp-contract=off")
_MAX_FRAMES = 256  # per request, as in pipe.c


class HostFirmware:
    """The firmware in a process of its own.

    Args:
        manifest_path: `<stem>.manifest.json` of an int8 model that lies beside it.

    Raises:
        FileNotFoundError: If the sources of the firmware or a C compiler are missing.
        RuntimeError: If the firmware does not compile.
        ValueError: If the model holds what the firmware lacks.
    """

    def __init__(self, manifest_path: str | Path):
        program = build_host(Path(manifest_path).resolve())
        self._num_bands = int(read_manifest(manifest_path)["num_bands"])
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        atexit.register(self.close)

    def reset(self) -> None:
        """Forgets the past of both streams, samples and features."""
        self._send(b"r")

    def set_attenuation_limit(self, attenuation_limit_db: float) -> None:
        """Limits the attenuation of the next hops, in dB; 0 is no limit."""
        self._send(b"a" + struct.pack("<f", attenuation_limit_db))

    def set_bypass(self, is_bypassed: bool) -> None:
        """Turns the bypass of the next hops on or off."""
        self._send(b"b" + struct.pack("<I", is_bypassed))

    def process_hops(self, hops: np.ndarray) -> np.ndarray:
        """Enhances hops of samples `(T, hop)`, float32; each comes out one hop late."""
        return self._request(b"p", hops)

    def gains(self, features: np.ndarray) -> np.ndarray:
        """Maps band features `(T, E)` to gains `(T, E)`, float32.

        Raises:
            ValueError: If the model has another number of bands.
        """
        if features.ndim != 2 or features.shape[1] != self._num_bands:
            raise ValueError(
                "Features must have the bands of the model. "
                f"Received shape {features.shape}. Pass (T, {self._num_bands})."
            )
        return self._request(b"g", features)

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.communicate()

    def _request(self, kind: bytes, rows: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(rows, np.float32)
        parts = [rows[i : i + _MAX_FRAMES] for i in range(0, len(rows), _MAX_FRAMES)]
        return np.concatenate(
            [
                np.zeros((0, rows.shape[1]), np.float32),
                *map(functools.partial(self._request_part, kind), parts),
            ]
        )

    def _request_part(self, kind: bytes, rows: np.ndarray) -> np.ndarray:
        self._send(kind + struct.pack("<I", len(rows)) + rows.tobytes())
        answer = self._process.stdout.read(rows.nbytes) if self._process.stdout else b""
        if len(answer) != rows.nbytes:
            self._fail()
        return np.frombuffer(answer, np.float32).reshape(rows.shape).copy()

    def _send(self, content: bytes) -> None:
        try:
            if self._process.stdin:
                self._process.stdin.write(content)
                self._process.stdin.flush()
        except (OSError, ValueError):  # the pipe is broken, or closed on this side
            self._fail()

    def _fail(self) -> None:
        text = b""
        if self._process.stderr and not self._process.stderr.closed:
            text = self._process.stderr.read()
        self._process.wait()
        raise RuntimeError(
            "The firmware's process must answer every request. "
            f"Received exit status {self._process.returncode}: {text.decode().strip()}. "
            "Report it with the model that was used."
        )


def sources_digest() -> str:
    """Returns a digest of the C files and options that the back-end is compiled from.

    What is generated for a model is not among them; it follows from the model.

    Raises:
        FileNotFoundError: If the sources of the firmware are missing.
    """
    _check_sources()
    folders = (_FIRMWARE / "include", _FIRMWARE / "src", _FIRMWARE / "platform" / "host")
    headers = [path for folder in folders for path in folder.rglob("*.h")]
    files = sorted({*headers, *(_FIRMWARE / name for name in _SOURCES)})
    parts = [f"{path.relative_to(_FIRMWARE)}\n".encode() + path.read_bytes() for path in files]
    return hashlib.sha256(b"".join([" ".join(_OPTIONS).encode(), *parts])).hexdigest()


def build_host(manifest_path: Path) -> Path:
    """Generates the firmware for a model and compiles it for this machine.

    Once per process and model: what was exported to the same path again is another model.

    Args:
        manifest_path: `<stem>.manifest.json` of an int8 model that lies beside it.

    Returns:
        The program; it is deleted when this process ends.

    Raises:
        FileNotFoundError: If the sources of the firmware or a C compiler are missing.
        RuntimeError: If the firmware does not compile.
        ValueError: If the model holds what the firmware lacks.
    """
    _check_sources()
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError(
            "The back-end firmware is compiled on this machine and needs a C compiler. "
            "Received a search path without cc, gcc and clang. Install gcc, or use --backend=tflm."
        )
    model = manifest_path.with_name(read_manifest(manifest_path)["model"]["file"])
    digest = sha256_of(model) if model.is_file() else None  # `generate` says what is missing
    return _compiled(compiler, manifest_path, (sha256_of(manifest_path), digest))


@functools.cache
def _compiled(compiler: str, manifest_path: Path, digests: tuple[str, str | None]) -> Path:
    """Builds the program once for each manifest and model that `digests` stand for."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    generated, program = Path(folder.name) / "generated", Path(folder.name) / "firmware"
    generate(manifest_path, generated)
    files = [*(_FIRMWARE / name for name in _SOURCES), *(generated / name for name in _GENERATED)]
    includes = [f"-I{path}" for path in (_FIRMWARE / "include", _FIRMWARE / "src", generated)]
    command = [compiler, *_OPTIONS, *includes, *map(str, files), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise RuntimeError(
            f"The firmware must compile. Received from {compiler}: {built.stderr[-2000:]}\n"
            "Use gcc or clang of the last ten years."
        )
    return program


def _check_sources() -> None:
    if not _FIRMWARE.is_dir():
        raise FileNotFoundError(
            "The back-end firmware needs the folder microcontroller/ of the source tree. "
            f"Received an installation without {_FIRMWARE}. Use --backend=tflm, or a checkout."
        )
