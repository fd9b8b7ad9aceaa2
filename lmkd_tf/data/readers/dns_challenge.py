# SPDX-License-Identifier: Apache-2.0
"""Reads the trees of the DNS Challenge: clean, noise, impulse responses, synthetic tests.

`datasets/` or `datasets_fullband/` holds `clean` and `noise` (or `clean_fullband`,
`noise_fullband`), may hold `impulse_responses`, and `test_set/synthetic/no_reverb` and
`with_reverb` with `clean/` and `noisy/`, whose files belong together by their `fileid`.
The synthetic test sets are pairs to report on and never speech or noise to train on.
"""

import re
from pathlib import Path

from lmkd_tf.data.files import find_audio
from lmkd_tf.data.index import Clip, Corpus, Pair
from lmkd_tf.data.readers.layout import (
    Labels,
    Layout,
    describe,
    first_folder,
    make_clips,
    make_pairs,
)

_ROOTS = ("datasets", "datasets_fullband", ".")
_CLEAN, _NOISE = ("clean", "clean_fullband"), ("noise", "noise_fullband")
_RESPONSES = ("impulse_responses",)
_TEST_SETS = ("test_set", "dev_testset", "test_set_training", "dev_testset_fullband")
_READER = re.compile(r"reader_(\d+)")
_FILE_ID = re.compile(r"fileid_(\d+)")
_SNR = re.compile(r"_snr(-?\d+(?:\.\d+)?)_")
_SEGMENT = re.compile(r"_\d+$")


def recognizes(path: Path) -> bool:
    """Tells whether there are clean and noise trees or synthetic test sets of this kind."""
    if _test_folders(path):
        return True
    root = _root(path)
    is_named = root is not None and (root != path or _responses(root) is not None)
    return is_named or (root is not None and root.name.startswith("datasets"))


def read(path: Path) -> Corpus:
    """Reads what is there of training trees and test sets.

    Raises:
        ValueError: If a synthetic noisy file has no clean file of its `fileid`.
    """
    root = _root(path)
    speech: tuple[Clip, ...] = ()
    noise: tuple[Clip, ...] = ()
    responses: tuple[Clip, ...] = ()
    if root is not None:
        clean, noises = first_folder(root, _CLEAN), first_folder(root, _NOISE)
        speech = make_clips(find_audio(clean or root / "clean"), _label_speech)
        noise = make_clips(find_audio(noises or root / "noise"), _label_noise)
        rooms = _responses(root)
        responses = make_clips(find_audio(rooms), _label_room) if rooms else ()
    pairs = tuple(pair for folder in _test_folders(path) for pair in _read_test(folder))
    parts = {"speech": speech, "noise": noise, "test pairs": pairs}
    return Corpus(
        name="dns-challenge",
        is_synthetic=False,
        speech=speech,
        noise=noise,
        description=describe("DNS Challenge", parts),
        pairs=pairs,
        responses=responses,
        layout=LAYOUT.name,
    )


def _root(path: Path) -> Path | None:
    """Returns the folder that holds both the clean and the noise tree."""
    for name in _ROOTS:
        root = path / name
        if first_folder(root, _CLEAN) and first_folder(root, _NOISE):
            return root
    return None


def _responses(root: Path) -> Path | None:
    return first_folder(root, _RESPONSES) or first_folder(root.parent, _RESPONSES)


def _test_folders(path: Path) -> list[Path]:
    """Returns the folders that hold `clean/` and `noisy/` of a synthetic test set."""
    bases = [path / root / name for root in _ROOTS for name in _TEST_SETS] + [path]
    synthetic = [base / "synthetic" for base in bases if (base / "synthetic").is_dir()]
    folders = [folder for base in synthetic for folder in (base, *sorted(base.iterdir()))]
    if path.name in ("no_reverb", "with_reverb"):
        folders.append(path)
    return [f for f in folders if (f / "clean").is_dir() and (f / "noisy").is_dir()]


def _read_test(folder: Path) -> tuple[Pair, ...]:
    clean = {_file_id(path): path for path in find_audio(folder / "clean")}
    noisy = {_file_id(path): path for path in find_audio(folder / "noisy")}
    lonely = sorted(str(path.name) for key, path in noisy.items() if key not in clean)
    if lonely or "" in noisy or not noisy:
        raise ValueError(
            "Every noisy file of a synthetic test set must have a clean file of its `fileid`. "
            f"Received {len(noisy)} noisy files in {folder}, without one: "
            f"{', '.join(lonely[:5]) or 'those with no fileid in their names'}. "
            "Fetch the test set again."
        )
    files = [(noisy[key], clean[key]) for key in sorted(noisy, key=int)]
    return make_pairs(files, lambda file: Labels("test", file.stem, folder.name), _snr_db)


def _file_id(path: Path) -> str:
    match = _FILE_ID.search(path.stem)
    return match[1] if match else ""


def _snr_db(noisy: Path) -> float | None:
    match = _SNR.search(noisy.stem)
    return float(match[1]) if match else None


def _label_speech(path: Path) -> Labels:
    match = _READER.search(path.stem)
    return Labels("", f"reader_{match[1]}" if match else path.stem)


def _label_noise(path: Path) -> Labels:
    return Labels("", _SEGMENT.sub("", path.stem), "unknown")


def _label_room(path: Path) -> Labels:
    return Labels("", path.parent.name, "room")


LAYOUT = Layout(
    "DNS Challenge",
    "datasets/clean/ and datasets/noise/ (or datasets_fullband/ with _fullband), or "
    "test_set/synthetic/*/clean/ and noisy/",
    recognizes,
    read,
)
