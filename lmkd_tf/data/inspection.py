# SPDX-License-Identifier: Apache-2.0
"""Looks at every file of a corpus: what is there, how loud, what is broken, what leaks."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile

from lmkd_tf.data.index import SPLITS, Clip, Corpus, Pair
from lmkd_tf.data.sources import open_store
from lmkd_tf.data.store import find_fault
from lmkd_tf.dsp.level import SILENCE_DBFS, p56_level_dbfs, rms_dbfs
from lmkd_tf.dsp.pcm import int16_to_float

OnProgress = Callable[[int, int], None]

_NUM_THREADS = 2
_CONTAINER_RATE_HZ = 16000
_WINDOW = 256
# So many samples in a row at the very peak, if that is near full scale, are clipping.
_CLIPPED_RUN = 4
_CLIPPED_PEAK = 0.98
_NUM_SHOWN = 5
BIN_DB = 5.0


@dataclass(frozen=True)
class FileFacts:
    """What one file turned out to be.

    Args:
        path: The file.
        kind: `"speech"`, `"noise"`, `"room"` or `"pair"`.
        split: Split it is in.
        group: Speaker or recording.
        seconds: Length in s; 0 where it cannot be read.
        sample_rate_hz: Sample rate in Hz; 0 where it cannot be read.
        channels: Number of channels.
        level_dbfs: Active level (ITU-T P.56) of speech, RMS of anything else.
        snr_db: Measured SNR of a pair, in dB; None for anything else.
        is_clipped: Whether the waveform is cut at its peak.
        digest: Hash of the decoded samples; empty where they cannot be read.
        fault: Why the file cannot be used; empty where it can.
    """

    path: str
    kind: str
    split: str
    group: str
    seconds: float = 0.0
    sample_rate_hz: int = 0
    channels: int = 0
    level_dbfs: float = SILENCE_DBFS
    snr_db: float | None = None
    is_clipped: bool = False
    digest: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Inspection:
    """The facts of all files of a corpus.

    Args:
        corpus: The corpus.
        files: One entry per clip, response and pair, in the order of the corpus.
    """

    corpus: Corpus
    files: tuple[FileFacts, ...]

    def totals(self) -> dict[str, dict[str, dict[str, float]]]:
        """Returns kind -> split -> files, groups, hours."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for kind in ("speech", "noise", "room", "pair"):
            for split in SPLITS:
                files = [f for f in self.files if (f.kind, f.split) == (kind, split)]
                if files:
                    found.setdefault(kind, {})[split] = {
                        "files": len(files),
                        "groups": len({f.group for f in files}),
                        "hours": sum(f.seconds for f in files) / 3600.0,
                    }
        return found

    def sample_rates(self) -> dict[str, int]:
        """Returns a text such as `16000 Hz, 1 channel` -> number of files."""
        counts = Counter(
            f"{f.sample_rate_hz} Hz, {f.channels} channel{'s' if f.channels > 1 else ''}"
            for f in self.files
            if f.sample_rate_hz
        )
        return dict(counts.most_common())

    def faulty(self) -> list[FileFacts]:
        """Returns the files that cannot be used."""
        return [f for f in self.files if f.fault]

    def clipped(self) -> list[FileFacts]:
        """Returns the files whose waveform is cut at its peak."""
        return [f for f in self.files if f.is_clipped]

    def duplicates(self) -> list[list[FileFacts]]:
        """Returns files of one kind with the same samples, the first one first."""
        return [files for files in _by_digest(self.files) if len(files) > 1]

    def leaks(self) -> dict[str, list[str]]:
        """Returns reason -> what is in more than one split, with the splits."""
        used = [f for f in self.files if f.kind in ("speech", "noise")]
        by_group: dict[tuple[str, str], set[str]] = defaultdict(set)
        for facts in used:
            by_group[facts.kind, facts.group].add(facts.split)
        found = {
            f"same {'speaker' if kind == 'speech' else 'recording'}": [
                f"{group}: {' and '.join(sorted(splits))}"
                for (k, group), splits in by_group.items()
                if k == kind and len(splits) > 1
            ]
            for kind in ("speech", "noise")
        }
        found["same samples"] = [
            " = ".join(f"{f.path} ({f.split})" for f in files)
            for files in _by_digest(used)
            if len({f.split for f in files}) > 1
        ]
        return {reason: items for reason, items in found.items() if items}

    def values(self, name: str, kind: str) -> np.ndarray:
        """Returns a number of all usable files of a kind that have it, shape `(files,)`."""
        numbers = [getattr(f, name) for f in self.files if f.kind == kind and not f.fault]
        return np.array([number for number in numbers if number is not None], dtype=np.float64)


def _by_digest(files: Iterable[FileFacts]) -> list[list[FileFacts]]:
    found: dict[tuple[str, str], list[FileFacts]] = defaultdict(list)
    for facts in files:
        if facts.digest:
            found[facts.kind, facts.digest].append(facts)
    return list(found.values())


