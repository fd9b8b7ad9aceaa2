# SPDX-License-Identifier: Apache-2.0
"""What can be scored: noisy speech, a network on any back-end, or a folder of enhanced files."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from lmkd_tf.config.files import sha256_of
from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.evaluate.alignment import advance, common_delay_samples, delay_samples
from lmkd_tf.evaluate.enhance import AUDIO_SUFFIXES
from lmkd_tf.firmware.host import sources_digest

SAMPLE_RATE_HZ = 16000
# A system may leave out its last frames, or add its delay at the end.
_MAX_LENGTH_DIFFERENCE_SECONDS = 0.4


@dataclass(frozen=True)
class System:
    """Something that enhances clips.

    Args:
        name: Name in the results.
        enhance: Maps a clip to the enhanced signal `(N,)`, aligned with it.
        facts: What is recorded about it; the results depend on nothing else.
        seed: Number of the training run, where there are several.
    """

    name: str
    enhance: Callable[[EvaluationClip], np.ndarray]
    facts: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def noisy_system() -> System:
    """Returns the system that changes nothing."""
    return System("noisy", lambda clip: clip.noisy, {"kind": "noisy"})


def network_system(
    name: str,
    open_network: Callable[[], Callable[[np.ndarray], np.ndarray]],
    files: Sequence[Path],
    *,
    backend: str,
    seed: int = 0,
) -> System:
    """Returns a network, which hears every clip as if it were the first.

    Args:
        name: Name in the results.
        open_network: Returns what maps noisy `(N,)` to enhanced `(N,)` and starts anew each
            time, such as `StreamingEnhancer.enhance`; called when the first clip is enhanced.
        files: Files that hold the network.
        backend: Name of the back-end.
        seed: Number of the training run, where there are several.

    Raises:
        FileNotFoundError: If a file does not exist, or the firmware's sources do not.
    """
    opened = functools.cache(open_network)
    for path in files:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"A network must be a file. Received {path}, which does not exist. Check the path."
            )
    digests = {Path(path).name: sha256_of(path) for path in files}
    facts = {"kind": "network", "backend": backend, "sha256": digests}
    if backend == "firmware":
        facts["firmware_sha256"] = sources_digest()
    return System(name, lambda clip: opened()(clip.noisy), facts, seed)


def folder_system(
    name: str,
    folder: str | Path,
    clips: Sequence[EvaluationClip],
    *,
    delay: int | None = None,
    seed: int = 0,
) -> System:
    """Returns files that another program enhanced.

    Each file has the name of its clip. Files above 16 kHz are resampled; one delay, the same
    for all files, is taken off.

    Args:
        name: Name in the results.
        folder: Folder of wav, flac or ogg files, one channel each.
        clips: Clips to be scored.
        delay: Delay of the system in samples at 16 kHz; None to find it.
        seed: Number of the training run, where there are several.

    Raises:
        FileNotFoundError: If there is no such folder, or a file is missing.
        ValueError: If a file has several channels, a rate below 16 kHz, or not the length of
            its clip; or if the files are not delayed alike.
    """
    paths = {clip.name: _file_of(Path(folder), clip.name) for clip in clips}
    signals = {clip.name: _read(paths[clip.name], clip) for clip in clips}
    if delay is None:
        found = [delay_samples(clip.speech, signals[clip.name]) for clip in clips]
        delay = common_delay_samples(found)
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(sha256_of(paths[clip.name]).encode())
    facts = {"kind": "folder", "delay_samples": delay, "sha256": digest.hexdigest()}

    def enhance(clip: EvaluationClip) -> np.ndarray:
        return advance(signals[clip.name], delay, len(clip.speech)).astype(np.float32)

    return System(name, enhance, facts, seed)


def _file_of(folder: Path, stem: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Enhanced files must lie in a folder. Received {folder}, which is none. "
            "Check the path."
        )
    for suffix in AUDIO_SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    raise FileNotFoundError(
        "A folder of enhanced files must hold one for every clip, under its name. "
        f"Received {folder} without {stem}.wav. Enhance that clip too; lmkd-evaluate "
        "--write_noisy=FOLDER writes all of them."
    )


def _read(path: Path, clip: EvaluationClip) -> np.ndarray:
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    if samples.shape[1] != 1 or rate_hz < SAMPLE_RATE_HZ:
        raise ValueError(
            "An enhanced file must have one channel and at least 16000 Hz: a narrow-band signal "
            "cannot be compared by wide-band PESQ. "
            f"Received {samples.shape[1]} channels at {rate_hz} Hz in {path}. "
            "Enhance the clip at 16000 Hz."
        )
    signal = samples[:, 0]
    if rate_hz != SAMPLE_RATE_HZ:
        signal = soxr.resample(signal, rate_hz, SAMPLE_RATE_HZ, quality="VHQ")
    difference = abs(len(signal) - len(clip.speech)) / SAMPLE_RATE_HZ
    if difference > _MAX_LENGTH_DIFFERENCE_SECONDS:
        raise ValueError(
            "An enhanced file must be as long as its clip, within "
            f"{_MAX_LENGTH_DIFFERENCE_SECONDS:g} s. Received {len(signal)} samples for "
            f"{len(clip.speech)} in {path}. Check that it is the same clip, and one file alone."
        )
    return signal
