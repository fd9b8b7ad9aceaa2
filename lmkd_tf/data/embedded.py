# SPDX-License-Identifier: Apache-2.0
"""Builds the embedded corpus: synthetic speech and noise, made on the user's machine.

It lets anyone try the whole road within minutes, without a download. Scores on it say
nothing about real recordings. Voices (timbres) and sentences are disjoint between the
splits, noises are drawn anew for each. The layout is the one `read_folder` reads.
"""

import csv
import itertools
import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lmkd_tf.config.files import read_json, write_json
from lmkd_tf.data.espeak_process import NO_ENGINE_STATUS
from lmkd_tf.data.folder import read_folder
from lmkd_tf.data.index import SPLITS, Corpus
from lmkd_tf.data.mixing import tilt_spectrum
from lmkd_tf.data.noise_synthesis import SYNTHESIZERS, synthesize_babble
from lmkd_tf.data.sentences import SENTENCES
from lmkd_tf.data.store import read_mono
from lmkd_tf.dsp.level import active_level_dbfs, db_to_gain
from lmkd_tf.dsp.pcm import float_to_int16

Progress = Callable[[int, int], None]

SAMPLE_RATE_HZ = 16000
# Raise it whenever the same seed would give other audio: caches are then built anew.
VERSION = 1

# Voice of espeak-ng -> language of the sentences. All are in espeak-ng 1.50 and later.
_LANGUAGES = {
    "en-us": "en",
    "en": "en",
    "en-gb-scotland": "en",
    "en-gb-x-rp": "en",
    "en-029": "en",
    "de": "de",
    "fr": "fr",
    "fr-be": "fr",
    "es": "es",
    "es-419": "es",
    "it": "it",
    "nl": "nl",
    "pl": "pl",
    "pt": "pt",
    "pt-br": "pt",
    "sv": "sv",
}
# Timbres of espeak-ng, each in one split, whatever the language.
_VARIANTS = {
    "train": ("m1", "m2", "m3", "m4", "m6", "f1", "f2", "f3", "Andy", "Annie", "linda", "max"),
    "valid": ("m5", "f4", "Michael", "steph"),
    "test": ("m7", "m8", "f5", "aunty"),
}
_FEMALE_VARIANTS = ("f1", "f2", "f3", "f4", "f5", "Annie", "linda", "steph", "aunty")
_NUM_VOICES = {"train": 66, "valid": 20, "test": 22}
_SENTENCES_PER_VOICE = {"train": 8, "valid": 3, "test": 3}
# Voices that are heard in babble only.
_NUM_BABBLE_VOICES = {"train": 12, "valid": 6, "test": 6}
_NUM_NOISES_PER_CATEGORY = {"train": 12, "valid": 2, "test": 2}
_NOISE_SECONDS = 10.0
_SILENCE_SECONDS = 0.15
_NUM_THREADS = 2
_STALE_SECONDS = 3600.0

_SPEECH_COLUMNS = (
    *("path", "seconds", "split", "source", "speaker"),
    *("gender", "age", "licence", "original_file"),
)
_NOISE_COLUMNS = (
    *("path", "seconds", "split", "source", "category", "recording"),
    *("licence", "author", "url", "original_file"),
)


@dataclass(frozen=True)
class _Sentence:
    """One sentence of one voice: what espeak-ng is asked for and what becomes of it."""

    split: str
    voice: str
    is_babble: bool
    text: str
    pitch: int
    rate_wpm: int
    tilt_db: float
    level_dbfs: float
    stem: str