def inspect_corpus(corpus: Corpus, on_progress: OnProgress | None = None) -> Inspection:
    """Decodes every file of a corpus once; none is an error, whatever is wrong with it.

    Args:
        corpus: The corpus.
        on_progress: Called with (files done, files in all).
    """
    items = _items("speech", corpus.speech) + _items("noise", corpus.noise)
    items += _items("room", corpus.responses)
    items += [("pair", pair, None) for pair in corpus.pairs]
    files = []
    for facts in _look_at_all(items):
        files.append(facts)
        if on_progress is not None:
            on_progress(len(files), len(items))
    return Inspection(corpus, tuple(files))


def _items(kind: str, clips: Sequence[Clip]) -> list[tuple[str, Any, Any]]:
    """Returns (kind, clip, signal); the signal of a plain file is None, it is read later."""
    if clips and clips[0].record is not None:
        return [(kind, *both) for both in zip(clips, open_store(clips).signals, strict=True)]
    return [(kind, clip, None) for clip in clips]


def _look_at_all(items: Sequence[tuple[str, Any, Any]]) -> Iterator[FileFacts]:
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for start in range(0, len(items), _WINDOW):
            yield from pool.map(lambda item: _look_at(*item), items[start : start + _WINDOW])


def _look_at(kind: str, item: Clip | Pair, signal: Any) -> FileFacts:
    path = item.noisy if isinstance(item, Pair) else item.path
    name = str(path) if isinstance(item, Pair) or item.record is None else f"{path}#{item.record}"
    known = FileFacts(name, kind, item.split, item.group)
    try:
        if not path.exists():
            return _with(known, fault="does not exist")
        if path.stat().st_size == 0:
            return _with(known, fault="is empty (0 bytes)")
        if isinstance(item, Pair):
            if not item.clean.exists():
                return _with(known, fault=f"has no clean file: {item.clean} does not exist")
            return _look_at_pair(known, item)
        return _look_at_clip(known, item, signal)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).replace(str(path), "the file").split())
        return _with(known, fault=f"could not be decoded: {reason}")


def _with(facts: FileFacts, **changes: Any) -> FileFacts:
    return FileFacts(**(asdict(facts) | changes))


def _read(clip: Clip, signal: Any) -> tuple[np.ndarray, int]:
    """Reads samples, float32, shape `(N, channels)`, and their rate in Hz."""
    if signal is not None:
        return int16_to_float(np.array(signal[:]))[:, np.newaxis], _CONTAINER_RATE_HZ
    samples, rate_hz = soundfile.read(clip.path, dtype="float32", always_2d=True)
    if clip.minus is not None:
        clean, _ = soundfile.read(clip.minus, dtype="float32", always_2d=True)
        samples = samples - clean
    return samples, int(rate_hz)


def _look_at_clip(known: FileFacts, clip: Clip, signal: Any) -> FileFacts:
    samples, rate_hz = _read(clip, signal)
    mono = samples.mean(axis=1)
    facts = _with(
        known,
        seconds=mono.size / rate_hz,
        sample_rate_hz=rate_hz,
        channels=samples.shape[1],
    )
    fault = find_fault(mono, rate_hz, clip.seconds)
    if fault:  # neither a level nor a hash means anything, NaN has none
        return _with(facts, fault=fault)
    level = p56_level_dbfs(mono, rate_hz) if known.kind == "speech" else rms_dbfs(mono)
    return _with(
        facts,
        level_dbfs=round(level, 2),
        is_clipped=clip.minus is None and is_clipped(samples),
        digest=_digest(samples, rate_hz),
    )


def _look_at_pair(known: FileFacts, pair: Pair) -> FileFacts:
    noisy, rate_hz = soundfile.read(pair.noisy, dtype="float32", always_2d=True)
    clean, clean_rate_hz = soundfile.read(pair.clean, dtype="float32", always_2d=True)
    facts = _with(
        known, seconds=len(noisy) / rate_hz, sample_rate_hz=int(rate_hz), channels=noisy.shape[1]
    )
    if noisy.shape != clean.shape or rate_hz != clean_rate_hz:
        shapes = f"{noisy.shape} at {rate_hz} Hz and {clean.shape} at {clean_rate_hz} Hz"
        return _with(facts, fault=f"differs from its clean file: {shapes}")
    mono, difference = noisy.mean(axis=1), (noisy - clean).mean(axis=1)
    clean_mono = clean.mean(axis=1)
    fault = find_fault(mono, int(rate_hz), pair.seconds)
    clean_fault = find_fault(clean_mono, int(rate_hz), pair.seconds)
    if fault or clean_fault:
        return _with(facts, fault=fault or f"has a clean file that {clean_fault}: {pair.clean}")
    speech_dbfs = p56_level_dbfs(clean_mono, int(rate_hz))
    noise_dbfs = rms_dbfs(difference)
    is_measurable = min(speech_dbfs, noise_dbfs) > SILENCE_DBFS
    return _with(
        facts,
        level_dbfs=round(rms_dbfs(mono), 2),
        snr_db=round(speech_dbfs - noise_dbfs, 2) if is_measurable else None,
        is_clipped=is_clipped(noisy),
        digest=_digest(noisy, int(rate_hz)),
    )


