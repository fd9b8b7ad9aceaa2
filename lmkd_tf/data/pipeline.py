# SPDX-License-Identifier: Apache-2.0
"""Assembles data sets: training and validation pairs, held-out sets for the tables.

TensorFlow is imported when a `tf.data` set is made, not before.
"""

from __future__ import annotations

import copy
import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmkd_tf.data.epochs import EpochOrder
from lmkd_tf.data.index import Corpus, Pair
from lmkd_tf.data.mixing import MixSettings, Place, loop_clip, noise_pool, speech_pool
from lmkd_tf.data.pairing import draw_pair, mix_pair
from lmkd_tf.data.rooms import RoomPool
from lmkd_tf.data.store import AudioStore, at_speeds, find_fault, read_mono, resample
from lmkd_tf.dsp.level import active_level_dbfs
from lmkd_tf.dsp.pcm import int16_to_float

if TYPE_CHECKING:
    import tensorflow as tf

PairBatch = tuple[np.ndarray, np.ndarray, np.ndarray]

# Held-out sets are the same whatever the seed of a training run.
EVALUATION_SEED = 0
_PREFETCH_BATCHES = 4
_MIN_UTTERANCE_SECONDS, _MAX_UTTERANCE_SECONDS = 4.0, 10.0
_UTTERANCE_PAUSE_SECONDS = 0.1
_MAX_BATCHES = 2**40


@dataclass(frozen=True, eq=False)
class EvaluationClip:
    """Holds one held-out noisy utterance and its clean reference.

    Args:
        name: File stem for this clip, unique in its set; of a pair the stem of its noisy
            file, with the folders where others have the same stem.
        noisy: Noisy speech, float32, shape `(N,)`.
        speech: Clean speech at the level it has in `noisy`, float32, shape `(N,)`.
        snr_db: Nominal SNR in dB.
        noise_category: Kind of noise.
    """

    name: str
    noisy: np.ndarray
    speech: np.ndarray
    snr_db: float
    noise_category: str


class PairSource:
    """Makes batches of pairs; batch k depends on the seed and k alone.

    With `sampling="random"` every crop is drawn anew. With `sampling="epochs"` the crops
    of batches 0, 1, ... go through all speech, each part of it once per epoch, in an order
    that is shuffled anew for every epoch; a batch may span two epochs.

    Args:
        speech: Speech of one split.
        noise: Noise of the same split.
        settings: How crops are drawn.
        batch_size: Pairs in a batch.
        seed: Seed of all draws, not negative.
        rooms: Room impulse responses of the same split, if any.

    Raises:
        ValueError: If the stores differ in sample rate, or a number is out of range.
    """

    def __init__(
        self,
        speech: AudioStore,
        noise: AudioStore,
        settings: MixSettings,
        batch_size: int,
        seed: int,
        rooms: RoomPool | None = None,
    ) -> None:
        _check_rates(speech, noise)
        if batch_size < 1 or seed < 0:
            raise ValueError(
                "`batch_size` must be at least 1 and `seed` must not be negative. "
                f"Received batch_size={batch_size}, seed={seed}. Correct that value."
            )
        noise = at_speeds(noise, settings.noise_speeds)
        self.voices = speech_pool(speech)
        self.babblers = speech_pool(speech, is_for_babble=True)
        self.noises = noise_pool(noise)
        self.settings = settings
        self.batch_size = batch_size
        self.seed = seed
        self.rooms = rooms
        self.clips = (*speech.clips, *noise.clips)
        self.num_samples = round(settings.crop_seconds * speech.sample_rate_hz)
        sizes = np.array([signal.size for signal in speech.signals])
        self._order = EpochOrder(sizes, self.num_samples, seed)
        self._names = {
            "voices": [str(clip.path) for clip in speech.clips],
            "babblers": [str(clip.path) for clip in speech.clips],
            "noises": [str(clip.path) for clip in noise.clips],
        }

    @property
    def epoch_length(self) -> int:
        """Number of crops in an epoch: how many fit into the speech, but one per clip."""
        return self._order.epoch_length

    def batch(self, batch_index: int) -> PairBatch:
        """Draws one batch.

        Args:
            batch_index: Index k of the batch, from 0.

        Returns:
            First views, second views and speech, float32, shape `(B, N)` each.
        """
        pairs = [self._pair(int(batch_index), example) for example in range(self.batch_size)]
        first, second, speech = (np.stack(signals) for signals in zip(*pairs, strict=True))
        return first, second, speech

    def files(self, batch_index: int) -> list[str]:
        """Returns the recordings a batch is made of, to look for a fault in; draws it again.

        Args:
            batch_index: Index k of the batch, from 0.

        Returns:
            Paths, each once, in the order in which they are first drawn.
        """
        drawn: list[str] = []
        watched = copy.copy(self)
        for role, names in self._names.items():
            pool = getattr(self, role)
            setattr(watched, role, replace(pool, signals=_Watched(pool.signals, names, drawn)))
        watched.batch(batch_index)
        return list(dict.fromkeys(drawn))

    def start(self, batch_index: int, example: int) -> tuple[np.random.Generator, Place | None]:
        """Returns the generator of all draws of one pair, and the part of a clip it is to use.

        Args:
            batch_index: Index k of the batch, from 0.
            example: Index of the pair in the batch, from 0.
        """
        seeds = np.random.SeedSequence([self.seed, batch_index, example])
        rng = np.random.Generator(np.random.Philox(seeds))
        if self.settings.sampling != "epochs":
            return rng, None
        return rng, self._order.place(batch_index * self.batch_size + example)

    def _pair(self, batch_index: int, example: int) -> PairBatch:
        rng, place = self.start(batch_index, example)
        return draw_pair(
            rng,
            self.voices,
            self.noises,
            self.settings,
            babblers=self.babblers,
            rooms=self.rooms,
            place=place,
        )


