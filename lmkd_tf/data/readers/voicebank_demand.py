# SPDX-License-Identifier: Apache-2.0
"""Reads VoiceBank+DEMAND (Valentini-Botinhao 2017) in the layout of its archives.

`clean_trainset_28spk_wav/`, `noisy_trainset_28spk_wav/`, the same with `56spk`,
`clean_testset_wav/`, `noisy_testset_wav/`, each also with `_16k` at the end, and the logs
`log_*.txt` with noise and SNR per file. Validation holds out training speakers; the test
folder is the `test` split and nothing else. Noise to train on is noisy minus clean, so
train and valid share the recordings of DEMAND, as they do in that corpus. (The set that is
named after 56 speakers holds 58, says an audit of its archive.)
"""

import re
from collections.abc import Iterable
from pathlib import Path

from lmkd_tf.data.index import Corpus, Pair
from lmkd_tf.data.readers.layout import (
    Labels,
    Layout,
    describe,
    make_pairs,
    match_names,
    noise_of_pairs,
    speech_of_pairs,
)

_FOLDER = re.compile(r"(clean|noisy)_(trainset_28spk|trainset_56spk|trainset|testset)_wav(_16k)?")
# The two speakers that most papers on the 28-speaker set hold out.
_USUAL_VALID_SPEAKERS = ("p226", "p287")
_NUM_VALID_SPEAKERS = 2


def recognizes(path: Path) -> bool:
    """Tells whether noisy and clean folders of at least one set are there."""
    return bool(_find_sets(path))


def read(path: Path) -> Corpus:
    """Reads all sets that are there.

    Raises:
        ValueError: If a file of one side has no counterpart on the other.
    """
    logs = _read_logs(path)
    pairs: list[Pair] = []
    for name, (noisy, clean) in sorted(_find_sets(path).items()):
        files = match_names(noisy, clean)
        held_out = _valid_speakers({_speaker(noisy_file) for noisy_file, _ in files})

        def label(file: Path, name: str = name, held_out: frozenset = held_out) -> Labels:
            speaker, category = _speaker(file), logs.get(file.stem, ("", None))[0]
            is_test = name == "testset"
            split = "test" if is_test else ("valid" if speaker in held_out else "train")
            return Labels(split, speaker, category)

        pairs += make_pairs(files, label, lambda file: logs.get(file.stem, ("", None))[1])
    text = describe(
        "VoiceBank+DEMAND, noisy and clean pairs of known recordings", {"speech": pairs}
    )
    return Corpus(
        name="voicebank-demand",
        is_synthetic=False,
        speech=speech_of_pairs(pairs),
        noise=noise_of_pairs(pairs),
        description=text + " Training and validation share noise recordings; test does not.",
        pairs=tuple(pairs),
        layout=LAYOUT.name,
    )


def _find_sets(path: Path) -> dict[str, tuple[Path, Path]]:
    """Returns set -> noisy and clean folder; the 16 kHz copy comes first."""
    found: dict[tuple[str, str], Path] = {}
    for folder in sorted(path.iterdir() if path.is_dir() else (), reverse=True):
        match = _FOLDER.fullmatch(folder.name)
        if match and folder.is_dir():
            nested = folder / folder.name  # an archive that was unpacked into its own name
            found.setdefault((match[1], match[2]), nested if nested.is_dir() else folder)
    names = {name for side, name in found if (("clean", name) in found and side == "noisy")}
    return {name: (found["noisy", name], found["clean", name]) for name in names}


def _speaker(path: Path) -> str:
    return path.stem.split("_")[0]


def _valid_speakers(speakers: set[str]) -> frozenset[str]:
    """Returns the speakers held out of a training set: the usual two, or the last two."""
    usual = speakers.intersection(_USUAL_VALID_SPEAKERS)
    if usual or len(speakers) <= _NUM_VALID_SPEAKERS:
        return frozenset(usual)
    return frozenset(sorted(speakers)[-_NUM_VALID_SPEAKERS:])


def _read_logs(path: Path) -> dict[str, tuple[str, float | None]]:
    """Returns utterance -> noise and SNR in dB, from every log that is there."""
    entries: dict[str, tuple[str, float | None]] = {}
    for folder in (path, path / "logfiles"):
        for log in sorted(folder.glob("log_*set*.txt")):
            entries.update(_parse_log(log.read_text("utf-8", errors="replace").splitlines()))
    return entries


def _parse_log(lines: Iterable[str]) -> Iterable[tuple[str, tuple[str, float | None]]]:
    for line in lines:
        fields = line.split()
        if len(fields) == 3:
            try:
                yield fields[0], (fields[1], float(fields[2]))
            except ValueError:
                continue  # a heading


LAYOUT = Layout(
    "VoiceBank+DEMAND",
    "clean_trainset_28spk_wav/ and noisy_trainset_28spk_wav/ (or 56spk), clean_testset_wav/ and "
    "noisy_testset_wav/",
    recognizes,
    read,
)
