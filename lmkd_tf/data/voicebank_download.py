# SPDX-License-Identifier: Apache-2.0
"""Downloads VoiceBank+DEMAND, checks and unpacks it, and resamples it to 16 kHz.

Valentini-Botinhao, "Noisy speech database for training speech enhancement algorithms and
TTS models", University of Edinburgh, 2017, doi:10.7488/ds/2117, CC BY 4.0.
"""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from lmkd_tf.config.files import atomic_path, read_json, write_json
from lmkd_tf.data.download import RemoteFile, fetch
from lmkd_tf.data.files import find_audio
from lmkd_tf.data.store import read_mono, resample
from lmkd_tf.data.unpack import unpack
from lmkd_tf.dsp.pcm import float_to_int16

OnProgress = Callable[[int, int], None]

NAME = "voicebank-demand"
SAMPLE_RATE_HZ = 16000
_HOST = "https://datashare.ed.ac.uk"
_DONE_NAME = "download.json"
_NUM_THREADS = 2
# Parts of the progress of one archive: download, unpacking, resampling.
_STEPS = 3


def _archive(name: str, bitstream: str, md5: str, num_bytes: int | None = None) -> RemoteFile:
    urls = (
        f"{_HOST}/bitstreams/{bitstream}/download",
        f"{_HOST}/bitstream/handle/10283/2791/{name}",
    )
    return RemoteFile(name, urls, md5, num_bytes)


# Identifiers, MD5 and exact sizes as DataShare states them (doi:10.7488/ds/2117). Sizes of
# three archives were not to be had; their MD5 decides.
_LOGS = _archive(
    "logfiles.zip",
    "11185dc8-9cf1-405b-b858-35bd6a04aedd",
    "0d16f5b6afe12d64238d1e4a0e6ff6e8",
    115_932,
)
_TEST = (
    _archive(
        "clean_testset_wav.zip",
        "dec213d3-bf57-4777-9663-c24bdce92d5e",
        "34eb1c0ba7ef667e9b966866c542fc16",
    ),
    _archive(
        "noisy_testset_wav.zip",
        "13c1bfbf-14a6-41db-9b41-8f7310f01ad5",
        "fb1b86caa31e8ba5b506c0c64da9aab5",
    ),
)
_TRAIN = {
    "28": (
        _archive(
            "clean_trainset_28spk_wav.zip",
            "245452b6-6235-44b6-a6f9-e7eb19797769",
            "d2d5a45ec32f8fcbf201bde0447e20ba",
            2_486_057_279,
        ),
        _archive(
            "noisy_trainset_28spk_wav.zip",
            "ecb5a102-bb00-46d3-8af5-40c79823b837",
            "1fca9e8bafb8cd069f6653c6d92f9e9c",
            2_830_205_201,
        ),
    ),
    "56": (
        _archive(
            "clean_trainset_56spk_wav.zip",
            "386ac199-5d34-402f-8112-2a123577dd57",
            "c351cbc9db30e41686c988c19f0e1475",
            4_770_619_279,
        ),
        _archive(
            "noisy_trainset_56spk_wav.zip",
            "60506429-e89f-4ae5-a28f-da63238d11cb",
            "b26382542716642b8f2845880af69cf0",
        ),
    ),
}


def list_archives(speakers: str) -> tuple[RemoteFile, ...]:
    """Returns the archives of the logs, the test set and the training set of 28 or 56."""
    return (_LOGS, *_TEST, *_TRAIN[speakers])


def download_voicebank(
    folder: str | Path,
    *,
    speakers: str = "28",
    archives: Sequence[RemoteFile] | None = None,
    keeps_archives: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Makes a folder with the corpus at 16 kHz; what an interrupted run finished is kept.

    What has been deleted since is downloaded again.

    Args:
        folder: Folder for the corpus.
        speakers: Training set: `"28"` or `"56"`.
        archives: What to download; the official archives if None.
        keeps_archives: Whether archives stay once they are unpacked and resampled.
        on_progress: Called with (done, total) in steps of no unit.

    Returns:
        The folder, as `lmkd_tf.data.readers` reads it.

    Raises:
        OSError: If a server cannot be reached, or the disk is full.
        ValueError: If an archive is not what it must be.
    """
    target = Path(folder)
    listed = list_archives(speakers) if archives is None else tuple(archives)
    done_file = target / _DONE_NAME
    finished = read_json(done_file) if done_file.is_file() else {}
    for index, remote in enumerate(listed):

        def report(step: int, done: int, total: int, index: int = index) -> None:
            if on_progress is not None:
                share = 1000 * done // total if total else 0
                on_progress(1000 * (_STEPS * index + step) + share, 1000 * _STEPS * len(listed))

        is_there = finished.get(remote.name) == remote.md5 and _is_installed(remote.name, target)
        if not is_there:
            _install(remote, target, keeps_archives, report)
            finished[remote.name] = remote.md5
            write_json(done_file, finished)
    return target


def _is_installed(name: str, target: Path) -> bool:
    """Tells whether what an archive gave is still there: someone may have deleted it since."""
    if name == _LOGS.name:
        return any(target.glob("log_*.txt"))
    return any(find_audio(_folder_of(name, target)))


def _folder_of(name: str, target: Path) -> Path:
    return target / f"{name.removesuffix('.zip')}_16k"


def _install(
    remote: RemoteFile,
    target: Path,
    keeps_archive: bool,
    report: Callable[[int, int, int], None],
) -> None:
    archive = fetch(remote, target, on_progress=lambda done, total: report(0, done, total))
    name = archive.name.removesuffix(".zip")
    raw = unpack(archive, target / f".{name}", on_progress=lambda d, t: report(1, d, t))
    if any(find_audio(raw)):
        _resample_all(raw, _folder_of(archive.name, target), lambda d, t: report(2, d, t))
    else:
        for log in sorted(raw.rglob("*.txt")):
            log.replace(target / log.name)
    shutil.rmtree(raw)
    if not keeps_archive:
        archive.unlink()


def _resample_all(raw: Path, folder: Path, on_progress: OnProgress) -> None:
    """Writes every file as FLAC at 16 kHz; files that are there already are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    files = find_audio(raw)

    def convert(path: Path) -> None:
        target = folder / f"{path.stem}.flac"
        if not target.is_file():
            samples, rate_hz = read_mono(path)
            pcm = float_to_int16(resample(samples, rate_hz, SAMPLE_RATE_HZ))
            with atomic_path(target) as temporary:
                soundfile.write(temporary, pcm, SAMPLE_RATE_HZ, subtype="PCM_16")

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for done, _ in enumerate(pool.map(convert, files), 1):
            on_progress(done, len(files))
