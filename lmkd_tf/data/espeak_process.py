# SPDX-License-Identifier: Apache-2.0
"""Speaks a list of sentences with espeak-ng; run as a program of its own.

espeak-ng is GPL-3 and optional, so nothing else loads it: the corpus builder starts
`python -m lmkd_tf.data.espeak_process JOBS_JSON` and reads the files it leaves. The jobs
are `{"voice", "pitch", "rate_wpm", "text", "path"}`; each `path` gets 16-bit mono WAV. The
program writes one line per finished job to standard output, and ends with status 3 and a
reason on standard error where there is no espeak-ng.

The library keeps some state from one sentence to the next, so the same list of jobs gives
the same audio, but a job alone may differ in its last bits.
"""

import ctypes
import json
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from typing import Any

NO_ENGINE_STATUS = 3

# Values of speak_lib.h of espeak-ng 1.50 to 1.52.
_OUTPUT_SYNCHRONOUS = 2
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_SEED = 20250

_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
Speaker = Callable[[dict[str, Any]], None]


class LibrarySpeaker:
    """Speaks with the shared library that the wheel `espeakng-loader` brings.

    Args:
        library_path: Shared library of espeak-ng.
        data_path: Folder `espeak-ng-data`.

    Raises:
        RuntimeError: If the library refuses to start.
    """

    def __init__(self, library_path: str, data_path: str) -> None:
        self._library = ctypes.CDLL(library_path)
        self._sample_rate_hz = int(
            self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data_path.encode(), 0)
        )
        if self._sample_rate_hz <= 0:
            raise RuntimeError(
                "espeak-ng must start with its data. "
                f"Received status {self._sample_rate_hz} with {data_path}. "
                "Install espeakng-loader again."
            )
        self._chunks: list[bytes] = []
        self._callback = _SynthCallback(self._collect)  # Kept: the library holds a bare pointer.
        self._library.espeak_SetSynthCallback(self._callback)
        if hasattr(self._library, "espeak_ng_SetRandSeed"):
            self._library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def __call__(self, job: dict[str, Any]) -> None:
        """Speaks one job into its file.

        Raises:
            RuntimeError: If the voice is unknown or nothing was spoken.
        """
        self._chunks.clear()
        status = self._library.espeak_SetVoiceByName(job["voice"].encode())
        self._library.espeak_SetParameter(_PARAMETER_RATE, int(job["rate_wpm"]), 0)
        self._library.espeak_SetParameter(_PARAMETER_PITCH, int(job["pitch"]), 0)
        text = job["text"].encode() + b"\0"
        if status == 0:
            status = self._library.espeak_Synth(
                text, len(text), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
            )
            self._library.espeak_Synchronize()
        if status != 0 or not self._chunks:
            raise RuntimeError(
                "espeak-ng must speak every sentence. "
                f"Received status {status} for voice {job['voice']}. "
                "Check that the voice is part of this espeak-ng."
            )
        with wave.open(job["path"], "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self._sample_rate_hz)
            file.writeframes(b"".join(self._chunks))


class CommandSpeaker:
    """Speaks with an `espeak-ng` command, one run per sentence.

    Args:
        command: Path of the executable.
    """

    def __init__(self, command: str) -> None:
        self._command = command

    def __call__(self, job: dict[str, Any]) -> None:
        """Speaks one job into its file.

        Raises:
            RuntimeError: If the command fails.
        """
        options = ["-v", job["voice"], "-p", str(job["pitch"]), "-s", str(job["rate_wpm"])]
        result = subprocess.run(
            [self._command, *options, "-w", job["path"], "--stdin"],
            input=job["text"].encode(),
            capture_output=True,
            check=False,
        )
        if result.returncode != 0:
            raise RuntimeError(
                "The espeak-ng command must speak every sentence. "
                f"Received status {result.returncode} for voice {job['voice']}: "
                f"{result.stderr.decode(errors='replace').strip()[-300:]}. "
                "Check that the voice is part of this espeak-ng."
            )


def find_speaker() -> Speaker | None:
    """Returns the wheel's library, else the command on the path, else `None`."""
    try:
        import espeakng_loader

        return LibrarySpeaker(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
    except (ImportError, OSError, RuntimeError):
        command = shutil.which("espeak-ng")
        return CommandSpeaker(command) if command else None


def main(arguments: list[str]) -> int:
    """Speaks the jobs of the JSON file named by the first argument; returns the status."""
    speak = find_speaker()
    if speak is None:
        sys.stderr.write("Neither the package espeakng-loader nor the command espeak-ng is here.\n")
        return NO_ENGINE_STATUS
    with open(arguments[0], encoding="utf-8") as file:
        jobs = json.load(file)
    for job in jobs:
        speak(job)
        sys.stdout.write("done\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