class _Watched(Sequence):
    """Signals that note the name of each one taken."""

    def __init__(self, signals: Sequence[Any], names: list[str], drawn: list[str]):
        self._signals, self._names, self._drawn = signals, names, drawn

    def __getitem__(self, index):
        self._drawn.append(self._names[index])
        return self._signals[index]

    def __len__(self) -> int:
        return len(self._signals)


def training_pairs(
    speech: AudioStore,
    noise: AudioStore,
    *,
    settings: MixSettings,
    batch_size: int,
    seed: int,
    first_batch: int = 0,
    rooms: RoomPool | None = None,
) -> tf.data.Dataset:
    """Makes the endless set of training pairs, two noisy views of each clean crop.

    Batch k depends on `seed` and k alone: a run resumed with `first_batch=k` sees what
    the uninterrupted run would have seen, and every baseline sees the same pairs.

    Args:
        speech: Training speech.
        noise: Training noise.
        settings: How crops are drawn.
        batch_size: Pairs in a batch.
        seed: Seed of all draws, not negative.
        first_batch: Index of the first batch.
        rooms: Room impulse responses of the same split, if any.

    Returns:
        Batches of `({"first_view": (B, N), "second_view": (B, N)}, speech (B, N))`,
        float32, in [-1, 1].

    Raises:
        ValueError: If the stores differ in sample rate, or a number is out of range.
    """
    source = PairSource(speech, noise, settings, batch_size, seed, rooms)
    if first_batch < 0:
        raise ValueError(
            "`first_batch` must not be negative. "
            f"Received {first_batch}. Pass the number of batches already used."
        )
    return _dataset_of(source, first_batch, _MAX_BATCHES).prefetch(_PREFETCH_BATCHES)


def validation_pairs(
    speech: AudioStore,
    noise: AudioStore,
    *,
    settings: MixSettings,
    batch_size: int,
    num_batches: int,
    seed: int,
    rooms: RoomPool | None = None,
) -> tf.data.Dataset:
    """Makes a fixed, finite set of pairs in the structure of `training_pairs`.

    The noises are single recordings as they are: no sums, no babble made on the fly, no tilt and
    no other speed. The batches are kept in memory once they have been drawn.

    Args:
        speech: Validation speech.
        noise: Validation noise.
        settings: Crop length and ranges of SNR and level.
        batch_size: Pairs in a batch.
        num_batches: Number of batches.
        seed: Seed of all draws, not negative.
        rooms: Room impulse responses of the same split, if any.

    Returns:
        `num_batches` batches, the same ones in every pass.

    Raises:
        ValueError: If the stores differ in sample rate, or a number is out of range.
    """
    if num_batches < 1:
        raise ValueError(
            "`num_batches` must be at least 1. "
            f"Received {num_batches}. Pass the number of validation batches."
        )
    source = PairSource(speech, noise, without_effects(settings), batch_size, seed, rooms)
    return _dataset_of(source, 0, num_batches).cache().prefetch(_PREFETCH_BATCHES)


