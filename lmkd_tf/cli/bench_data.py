# SPDX-License-Identifier: Apache-2.0
"""Measures how fast training pairs arrive, by where the audio lies and who draws it.

Usage:
  ./x bench data [--data=CORPUS] [--seconds=5] [--crops=0]

Each row is a process of its own that draws the same two-view crops of 2 s, batches of 16:
from FLAC files, shards, a packed corpus or memory, by a plain Python generator, a PyTorch
DataLoader (2 workers) or tf.data; and ready-made pairs by tf.data. The last row is what the
smallest student consumes in training. Speeds are crop seconds per second, the better of two
turns; per core means per second of processor time, which says more on a busy machine.
--crops=100000 draws that many crops through tf.data from shards and prints the memory.
"""

import importlib.util
import itertools
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from lmkd_tf.cli.common import run_program

_BATCH_SIZE = 16
_CROP_SECONDS = 2.0
_NUM_ROUNDS = 2
_NUM_WORKERS = 2
_MAX_HOURS = 0.5
_NUM_PAIRS = 1024
_STORAGES = ("flac", "shards", "packed", "memory")
_READERS = ("generator", "dataloader", "tf.data")
_TARGETS = {("shards", "tf.data"): 400, ("flac", "tf.data"): 150}


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    values = flags.FLAGS
    if values.row:
        sys.stdout.write(json.dumps(_measure_row(*values.row.split("/"))) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder), values.data)
        if values.crops:
            _print_memory(_run_row(folder, "shards", "memory-curve"))
            return
        rows = [
            *itertools.product(_STORAGES, _READERS),
            ("pairs", "tf.data"),
            ("", "nano training"),
        ]
        if importlib.util.find_spec("torch") is None:
            rows = [row for row in rows if row[1] != "dataloader"]
            sys.stdout.write("dataloader: not measured; pip install torch==2.13.0 adds its rows\n")
        best: dict[tuple[str, str], dict[str, float]] = {}
        for _, row in itertools.product(range(_NUM_ROUNDS), rows):
            found = _run_row(folder, *row)
            if found["speed"] > best.get(row, {"speed": 0.0})["speed"]:
                best[row] = found
        _print_table(best)


