# SPDX-License-Identifier: Apache-2.0
"""What every reader is made of: a layout, and clips and pairs from lists of files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmkd_tf.data.files import assign_splits, find_audio, keyed, probe_seconds
from lmkd_tf.data.index import Clip, Corpus, Pair

_SPLIT_FOLDERS = {
    "train": ("train", "training", "tr"),
    "valid": ("valid", "val", "validation", "dev", "cv"),
    "test": ("test", "testing", "eval", "tt"),
}
SPLIT_OF_FOLDER = {name: split for split, names in _SPLIT_FOLDERS.items() for name in names}


@dataclass(frozen=True)
class Layout:
    """One way to lay out a corpus on disk.

    Args:
        name: Name for messages and reports.
        looks_for: What makes a folder this layout, for the message that nothing fits.
        recognizes: Whether a path has this layout; opens no audio.
        read: Reads the index of a path that has it.
    """

    name: str
    looks_for: str
    recognizes: Callable[[Path], bool]
    read: Callable[[Path], Corpus]


@dataclass(frozen=True)
class Labels:
    """What a reader knows about one file.

    Args:
        split: Split of the file; empty where the corpus does not say.
        group: Speaker or recording.
        category: Kind of noise.
    """

    split: str
    group: str
    category: str = ""


def make_clips(paths: Sequence[Path], label: Callable[[Path], Labels]) -> tuple[Clip, ...]:
    """Makes one clip per file; a file without a split gets that of its group.

    Args:
        paths: Audio files.
        label: Says what is known about one of them.
    """
    labels = [label(path) for path in paths]
    drawn = assign_splits({item.group for item in labels if not item.split})
    return tuple(
        Clip(path, seconds, item.split or drawn[item.group], item.group, item.category)
        for path, item, seconds in zip(paths, labels, probe_seconds(paths), strict=True)
    )


def read_tree(folder: Path, *, is_noise: bool) -> tuple[Clip, ...]:
    """Reads a tree of files that says nothing but its folders.

    Folders named after a split (`train`, `valid`, `dev`, `test`, ...) give the split. The
    next folder below is the speaker of speech or the category of noise. Noise is split
    file by file: each is a recording of its own, numbers at the end of names included.
    """

    def label(path: Path) -> Labels:
        parts = list(path.relative_to(folder).parts[:-1])
        split = ""
        if parts and parts[0].lower() in SPLIT_OF_FOLDER:
            split = SPLIT_OF_FOLDER[parts.pop(0).lower()]
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if is_noise:
            return Labels(split, stem, parts[0] if parts else "unknown")
        return Labels(split, parts[0] if parts else stem)

    return make_clips(find_audio(folder), label)


def match_names(noisy: Path, clean: Path) -> list[tuple[Path, Path]]:
    """Pairs the files of two folders by name; suffixes may differ.

    Raises:
        ValueError: If a file of one folder has no counterpart in the other.
    """
    noisy_files, clean_files = (keyed(find_audio(f), f) for f in (noisy, clean))
    lonely = sorted(noisy_files.keys() ^ clean_files.keys())
    if lonely or not noisy_files:
        raise ValueError(
            "Every noisy file must have a clean one of the same name, and there must be one. "
            f"Received {len(noisy_files)} files in {noisy} and {len(clean_files)} in {clean}; "
            f"without a counterpart: {', '.join(lonely[:5]) or 'none'}. "
            "Unpack the archives of both folders again, or delete the single files."
        )
    return [(noisy_files[key], clean_files[key]) for key in sorted(noisy_files)]


def make_pairs(
    files: Iterable[tuple[Path, Path]],
    label: Callable[[Path], Labels],
    snr_of: Callable[[Path], float | None] = lambda noisy: None,
) -> tuple[Pair, ...]:
    """Makes one pair per (noisy, clean) of `files`; see `make_clips`.

    Args:
        files: Noisy and clean file of each pair.
        label: Says what is known about a noisy file.
        snr_of: Returns the SNR in dB that the corpus states for a noisy file.
    """
    listed = list(files)
    clips = make_clips([noisy for noisy, _ in listed], label)
    return tuple(
        Pair(noisy, clean, clip.seconds, clip.split, clip.group, clip.category, snr_of(noisy))
        for (noisy, clean), clip in zip(listed, clips, strict=True)
    )


def speech_of_pairs(pairs: Iterable[Pair]) -> tuple[Clip, ...]:
    """Returns the clean sides as speech to train on."""
    return tuple(Clip(p.clean, p.seconds, p.split, p.group) for p in pairs)


def noise_of_pairs(pairs: Iterable[Pair]) -> tuple[Clip, ...]:
    """Returns what is left of each noisy file without its clean one, as noise to train on."""
    return tuple(
        Clip(
            p.noisy,
            p.seconds,
            p.split,
            p.noisy.stem,
            p.category or "unknown",
            minus=p.clean,
        )
        for p in pairs
    )


def first_folder(root: Path, names: Iterable[str]) -> Path | None:
    """Returns the first of the named folders that exists below `root`; None if none does."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def hours(clips: Iterable[Clip | Pair]) -> float:
    """Returns the length of clips or pairs together, in hours."""
    return sum(clip.seconds for clip in clips) / 3600.0


def describe(title: str, parts: Mapping[str, Sequence[Clip | Pair]]) -> str:
    """Returns one sentence with the hours of each part that is not empty."""
    lengths = [f"{hours(items):.2f} h of {name}" for name, items in parts.items() if items]
    return f"{title}: {', '.join(lengths)}."