def without_effects(settings: MixSettings) -> MixSettings:
    """Returns the settings of validation: single recordings as they are, rooms aside."""
    return replace(
        settings,
        two_noises_probability=0.0,
        babble_probability=0.0,
        tilt_probability=0.0,
        clip_probability=0.0,
        band_limit_probability=0.0,
        noise_speeds=(1.0,),
        speed_probability=0.0,
        speech_tilt_probability=0.0,
        codec_probability=0.0,
        sampling="random",
    )


def _dataset_of(source: PairSource, first_batch: int, num_batches: int) -> tf.data.Dataset:
    import tensorflow as tf

    shape = (source.batch_size, source.num_samples)

    def draw(batch_index):
        first, second, speech = tf.numpy_function(
            source.batch, [batch_index], [tf.float32] * 3, stateful=False
        )
        first, second, speech = (
            tf.ensure_shape(signal, shape) for signal in (first, second, speech)
        )
        return {"first_view": first, "second_view": second}, speech

    # Two calls at a time: numpy leaves Python's lock for part of the work.
    indices = tf.data.Dataset.range(first_batch, first_batch + num_batches)
    dataset = indices.map(draw, num_parallel_calls=2, deterministic=True)
    options = tf.data.Options()
    # A Python function cannot be sent to another worker; each makes its own batches.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def evaluation_set(
    speech: AudioStore,
    noise: AudioStore,
    *,
    snrs_db: Sequence[float],
    count: int,
    seed: int,
    level_dbfs: float = -26.0,
) -> list[EvaluationClip]:
    """Makes a fixed list of noisy utterances at given SNRs.

    Utterances are whole and at most 10 s long; short ones of a speaker are joined until
    they last 4 s. Speakers take turns, and at each SNR every category of noise comes
    once before one comes again.

    Args:
        speech: Speech of a held-out split.
        noise: Noise of the same split.
        snrs_db: SNRs in dB (active speech level over noise RMS), which take turns.
        count: Number of clips in all.
        seed: Seed of all draws, not negative.
        level_dbfs: RMS level of the noisy signals in dBFS; lower where peaks demand it.

    Returns:
        `count` clips.

    Raises:
        ValueError: If the stores differ in sample rate, `snrs_db` is empty, `count` is
            below 1, or no utterance is short enough.
    """
    _check_rates(speech, noise)
    if count < 1 or not snrs_db:
        raise ValueError(
            "`count` must be at least 1 and `snrs_db` must not be empty. "
            f"Received count={count}, snrs_db={list(snrs_db)}. Correct that value."
        )
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, count])))
    utterances = _list_utterances(rng, speech)
    orders = {snr_db: _category_order(rng, noise) for snr_db in snrs_db}
    clips = []
    for index in range(count):
        talker, samples = utterances[index % len(utterances)]
        snr_db = float(snrs_db[index % len(snrs_db)])
        order = orders[snrs_db[index % len(snrs_db)]]
        members = order[(index // len(snrs_db)) % len(order)]
        chosen = int(members[rng.integers(len(members))])
        noisy, clean = _mix_utterance(
            rng, samples, noise.signals[chosen], snr_db, level_dbfs, speech.sample_rate_hz
        )
        category = noise.clips[chosen].category or "noise"
        name = _file_stem(f"{index:03d}_{talker}_{category}_{snr_db:g}db")
        clips.append(EvaluationClip(name, noisy, clean, snr_db, category))
    return clips


def _file_stem(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text)


def _mix_utterance(
    rng: np.random.Generator,
    utterance: np.ndarray,
    noise: np.ndarray,
    snr_db: float,
    level_dbfs: float,
    sample_rate_hz: int,
) -> tuple[np.ndarray, np.ndarray]:
    last_start = noise.size - utterance.size
    offset = int(rng.integers(last_start + 1 if last_start > 0 else noise.size))
    segment = loop_clip(noise, offset, utterance.size)
    views, clean = mix_pair(
        int16_to_float(utterance),
        segment[np.newaxis, :],
        np.array([snr_db]),
        level_dbfs,
        speech_dbfs=active_level_dbfs(int16_to_float(utterance), sample_rate_hz),
    )
    return views[0], clean


def _category_order(rng: np.random.Generator, noise: AudioStore) -> list[np.ndarray]:
    """Returns the clip indices of each category, categories in random order."""
    members: dict[str, list[int]] = {}
    for index, clip in enumerate(noise.clips):
        members.setdefault(clip.category, []).append(index)
    names = sorted(members)
    return [np.array(members[names[position]]) for position in rng.permutation(len(names))]


def _list_utterances(rng: np.random.Generator, speech: AudioStore) -> list[tuple[str, np.ndarray]]:
    """Returns speakers and int16 utterances `(N,)`, the speakers taking turns."""
    longest = _MAX_UTTERANCE_SECONDS * speech.sample_rate_hz
    members: dict[str, list[np.ndarray]] = {}
    for clip, signal in zip(speech.clips, speech.signals, strict=True):
        if signal.size <= longest:
            members.setdefault(clip.group, []).append(signal[:])
    if not members:
        raise ValueError(
            f"An evaluation set needs utterances of at most {_MAX_UTTERANCE_SECONDS:g} s. "
            f"Received {len(speech.clips)} clips, all longer. "
            "Cut the speech of this split into sentences."
        )
    queues = []
    names = sorted(members)
    for position in rng.permutation(len(names)):
        signals = members[names[position]]
        shuffled = [signals[index] for index in rng.permutation(len(signals))]
        queues.append([(names[position], item) for item in _join_short(shuffled, speech)])
    rounds = max(len(queue) for queue in queues)
    return [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]


def _join_short(signals: list[np.ndarray], speech: AudioStore) -> list[np.ndarray]:
    """Joins neighboring clips of a speaker until they last 4 s, never beyond 10 s."""
    shortest, longest = (
        seconds * speech.sample_rate_hz
        for seconds in (_MIN_UTTERANCE_SECONDS, _MAX_UTTERANCE_SECONDS)
    )
    pause = np.zeros(round(_UTTERANCE_PAUSE_SECONDS * speech.sample_rate_hz), dtype=np.int16)
    joined: list[np.ndarray] = []
    for signal in signals:
        if (
            joined
            and joined[-1].size < shortest
            and joined[-1].size + pause.size + signal.size <= longest
        ):
            joined[-1] = np.concatenate([joined[-1], pause, signal])
        else:
            joined.append(signal)
    return joined


def paired_set(
    corpus: Corpus, split: str = "test", snrs_db: Mapping[str, float] | None = None
) -> list[EvaluationClip]:
    """Reads the noisy and clean files that a corpus pairs, for reporting only.

    Args:
        corpus: Corpus with pairs.
        split: Their split.
        snrs_db: Names of the pairs to read, with their SNR, in order; None for all pairs.

    Returns:
        One clip per pair, 16 kHz; other rates are resampled, both files the same way. An
        SNR that the corpus does not state is NaN.

    Raises:
        FileNotFoundError: If a file of a pair is missing.
        ValueError: If there is no pair in that split, one is missing, or one cannot be used:
            a side that is silent, truncated or not finite, or sides of unequal length.
    """
    pairs = [pair for pair in corpus.pairs if pair.split == split]
    if not pairs:
        raise ValueError(
            f"The corpus must have noisy and clean files in split '{split}'. "
            f"Received {corpus.name} ({corpus.layout}) with none. Leave out --benchmark."
        )
    by_name = dict(zip(_unique_names([pair.noisy for pair in pairs]), pairs, strict=True))
    if snrs_db is None:
        return [_read_pair(name, pair) for name, pair in by_name.items()]
    missing = [name for name in snrs_db if name not in by_name]
    if missing:
        raise ValueError(
            f"The corpus must have all {len(snrs_db)} pairs of the benchmark in split '{split}'. "
            f"Received {corpus.name} ({corpus.layout}) without {', '.join(missing[:5])}. "
            "Give the whole test set."
        )
    return [_read_pair(name, replace(by_name[name], snr_db=snr)) for name, snr in snrs_db.items()]


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """Returns the stem of each file; where several have the same one, their folders as well.

    Scores are listed, and files written, by these names.

    Raises:
        ValueError: If two names are the same in spite of that.
    """
    counts = Counter(path.stem for path in paths)
    root = os.path.commonpath([path.absolute().parent for path in paths])
    names = [
        path.stem
        if counts[path.stem] == 1
        else _file_stem(path.absolute().relative_to(root).with_suffix("").as_posix())
        for path in paths
    ]
    first: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        if first.setdefault(name, path) is not path:
            raise ValueError(
                "The noisy files of a set must differ in their names. "
                f"Received {first[name]} and {path}, which are both called {name!r} here. "
                "Rename one of them."
            )
    return names


def _read_pair(name: str, pair: Pair) -> EvaluationClip:
    noisy, clean = (_decode_whole(path, pair.seconds) for path in (pair.noisy, pair.clean))
    if noisy.shape != clean.shape:
        raise ValueError(
            "A noisy file and its clean reference must have the same length. "
            f"Received {noisy.size} and {clean.size} samples for {pair.noisy}. Restore the pair."
        )
    snr_db = float("nan") if pair.snr_db is None else pair.snr_db
    return EvaluationClip(name, noisy, clean, snr_db, pair.category or "unknown")


def _decode_whole(path: Path, listed_seconds: float) -> np.ndarray:
    samples, sample_rate_hz = _read_side(path, listed_seconds)
    return resample(samples, sample_rate_hz, 16000)


def _read_side(path: Path, listed_seconds: float = 0.0) -> tuple[np.ndarray, int]:
    """Reads one side of a pair to score; a silent or damaged one would give no score or NaN."""
    if not path.is_file():
        raise FileNotFoundError(
            f"Both files of a pair must exist. Received no file {path}. Restore it."
        )
    samples, sample_rate_hz = read_mono(path)
    fault = find_fault(samples, sample_rate_hz, listed_seconds)
    if fault:
        raise ValueError(
            "Both files of a pair must hold sound, whole and finite. "
            f"Received {path}, which {fault}. Restore the pair, or take it out."
        )
    return samples, sample_rate_hz


def benchmark_set(path: str | Path) -> list[EvaluationClip]:
    """Reads noisy and clean files as they are; for reporting only.

    Args:
        path: Folder with a `manifest.csv` that has the columns `noisy`, `clean` and
            `nearest_nominal_snr_db`.

    Returns:
        One clip per row, 16 kHz.

    Raises:
        FileNotFoundError: If the manifest or an audio file is missing.
        ValueError: If a column is missing, or a pair is not two equally long signals of
            16 kHz.
    """
    manifest = Path(path) / "manifest.csv"
    if not manifest.is_file():
        raise FileNotFoundError(
            "A benchmark folder must hold a manifest.csv. "
            f"Received {path}, without one. Give the folder of the benchmark itself."
        )
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"noisy", "clean", "nearest_nominal_snr_db"}
    if not rows or not wanted <= rows[0].keys():
        raise ValueError(
            f"A benchmark manifest must have the columns {', '.join(sorted(wanted))}. "
            f"Received {manifest} with {', '.join(rows[0]) if rows else 'no rows'}. "
            "Add what is missing."
        )
    names = _unique_names([manifest.parent / row["noisy"] for row in rows])
    return [
        _read_benchmark_clip(manifest.parent, name, row)
        for name, row in zip(names, rows, strict=True)
    ]


def _read_benchmark_clip(folder: Path, name: str, row: dict[str, str]) -> EvaluationClip:
    noisy, clean = (_read_16_khz(folder / row[column]) for column in ("noisy", "clean"))
    if noisy.shape != clean.shape:
        raise ValueError(
            "A noisy file and its clean reference must have the same length. "
            f"Received {noisy.size} and {clean.size} samples for {row['noisy']} in {folder}. "
            "Restore the pair."
        )
    snr_db = float(row["nearest_nominal_snr_db"])
    return EvaluationClip(name, noisy, clean, snr_db, "benchmark")


def _read_16_khz(path: Path) -> np.ndarray:
    samples, sample_rate_hz = _read_side(path)
    if sample_rate_hz != 16000:
        raise ValueError(
            "Benchmark files must be sampled at 16000 Hz. "
            f"Received {sample_rate_hz} Hz in {path}. Resample the pair once, with one tool."
        )
    return samples


def _check_rates(speech: AudioStore, noise: AudioStore) -> None:
    if speech.sample_rate_hz != noise.sample_rate_hz:
        raise ValueError(
            "Speech and noise must have one sample rate. "
            f"Received {speech.sample_rate_hz} Hz and {noise.sample_rate_hz} Hz. "
            "Load both stores with the same `sample_rate_hz`."
        )