def _run_row(folder: str, storage: str, reader: str) -> dict[str, Any]:
    values = flags.FLAGS
    command = [sys.executable, "-m", "lmkd_tf.cli.bench_data", f"--row={storage}/{reader}"]
    command += [f"--work={folder}", f"--seconds={values.seconds}", f"--crops={values.crops}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _print_table(rows: dict[tuple[str, str], dict[str, float]]) -> None:
    base = rows["flac", "generator"]["speed"]
    for (storage, reader), found in rows.items():
        target = _TARGETS.get((storage, reader))
        note = f"   target {target}" if target else ""
        sys.stdout.write(
            f"{storage:8s}{reader:14s}{found['speed']:8.0f} x real time"
            f"{found['per_core']:8.0f} per core"
            f"{found['speed'] / base:8.2f} x flac by generator{found['mebibytes']:7.0f} MiB{note}\n"
        )


def _print_memory(found: dict[str, Any]) -> None:
    for crops, mebibytes in found["curve"]:
        sys.stdout.write(f"{crops:8d} crops {mebibytes:8.1f} MiB resident\n")


def _prepare(folder: Path, data: str | None) -> None:
    """Writes the same part of a corpus as FLAC, packed, sharded and as pairs."""
    import soundfile

    from lmkd_tf.data.packed import write_packed
    from lmkd_tf.data.readers import read_corpus
    from lmkd_tf.data.sharded_pairs import write_pair_shards
    from lmkd_tf.data.shards import write_shards
    from lmkd_tf.data.store import load_store

    if data is None:
        from lmkd_tf.data.embedded import build_embedded_corpus

        data = str(folder / "embedded")
        build_embedded_corpus(data)
    corpus = read_corpus(data, ("train",))
    for kind, clips in (("speech", corpus.speech_in("train")), ("noise", corpus.noise_in("train"))):
        store = load_store(_first_hours(clips))
        for index, (clip, signal) in enumerate(zip(store.clips, store.signals, strict=True)):
            group = clip.group if kind == "speech" else clip.category
            target = folder / "flac" / kind / "train" / group.replace("/", "-") / f"{index}.flac"
            target.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(target, signal, store.sample_rate_hz)
    corpus = read_corpus(folder / "flac", ("train",))
    write_packed(corpus, folder / "packed")
    write_shards(corpus, folder / "shards")
    source = _open_source(folder, "packed", 1)
    write_pair_shards(source, folder / "pairs", num_pairs=_NUM_PAIRS)


def _first_hours(clips: Any) -> list[Any]:
    """Returns clips of different groups until they last half an hour."""
    taken, seconds = [], 0.0
    for clip in sorted(clips, key=lambda clip: clip.path.name):
        if seconds > 3600.0 * _MAX_HOURS:
            break
        taken.append(clip)
        seconds += clip.seconds
    return taken


def _open_source(folder: Path, storage: str, batch_size: int) -> Any:
    from lmkd_tf.data.mixing import MixSettings
    from lmkd_tf.data.pipeline import PairSource

    settings = MixSettings(crop_seconds=_CROP_SECONDS)
    return PairSource(*_open_stores(folder, storage), settings, batch_size, 0)


def _open_stores(folder: Path, storage: str) -> tuple[Any, Any]:
    from lmkd_tf.data.readers import read_corpus
    from lmkd_tf.data.sources import open_store

    name = storage if storage in ("packed", "shards") else "flac"
    corpus = read_corpus(folder / name, ("train",))
    max_bytes = 1 if storage == "flac" else None
    speech, noise = corpus.speech_in("train"), corpus.noise_in("train")
    return open_store(speech, max_memory_bytes=max_bytes), open_store(
        noise, max_memory_bytes=max_bytes
    )


def _measure_row(storage: str, reader: str) -> dict[str, Any]:
    folder, seconds = Path(flags.FLAGS.work), flags.FLAGS.seconds
    if reader == "memory-curve":
        return {"curve": _memory_curve(_by_tf_data(folder, storage), flags.FLAGS.crops)}
    if reader == "nano training":
        speed, per_core = _training_speed(seconds)
    else:
        makers: dict[str, Callable[[Path, str], Iterator[Any]]] = {
            "generator": _by_generator,
            "dataloader": _by_dataloader,
            "tf.data": _by_tf_data,
        }
        speed, per_core = _speed_of(makers[reader](folder, storage), seconds)
    return {"speed": speed, "per_core": per_core, "mebibytes": _peak_mebibytes()}


def _peak_mebibytes() -> float:
    """Returns the most memory this process had resident, in MiB.

    Not by `getrusage`, which also counts the process that this one was forked from.
    """
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024.0


def _speed_of(batches: Iterator[Any], seconds: float) -> tuple[float, float]:
    """Returns crop seconds per second, and per second of processor time of all processes."""
    for _ in range(4):
        next(batches)
    start, used_s, count = time.perf_counter(), _processor_seconds(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    crop_s = count * _BATCH_SIZE * _CROP_SECONDS
    return crop_s / (time.perf_counter() - start), crop_s / (_processor_seconds() - used_s)


def _processor_seconds() -> float:
    """Returns the processor time of this process and of those that it has started."""
    ticks = 0
    for process in [os.getpid(), *(child.pid or 0 for child in multiprocessing.active_children())]:
        fields = Path(f"/proc/{process}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _by_generator(folder: Path, storage: str) -> Iterator[Any]:
    source = _open_source(folder, storage, _BATCH_SIZE)
    return (source.batch(index) for index in itertools.count())


def _by_dataloader(folder: Path, storage: str) -> Iterator[Any]:
    torch = importlib.import_module("torch")
    source = _open_source(folder, storage, 1)

    class Pairs(torch.utils.data.Dataset):
        """Pairs as a map-style data set."""

        def __len__(self) -> int:
            return 10**7

        def __getitem__(self, index: int) -> Any:
            return tuple(signal[0] for signal in source.batch(index))

    return iter(
        torch.utils.data.DataLoader(Pairs(), batch_size=_BATCH_SIZE, num_workers=_NUM_WORKERS)
    )


def _by_tf_data(folder: Path, storage: str) -> Iterator[Any]:
    from lmkd_tf.data.mixing import MixSettings
    from lmkd_tf.data.pipeline import training_pairs
    from lmkd_tf.data.sharded_pairs import sharded_pairs

    if storage == "pairs":
        return iter(sharded_pairs(folder / "pairs", batch_size=_BATCH_SIZE, seed=0))
    return iter(
        training_pairs(
            *_open_stores(folder, storage),
            settings=MixSettings(crop_seconds=_CROP_SECONDS),
            batch_size=_BATCH_SIZE,
            seed=0,
        )
    )


def _memory_curve(batches: Iterator[Any], crops: int) -> list[tuple[int, float]]:
    """Returns (crops drawn, resident MiB) at eleven points."""
    page_mebibytes = resource.getpagesize() / 2**20
    curve, step = [], max(1, crops // _BATCH_SIZE // 10)
    for index in range(10 * step + 1):
        next(batches)
        if index % step == 0:
            pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
            curve.append((index * _BATCH_SIZE, pages * page_mebibytes))
    return curve


def _training_speed(seconds: float) -> tuple[float, float]:
    """Returns how many crop seconds the smallest student trains on; see `_speed_of`."""
    import numpy as np

    import lmkd_tf

    student = lmkd_tf.models.build("nano")
    student.compile(optimizer="adam", loss=lmkd_tf.SpeechLoss())
    noise = np.random.default_rng(0).normal(0.0, 0.1, (_BATCH_SIZE, 32000)).astype(np.float32)

    def steps() -> Iterator[Any]:
        while True:
            yield student.train_on_batch(noise, noise)

    return _speed_of(steps(), seconds)


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("data", None, "Corpus to draw from; the synthetic one if none is given.")
    flags.DEFINE_float("seconds", 5.0, "How long each row runs, in s.", lower_bound=0.1)
    flags.DEFINE_integer("crops", 0, "Draw so many crops and print the memory instead.")
    flags.DEFINE_string("row", None, "Used by the program itself.")
    flags.DEFINE_string("work", None, "Used by the program itself.")
    run_program(main, __doc__ or "", ("data", "seconds", "crops"), needs_tensorflow=False)


if __name__ == "__main__":
    run()