def build_embedded_corpus(
    folder: str | Path,
    seed: int = 0,
    on_progress: Progress | None = None,
    size: float = 1.0,
) -> Corpus:
    """Builds the synthetic corpus in `folder`, or reads it where it is there already.

    The corpus appears under its name only when it is complete. Another seed, size or
    version replaces it; a folder that holds anything else is left alone.

    Args:
        folder: Folder to build in.
        seed: Seed of all draws, not negative.
        on_progress: Called with (steps done, steps in all); not called for a cached one.
        size: Scale of the amount of audio, above 0; 1 is about 35 min of speech and
            27 min of noise.

    Returns:
        The corpus, as `read_folder` returns it.

    Raises:
        ValueError: If `seed` or `size` is out of range, or `folder` holds other files.
        RuntimeError: If espeak-ng is missing or fails.
        OSError: If the disk is full.
    """
    if seed < 0 or not 0.0 < size < 1000.0:
        raise ValueError(
            "`seed` must not be negative and `size` must be above 0. "
            f"Received seed={seed}, size={size}. Correct that value."
        )
    target = Path(folder).resolve()
    recipe = {"generator": __name__, "version": VERSION, "seed": seed, "size": float(size)}
    if _is_complete(target, recipe):
        return read_folder(target)
    _refuse_foreign_folder(target)
    _remove_leftovers(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial-{uuid.uuid4().hex[:8]}"
    try:
        _generate(partial, recipe, on_progress or (lambda done, total: None))
        _move_into_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_folder(target)


def _is_complete(folder: Path, recipe: dict) -> bool:
    facts = _read_facts(folder)
    if any(facts.get(key) != value for key, value in recipe.items()):
        return False
    try:
        corpus = read_folder(folder)
    except (FileNotFoundError, ValueError):
        return False
    return all(clip.path.is_file() for clip in corpus.speech + corpus.noise)


def _read_facts(folder: Path) -> dict:
    """Returns what corpus.json says; nothing where it is missing or damaged."""
    try:
        facts = read_json(folder / "corpus.json")
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _refuse_foreign_folder(folder: Path) -> None:
    """Raises unless the folder may be replaced: absent, empty or an embedded corpus."""
    if not folder.exists():
        return
    is_ours = _read_facts(folder).get("generator") == __name__
    if not folder.is_dir() or (any(folder.iterdir()) and not is_ours):
        raise ValueError(
            "The embedded corpus needs a folder of its own. "
            f"Received {folder}, which holds something else. "
            "Give the path of a new folder, or delete this one."
        )


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed builds left behind, but not what another one may be writing."""
    for leftover in folder.parent.glob(f".{folder.name}.partial-*"):
        if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _move_into_place(partial: Path, target: Path) -> None:
    if target.exists():
        old = partial.with_name(f"{partial.name}-old")
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(target)


def _generate(folder: Path, recipe: dict, on_progress: Progress) -> None:
    sentences = _plan_speech(recipe["seed"], recipe["size"])
    noises = _plan_noise(recipe["size"])
    progress = _Counter(on_progress, 2 * len(sentences) + len(noises))
    spoken = folder / "spoken"
    spoken.mkdir(parents=True)
    for part, split in itertools.product(("speech", "noise"), SPLITS):
        (folder / part / split).mkdir(parents=True)
    _speak(spoken, sentences, progress)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        try:
            speech_rows, babble = _finish_speech(pool, folder, sentences, progress)
            noise_rows = _make_noises(pool, folder, noises, babble, recipe["seed"], progress)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    shutil.rmtree(spoken)
    _write_manifest(folder / "speech" / "manifest.csv", _SPEECH_COLUMNS, speech_rows)
    _write_manifest(folder / "noise" / "manifest.csv", _NOISE_COLUMNS, noise_rows)
    write_json(folder / "corpus.json", recipe | _describe(sentences, speech_rows, noise_rows))


class _Counter:
    """Counts finished steps for the progress callback."""

    def __init__(self, on_progress: Progress, total: int) -> None:
        self._on_progress = on_progress
        self._total = total
        self._done = 0

    def step(self) -> None:
        self._done += 1
        self._on_progress(self._done, self._total)


def _describe(sentences: Sequence[_Sentence], speech: list[dict], noise: list[dict]) -> dict:
    voices = {sentence.voice for sentence in sentences if not sentence.is_babble}
    minutes = [sum(float(row["seconds"]) for row in rows) / 60.0 for rows in (speech, noise)]
    categories = {row["category"] for row in noise}
    return {
        "name": "embedded",
        "is_synthetic": True,
        "description": (
            f"Synthetic: {minutes[0]:.1f} min of speech by espeak-ng ({len(voices)} voices, "
            f"{len(SENTENCES)} languages) and {minutes[1]:.1f} min of synthesized noise "
            f"({len(categories)} kinds), generated on this machine. Good for trying the whole "
            "road and for tests. Scores on it say nothing about the quality on real recordings."
        ),
    }


def _scaled(count: int, size: float) -> int:
    return max(2, round(count * size))


def _plan_speech(seed: int, size: float) -> list[_Sentence]:
    """Chooses voices and sentences of each split; no voice and no sentence is in two."""
    plan = []
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng(np.random.SeedSequence([seed, 0, number]))
        voices = list(itertools.product(_LANGUAGES, _VARIANTS[split]))
        order = rng.permutation(len(voices))
        num_speech = min(_scaled(_NUM_VOICES[split], size), len(voices) // 2)
        num_babble = max(3, min(_scaled(_NUM_BABBLE_VOICES[split], size), len(voices) // 4))
        for position in range(num_speech + num_babble):
            language, variant = voices[order[position]]
            is_babble = position >= num_speech
            plan += _plan_voice(rng, split, language, variant, is_babble)
    return plan


def _plan_voice(
    rng: np.random.Generator, split: str, language: str, variant: str, is_babble: bool
) -> list[_Sentence]:
    texts = SENTENCES[_LANGUAGES[language]][split]
    count = min(_SENTENCES_PER_VOICE["test" if is_babble else split], len(texts))
    pitch, rate_wpm = int(rng.integers(28, 78)), int(rng.integers(135, 190))
    tilt_db, level_dbfs = rng.uniform(-5.0, 5.0), rng.uniform(-30.0, -20.0)
    return [
        _Sentence(
            split=split,
            voice=f"{language}+{variant}",
            is_babble=is_babble,
            text=texts[index],
            pitch=pitch + int(rng.integers(-3, 4)),
            rate_wpm=rate_wpm + int(rng.integers(-8, 9)),
            tilt_db=tilt_db,
            level_dbfs=level_dbfs + rng.uniform(-2.0, 2.0),
            stem=f"{language}_{variant}_{number}",
        )
        for number, index in enumerate(rng.permutation(len(texts))[:count])
    ]


def _plan_noise(size: float) -> list[tuple[str, str, int]]:
    """Returns split, category and number of every noise clip."""
    return [
        (split, category, number)
        for split in SPLITS
        for category in (*SYNTHESIZERS, "babble")
        for number in range(max(1, round(_NUM_NOISES_PER_CATEGORY[split] * size)))
    ]


def _speak(folder: Path, sentences: Sequence[_Sentence], progress: _Counter) -> None:
    """Runs espeak-ng in a process of its own, in the order that fixes its audio."""
    jobs = [
        {
            "voice": sentence.voice,
            "pitch": sentence.pitch,
            "rate_wpm": sentence.rate_wpm,
            "text": sentence.text,
            "path": str(_spoken_path(folder, sentence)),
        }
        for sentence in sentences
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    command = [sys.executable, "-m", "lmkd_tf.data.espeak_process", str(folder / "jobs.json")]
    errors_path = folder / "errors.txt"
    with errors_path.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[2],  # finds lmkd_tf, installed or not
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
        )
        with process:
            try:
                for _ in process.stdout or ():
                    progress.step()
            except BaseException:
                process.kill()
                raise
    if process.returncode != 0:
        _raise_speech_error(process.returncode, errors_path.read_text(errors="replace"))


def _raise_speech_error(status: int, errors: str) -> None:
    if status == NO_ENGINE_STATUS:
        raise RuntimeError(
            "The embedded corpus needs espeak-ng. "
            "Received neither the package espeakng-loader nor a command espeak-ng. "
            'Run pip install "lmkd-tf[corpus]" or apt install espeak-ng, or use a folder of '
            "real recordings."
        )
    raise RuntimeError(
        "espeak-ng must speak every sentence of the embedded corpus. "
        f"Received status {status}: {' '.join(errors.split())[-400:]}. "
        "Install espeak-ng 1.50 or later, or use a folder of real recordings."
    )


def _spoken_path(folder: Path, sentence: _Sentence) -> Path:
    return folder / f"{sentence.split}_{sentence.stem}.wav"


def _finish_speech(
    pool: ThreadPoolExecutor, folder: Path, sentences: Sequence[_Sentence], progress: _Counter
) -> tuple[list[dict], dict[str, list[np.ndarray]]]:
    """Writes the speech files; returns their manifest rows and the babble voices by split."""
    babble: dict[str, dict[str, list[np.ndarray]]] = {split: {} for split in SPLITS}
    rows = []
    finished = pool.map(lambda sentence: _finish_sentence(folder, sentence), sentences)
    for sentence, samples in zip(sentences, finished, strict=True):
        if sentence.is_babble:
            babble[sentence.split].setdefault(sentence.voice, []).append(samples)
        else:
            rows.append(_speech_row(sentence, samples.size / SAMPLE_RATE_HZ))
        progress.step()
    joined = {
        split: [np.concatenate(parts) for parts in voices.values()]
        for split, voices in babble.items()
    }
    return rows, joined


def _finish_sentence(folder: Path, sentence: _Sentence) -> np.ndarray:
    """Resamples, trims, tilts and levels one sentence; writes it unless it is for babble."""
    samples, sample_rate_hz = read_mono(_spoken_path(folder / "spoken", sentence))
    samples = soxr.resample(samples, sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    samples = tilt_spectrum(_trim(samples), sentence.tilt_db, SAMPLE_RATE_HZ)
    gain = db_to_gain(sentence.level_dbfs - active_level_dbfs(samples, SAMPLE_RATE_HZ))
    gain = min(gain, 0.9 / max(float(np.abs(samples).max()), 1e-9))
    samples = samples * np.float32(gain)
    if not sentence.is_babble:
        path = folder / "speech" / sentence.split / f"{sentence.stem}.flac"
        _write_flac(path, samples)
    return samples


def _write_flac(path: Path, samples: np.ndarray) -> None:
    try:
        soundfile.write(path, float_to_int16(samples), SAMPLE_RATE_HZ, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise OSError(
            "The embedded corpus needs about 100 MB of disk space. "
            f"Received '{error}' while writing {path.name}. "
            "Free some space or choose another folder."
        ) from error


def _trim(samples: np.ndarray) -> np.ndarray:
    """Cuts silence before and after speech to 0.15 s."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=0.0))
    if loud.size == 0:
        return samples
    margin = int(_SILENCE_SECONDS * SAMPLE_RATE_HZ)
    return samples[max(loud[0] - margin, 0) : loud[-1] + margin]


def _speech_row(sentence: _Sentence, seconds: float) -> dict:
    is_female = sentence.voice.rpartition("+")[2] in _FEMALE_VARIANTS
    return {
        "path": f"{sentence.split}/{sentence.stem}.flac",
        "seconds": f"{seconds:.3f}",
        "split": sentence.split,
        "source": "espeak-ng",
        "speaker": sentence.voice,
        "gender": "f" if is_female else "m",
        "licence": "generated",
        "original_file": sentence.text,
    }


def _make_noises(
    pool: ThreadPoolExecutor,
    folder: Path,
    noises: Sequence[tuple[str, str, int]],
    babble: dict[str, list[np.ndarray]],
    seed: int,
    progress: _Counter,
) -> list[dict]:
    futures: list[Future[None]] = []
    rows = []
    for split, category, number in noises:
        stem = f"{category}_{number:02d}"
        path = folder / "noise" / split / f"{stem}.flac"
        keys = [seed, 1, SPLITS.index(split), _stable_number(category), number]
        futures.append(pool.submit(_make_noise, path, category, babble[split], keys))
        rows.append(
            {
                "path": f"{split}/{stem}.flac",
                "seconds": f"{_NOISE_SECONDS:.3f}",
                "split": split,
                "source": "lmkd_tf.data.noise_synthesis",
                "category": category,
                "recording": f"{split}_{stem}",
                "licence": "generated",
            }
        )
    for future in as_completed(futures):
        future.result()
        progress.step()
    return rows


def _stable_number(name: str) -> int:
    return int.from_bytes(name.encode()[:6], "big")


def _make_noise(
    path: Path, category: str, voices: Sequence[np.ndarray], keys: Sequence[int]
) -> None:
    rng = np.random.default_rng(np.random.SeedSequence(keys))
    num_samples = round(_NOISE_SECONDS * SAMPLE_RATE_HZ)
    if category == "babble":
        count = min(int(rng.integers(4, 9)), len(voices))
        chosen = [voices[index] for index in rng.permutation(len(voices))[:count]]
        noise = synthesize_babble(rng, num_samples, SAMPLE_RATE_HZ, chosen)
    else:
        noise = SYNTHESIZERS[category](rng, num_samples, SAMPLE_RATE_HZ)
    _write_flac(path, noise)


def _write_manifest(path: Path, columns: Iterable[str], rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
