# SPDX-License-Identifier: Apache-2.0
"""Reads MS-SNSD: `clean_train`, `noise_train`, `clean_test`, `noise_test` and mixtures.

Noise files are named after their kind (`AirConditioner_1`). A tenth of the training
speakers and recordings is held out for validation. Mixtures made by its own script
(`NoisySpeech_*`, `CleanSpeech_*`) become pairs.
"""

import re
from pathlib import Path

from lmkd_tf.data.files import assign_splits, find_audio
from lmkd_tf.data.index import Clip, Corpus, Pair
from lmkd_tf.data.readers.layout import Labels, Layout, describe, make_clips, make_pairs

_SPEAKER = re.compile(r"^(p\d+)_")
_MIXTURE = re.compile(r"_SNRdb_(-?\d+(?:\.\d+)?).*_(clnsp\d+)$")


def recognizes(path: Path) -> bool:
    """Tells whether the training folders of MS-SNSD are there."""
    return (path / "clean_train").is_dir() and (path / "noise_train").is_dir()


def read(path: Path) -> Corpus:
    """Reads its four folders and the mixtures, where there are any."""
    speech = _read_part(path, "clean", _group_of_speech)
    noise = _read_part(path, "noise", lambda file: file.stem)
    pairs = tuple(
        pair
        for folder in sorted(path.glob("NoisySpeech_*"))
        for pair in _read_mixtures(folder, path / folder.name.replace("Noisy", "Clean", 1))
    )
    parts = {"speech": speech, "noise": noise, "mixtures": pairs}
    return Corpus(
        name="ms-snsd",
        is_synthetic=False,
        speech=speech,
        noise=noise,
        description=describe("MS-SNSD", parts),
        pairs=pairs,
        layout=LAYOUT.name,
    )


def _read_part(path: Path, part: str, group_of) -> tuple[Clip, ...]:
    train, test = find_audio(path / f"{part}_train"), find_audio(path / f"{part}_test")
    drawn = assign_splits({group_of(file) for file in train})
    is_noise = part == "noise"

    def label(file: Path) -> Labels:
        category = file.stem.rsplit("_", 1)[0] if is_noise else ""
        group = group_of(file)
        if file in tested:
            return Labels("test", f"test/{group}", category)
        return Labels("train" if drawn[group] == "train" else "valid", group, category)

    tested = frozenset(test)
    return make_clips([*train, *test], label)


def _group_of_speech(path: Path) -> str:
    match = _SPEAKER.match(path.stem)
    return match[1] if match else path.stem


def _read_mixtures(noisy: Path, clean: Path) -> tuple[Pair, ...]:
    split = "test" if "test" in noisy.name.lower() else "train"
    references = {path.stem: path for path in find_audio(clean)}
    files = []
    for path in find_audio(noisy):
        match = _MIXTURE.search(path.stem)
        if match and match[2] in references:
            files.append((path, references[match[2]]))
    return make_pairs(files, lambda file: Labels(split, file.stem, ""), _snr_db)


def _snr_db(noisy: Path) -> float | None:
    match = _MIXTURE.search(noisy.stem)
    return float(match[1]) if match else None


LAYOUT = Layout(
    "MS-SNSD",
    "clean_train/ and noise_train/ (with clean_test/ and noise_test/)",
    recognizes,
    read,
)
