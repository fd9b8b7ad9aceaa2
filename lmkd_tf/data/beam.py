# SPDX-License-Identifier: Apache-2.0
"""Shards a corpus on many machines, as a pipeline of Apache Beam.

Which clip goes into which shard, and in which order, depends on its name alone, and a shard
is written whole or not at all: any number of workers, and any worker that is started again,
writes the same bytes under the same name, so nothing is lost and nothing comes twice. A
clip that cannot be decoded goes to the dead-letter list with the reason.

Runners: `direct` runs here on several processes. Any other name goes to Beam with the
further arguments, for example `FlinkRunner --flink_master=HOST:8081`, `SparkRunner
--job_endpoint=HOST:8099` or `DataflowRunner --project=... --region=... --temp_location=...`.
Corpus and shards must be at the same paths on every worker: a network file system or a
bucket that is mounted.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.data.index import Corpus
from lmkd_tf.data.packed import Entry, Source, entry_of, list_sources
from lmkd_tf.data.shards import (
    ShardPlan,
    finish_set,
    plan_shards,
    prepare_folder,
    write_clip_shard,
)
from lmkd_tf.data.store import try_decode

try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.pvalue import TaggedOutput
except ImportError as error:
    raise ImportError(
        "Sharding on many machines needs Apache Beam. Received an installation without it. "
        "Run pip install 'lmkd-tf[beam]', or leave out --runner."
    ) from error

_LETTERS_NAME = ".letters.json"
_DEAD = "dead"


class Decode(apache_beam.DoFn):
    """Decodes clips: (shard, clip) for each that can be, (name, reason) for each that cannot.

    Args:
        plan: Where each clip goes.
    """

    def __init__(self, plan: ShardPlan) -> None:
        self._plan = plan

    def process(self, element: Source, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Decodes one clip."""
        del args, kwargs
        signal = try_decode(element.clip, self._plan.sample_rate_hz)
        if isinstance(signal, str):
            yield TaggedOutput(_DEAD, (element.id, signal))
        else:
            content = np.ascontiguousarray(signal, dtype="<i2").tobytes()
            yield self._plan.file_of(element), (entry_of(element, signal), content)


class WriteShard(apache_beam.DoFn):
    """Writes all clips of one shard; written again it is the same file.

    Args:
        plan: Folder and sample rate.
    """

    def __init__(self, plan: ShardPlan) -> None:
        self._plan = plan

    def process(
        self, element: tuple[str, Iterable[tuple[Entry, bytes]]], *args: Any, **kwargs: Any
    ) -> Iterator[str]:
        """Writes one shard."""
        del args, kwargs
        name, clips = element
        # A bundle that was retried may come twice; one clip is one record.
        unique = {entry.position: (entry, content) for entry, content in clips}
        write_clip_shard(self._plan.folder / name, unique.values(), self._plan.sample_rate_hz)
        yield name


class WriteLetters(apache_beam.DoFn):
    """Writes the dead letters for the process that started the pipeline.

    Args:
        path: File to write.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def process(
        self, element: tuple[None, Iterable[tuple[str, str]]], *args: Any, **kwargs: Any
    ) -> None:
        """Writes all of them."""
        del args, kwargs
        Path(self._path).write_text(json.dumps(sorted(set(element[1]))), "utf-8")


def shard_corpus(
    corpus: Corpus,
    folder: str | Path,
    *,
    runner: str = "direct",
    num_workers: int = 2,
    num_shards: int = 0,
    max_failed_fraction: float = 0.05,
    runner_arguments: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """Shards a corpus with a runner of Apache Beam.

    Args:
        corpus: Corpus to shard.
        folder: Folder for the shards, at the same path on every worker.
        runner: `"direct"`, or the name of a runner as Beam knows it.
        num_workers: Processes of the direct runner.
        num_shards: Shards of each kind and split; 0 for as many as make 64 MiB each.
        max_failed_fraction: Share of unusable clips, in [0, 1], that is put up with.
        runner_arguments: Further arguments for Beam.

    Returns:
        Name and reason of every clip that was left out.

    Raises:
        ValueError: If the folder holds something else, or too many clips are unusable.
    """
    plan = plan_shards(corpus, folder, num_shards=num_shards)
    sources = list_sources(corpus)
    prepare_folder(plan, sources)
    letters_path = plan.folder / _LETTERS_NAME
    letters_path.unlink(missing_ok=True)
    options = (*_runner_options(runner, num_workers), *runner_arguments)
    try:
        _run(PipelineOptions(list(options)), plan, sources, str(letters_path))
    except Exception as error:  # whatever a runner raises when a worker is lost
        raise RuntimeError(
            f"The pipeline must run to its end. Received {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}. Run the same command again; no index was "
            "written, and shards that are there are written anew with the same content."
        ) from error
    found = json.loads(letters_path.read_text("utf-8")) if letters_path.is_file() else []
    refused = [(str(name), str(reason)) for name, reason in found]
    letters_path.unlink(missing_ok=True)
    finish_set(plan, corpus, refused, max_failed_fraction)
    return refused


def _run(
    options: PipelineOptions, plan: ShardPlan, sources: Sequence[Source], letters_path: str
) -> None:
    with apache_beam.Pipeline(options=options) as pipeline:
        decoded = (
            pipeline
            | "clips" >> apache_beam.Create(sources)
            | "spread" >> apache_beam.Reshuffle()
            | "decode" >> apache_beam.ParDo(Decode(plan)).with_outputs(_DEAD, main="clips")
        )
        shards = decoded.clips | "by shard" >> apache_beam.GroupByKey()
        _ = shards | "write" >> apache_beam.ParDo(WriteShard(plan))
        letters = decoded[_DEAD] | "as one" >> apache_beam.Map(lambda letter: (None, letter))
        _ = (
            letters
            | "all letters" >> apache_beam.GroupByKey()
            | "write letters" >> apache_beam.ParDo(WriteLetters(letters_path))
        )


def _runner_options(runner: str, num_workers: int) -> list[str]:
    if runner != "direct":
        return [f"--runner={runner}"]
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    mode = "multi_processing" if num_workers > 1 else "in_memory"
    return [
        "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
        f"--direct_running_mode={mode}",
        f"--direct_num_workers={num_workers}",
        "--default_sdk_harness_log_level=WARNING",
    ]
