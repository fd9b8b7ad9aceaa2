# SPDX-License-Identifier: Apache-2.0
"""Looks at corpora, fetches them, and packs them for training.

Usage:
  lmkd-data inspect CORPUS [--output=FOLDER]
  lmkd-data pack CORPUS FOLDER
  lmkd-data shard CORPUS FOLDER [--runner=local|direct|...] [--num_workers=N] [--num_shards=N]
  lmkd-data mix CORPUS FOLDER --num_pairs=N [--config=NAME] [--override=...]
  lmkd-data verify FOLDER
  lmkd-data download voicebank-demand FOLDER [--speakers=28|56] [--check_only]
  lmkd-data serve dispatcher|worker [--port=N] [--dispatcher=HOST:PORT]

CORPUS is a folder of any known layout or a CSV manifest; CORPUS,NOISE adds a tree of noise.
inspect prints what is there and what is wrong with it; with --output also a picture and JSON.
pack and shard store the decoded audio (no TensorFlow needed); shard runs on many machines with
a runner of Apache Beam (further arguments go to it). mix stores training pairs mixed beforehand,
which serve hands out to trainers. The result of pack and shard is a CORPUS of the speech and
noise again (room impulse responses and pairs are left out, with a warning), that of mix what
lmkd_tf.data.sharded_pairs reads.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from lmkd_tf.cli.common import config_path, run_program

_FLAGS = (
    *("output", "runner", "num_workers", "num_shards", "num_pairs", "speakers"),
    *("check_only", "port", "dispatcher", "config", "override"),
)


def main(arguments: list[str]) -> int:
    """Runs the program."""
    verbs: dict[str, tuple[int, Callable[..., int]]] = {
        "inspect": (1, _inspect),
        "pack": (2, _pack),
        "shard": (2, _shard),
        "mix": (2, _mix),
        "verify": (1, _verify),
        "download": (2, _download),
        "serve": (1, _serve),
    }
    verb, rest = (arguments[1:2] or [""])[0], arguments[2:]
    if verb not in verbs:
        raise ValueError(
            f"The first argument must be one of {', '.join(verbs)}. "
            f"Received {verb!r}. See lmkd-data --help."
        )
    num_wanted, run_verb = verbs[verb]
    if len(rest) < num_wanted or (len(rest) > num_wanted and verb != "shard"):
        raise ValueError(
            f"lmkd-data {verb} takes {num_wanted} arguments. Received {rest}. See lmkd-data --help."
        )
    return run_verb(*rest)


def _inspect(corpus: str) -> int:
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.config.files import write_json, write_text
    from lmkd_tf.data import inspection
    from lmkd_tf.data.readers import read_corpus

    with Progress("Look at every file") as progress:
        found = inspection.inspect_corpus(read_corpus(corpus, ()), progress.update_of)
    sys.stdout.write(inspection.to_text(found) + "\n")
    if flags.FLAGS.output:
        from lmkd_tf.evaluate.histogram import histogram_picture

        output = Path(flags.FLAGS.output)
        panels = {
            title: inspection.histogram(values)
            for title, values in inspection.histograms(found).items()
        }
        write_json(output / "inspection.json", inspection.to_record(found))
        write_text(output / "inspection.svg", histogram_picture(panels, inspection.BIN_DB))
        sys.stdout.write(f"Written: {output / 'inspection.json'}, {output / 'inspection.svg'}\n")
    return 0


def _pack(corpus: str, folder: str) -> int:
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.data.packed import write_packed
    from lmkd_tf.data.readers import read_corpus

    with Progress("Pack") as progress:
        skipped = write_packed(read_corpus(corpus, ()), folder, on_progress=progress.update_of)
    for path, reason in skipped:
        sys.stdout.write(f"Left out: {path}: {reason}\n")
    sys.stdout.write(f"Written: {folder}\n")
    return 0


def _shard(corpus: str, folder: str, *runner_arguments: str) -> int:
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.data.readers import read_corpus
    from lmkd_tf.data.shards import DEAD_LETTER_NAME, write_shards

    values = flags.FLAGS
    # Beam drops what it does not know without a word, a third folder included.
    is_for_beam = values.runner != "local" and "".join(runner_arguments).startswith("-")
    if runner_arguments and not is_for_beam:
        raise ValueError(
            "lmkd-data shard takes 2 arguments, and options of Apache Beam with --runner. "
            f"Received {list(runner_arguments)} besides. Leave them out, or give --runner and "
            "the options of that runner behind --."
        )
    index = read_corpus(corpus, ())
    if values.runner == "local":
        with Progress("Shard") as progress:
            letters = write_shards(
                index, folder, num_shards=values.num_shards, on_progress=progress.update_of
            )
    else:
        shard_corpus = importlib.import_module("lmkd_tf.data.beam").shard_corpus
        letters = shard_corpus(
            index,
            folder,
            runner=values.runner,
            num_workers=values.num_workers,
            num_shards=values.num_shards,
            runner_arguments=runner_arguments,
        )
    if letters:
        sys.stdout.write(f"{len(letters)} left out, see {Path(folder) / DEAD_LETTER_NAME}\n")
    sys.stdout.write(f"Written: {folder}\n")
    return 0


def _mix(corpus: str, folder: str) -> int:
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.cli.train_stages import Audio
    from lmkd_tf.config.loader import load
    from lmkd_tf.data.sharded_pairs import write_pair_shards

    values = flags.FLAGS
    config = load(config_path(values.config), values.override)
    source = Audio(corpus, config).pair_source(batch_size=1)
    num_pairs = values.num_pairs or source.epoch_length
    with Progress("Mix pairs") as progress:
        write_pair_shards(source, folder, num_pairs=num_pairs, on_progress=progress.update_of)
    sys.stdout.write(f"Written: {folder} ({num_pairs} pairs)\n")
    return 0


def _verify(folder: str) -> int:
    from lmkd_tf.data.verification import verify_container

    num_records = verify_container(folder)
    sys.stdout.write(f"{folder}: whole, {num_records} records\n")
    return 0


def _download(name: str, folder: str) -> int:
    from lmkd_tf.cli.progress import Progress
    from lmkd_tf.data.voicebank_download import NAME, download_voicebank, list_archives

    values = flags.FLAGS
    if name != NAME:
        raise ValueError(
            f"The only corpus that can be downloaded is {NAME}. "
            f"Received {name!r}. Fetch other corpora by hand, then lmkd-data inspect."
        )
    for archive in list_archives(values.speakers):
        sys.stdout.write(f"{archive.describe()}\n")
    if values.check_only:
        return 0
    with Progress(f"Download {NAME}") as progress:
        download_voicebank(folder, speakers=values.speakers, on_progress=progress.update_of)
    sys.stdout.write(f"Written: {folder}. Use --data={folder}\n")
    return 0


def _serve(role: str) -> int:
    from lmkd_tf.data.service import serve

    serve(role, port=flags.FLAGS.port, dispatcher=flags.FLAGS.dispatcher)
    return 0


def run() -> None:
    """Entry point of the console script."""
    flags.DEFINE_string("output", None, "inspect: folder for a picture and JSON.")
    flags.DEFINE_string("runner", "local", "shard: local, direct, or a runner of Apache Beam.")
    flags.DEFINE_integer("num_workers", 2, "shard: processes of the direct runner.", lower_bound=1)
    flags.DEFINE_integer("num_shards", 0, "shard: per kind and split; 0 for 64 MiB each.")
    flags.DEFINE_integer("num_pairs", 0, "mix: number of pairs; 0 for one epoch.")
    flags.DEFINE_enum("speakers", "28", ("28", "56"), "download: training set.")
    flags.DEFINE_bool("check_only", False, "download: print sizes and checksums only.")
    flags.DEFINE_integer("port", 0, "serve: port to listen on; 0 for any.")
    flags.DEFINE_string("dispatcher", None, "serve worker: HOST:PORT of the dispatcher.")
    flags.DEFINE_string("config", "default", "mix: configuration.")
    flags.DEFINE_multi_string("override", [], "mix: setting to change.")
    run_program(main, __doc__ or "", _FLAGS, needs_tensorflow=False)


if __name__ == "__main__":
    run()