def _digest(samples: np.ndarray, sample_rate_hz: int) -> str:
    """Hashes samples rounded to int16, so that a copy in another container is found."""
    rounded = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    digest = hashlib.blake2b(rounded.tobytes(), digest_size=16)
    digest.update(f"{sample_rate_hz} {samples.shape[1]}".encode())
    return digest.hexdigest()


def is_clipped(samples: np.ndarray) -> bool:
    """Tells whether a waveform is cut: several samples in a row at a peak near full scale.

    Args:
        samples: Samples, float, shape `(N, channels)`.
    """
    magnitude = np.abs(samples)
    peak = float(magnitude.max(initial=0.0))
    if peak < _CLIPPED_PEAK or len(samples) < _CLIPPED_RUN:
        return False
    at_peak = magnitude >= peak * (1.0 - 2.0**-14)
    runs = np.lib.stride_tricks.sliding_window_view(at_peak, _CLIPPED_RUN, axis=0)
    return bool(runs.all(axis=-1).any())


def histogram(values: np.ndarray, bin_db: float = BIN_DB) -> list[tuple[float, int]]:
    """Counts values by bins of equal width.

    Args:
        values: Values in dB, shape `(files,)`.
        bin_db: Width of a bin in dB.

    Returns:
        Lower edge and count of every bin from the lowest value to the highest.
    """
    if values.size == 0:
        return []
    indices = np.floor(values / bin_db).astype(int)
    counts = Counter(indices.tolist())
    return [(i * bin_db, counts[i]) for i in range(min(counts), max(counts) + 1)]


def to_text(inspection: Inspection) -> str:
    """Returns what there is to know about a corpus, for a terminal."""
    corpus = inspection.corpus
    lines = [f"{corpus.name}: {corpus.layout}", corpus.description, ""]
    lines.append(f"{'':8s}{'split':8s}{'files':>9s}{'groups':>9s}{'hours':>9s}")
    for kind, splits in inspection.totals().items():
        for split, numbers in splits.items():
            lines.append(
                f"{kind:8s}{split:8s}{numbers['files']:9.0f}{numbers['groups']:9.0f}"
                f"{numbers['hours']:9.2f}"
            )
    rates = [f"{text}: {count} files" for text, count in inspection.sample_rates().items()]
    lines += ["", *rates]
    for title, values in histograms(inspection).items():
        lines += ["", title, *_bars(values)]
    lines += ["", *_problems(inspection)]
    return "\n".join(lines)


def histograms(inspection: Inspection) -> dict[str, np.ndarray]:
    """Returns the title of each histogram -> its values, where there are any."""
    found = {
        "Active speech level (ITU-T P.56), dBFS": inspection.values("level_dbfs", "speech"),
        "Noise level (RMS), dBFS": inspection.values("level_dbfs", "noise"),
        "SNR of the pairs (active speech level over noise RMS), dB": inspection.values(
            "snr_db", "pair"
        ),
    }
    return {title: values for title, values in found.items() if values.size}


def _bars(values: np.ndarray) -> list[str]:
    counts = histogram(values)
    most = max(count for _, count in counts)
    return [
        f"  {edge:5.0f} to {edge + BIN_DB:4.0f} {count:7d} {'#' * round(40 * count / most)}"
        for edge, count in counts
    ]


def _problems(inspection: Inspection) -> list[str]:
    faulty, clipped = inspection.faulty(), inspection.clipped()
    duplicates = inspection.duplicates()
    lines = _listed("unusable files", [f"{f.path}: {f.fault}" for f in faulty])
    lines += _listed("clipped files", [f.path for f in clipped])
    same = [" = ".join(f.path for f in files) for files in duplicates]
    lines += _listed("groups of duplicates", same)
    leaks = inspection.leaks()
    for reason, items in leaks.items():
        lines += _listed(f"leaks between splits, {reason}", items)
    return lines if leaks else [*lines, "0 leaks between splits"]


def _listed(title: str, items: Sequence[str]) -> list[str]:
    rest = [f"  and {len(items) - _NUM_SHOWN} more"] if len(items) > _NUM_SHOWN else []
    return [f"{len(items)} {title}", *(f"  {item}" for item in items[:_NUM_SHOWN]), *rest]


def to_record(inspection: Inspection) -> dict[str, Any]:
    """Returns everything as plain values, for JSON."""
    corpus = inspection.corpus
    return {
        "name": corpus.name,
        "layout": corpus.layout,
        "description": corpus.description,
        "totals": inspection.totals(),
        "sample_rates": inspection.sample_rates(),
        "unusable": {f.path: f.fault for f in inspection.faulty()},
        "clipped": [f.path for f in inspection.clipped()],
        "duplicates": [[f.path for f in files] for files in inspection.duplicates()],
        "leaks": inspection.leaks(),
        "files": [asdict(f) for f in inspection.files],
    }
