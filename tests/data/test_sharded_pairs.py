# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.sharded_pairs import pair_epoch, sharded_pairs, write_pair_shards
from lmkd_tf.data.sources import open_store
from lmkd_tf.data.verification import verify_container

NUM_PAIRS = 30


@pytest.fixture
def source_of(make_store):
    speech = make_store([0.2 * np.sin(np.arange(9000) * step) for step in (0.1, 0.2)])
    noise = make_store([0.01 * np.random.default_rng(0).uniform(-1, 1, 9000)])

    def make(seed=0, **settings):
        return PairSource(speech, noise, MixSettings(crop_seconds=0.1, **settings), 1, seed)

    return make


@pytest.fixture
def source(source_of):
    return source_of()


@pytest.fixture
def folder(source, tmp_path):
    write_pair_shards(source, tmp_path / "pairs", num_pairs=NUM_PAIRS, pairs_per_shard=7)
    return tmp_path / "pairs"


def test_an_epoch_visits_every_pair_once_in_an_order_of_its_own(folder):
    orders = [
        [int(pair) for _, _, pair in pair_epoch(folder, seed=seed, epoch=epoch)]
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert all(sorted(order) == list(range(NUM_PAIRS)) for order in orders)
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3]


def test_pairs_are_those_of_the_source_rounded_to_int16(folder, source):
    for views, speech, pair in pair_epoch(folder, seed=0, epoch=0).take(5):
        expected = [signal[0] for signal in source.batch(int(pair))]
        read = (views["first_view"], views["second_view"], speech)
        for one, other in zip(read, expected, strict=True):
            assert one.numpy() == pytest.approx(other, abs=0.5 / 32768 + 1e-9)


def test_a_run_resumed_in_mid_epoch_sees_what_the_whole_one_would_have_seen(folder):
    def batches(first, count):
        chosen = sharded_pairs(folder, batch_size=4, seed=5, first_batch=first).take(count)
        return [(views["second_view"].numpy(), speech.numpy()) for views, speech in chosen]

    whole = batches(0, 18)  # two epochs and a bit: 72 pairs
    for first in (3, 7, 15):
        for one, other in zip(whole[first:], batches(first, 18 - first), strict=True):
            assert all(np.array_equal(*signals) for signals in zip(one, other, strict=True))


def test_structure_is_that_of_training_pairs(folder):
    spec: Any = sharded_pairs(folder, batch_size=4, seed=0).element_spec
    views, speech = spec
    assert {name: tuple(view.shape) for name, view in views.items()} == {
        "first_view": (4, 1600),
        "second_view": (4, 1600),
    }
    assert tuple(speech.shape) == (4, 1600)


def test_truncated_and_foreign_shards_are_refused_by_name(folder):
    assert verify_container(folder) == NUM_PAIRS
    path = sorted(folder.glob("*.tfrecord"))[2]
    content = path.read_bytes()
    for damaged in (content[:-10], b"nothing of the kind"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=path.name):
            sharded_pairs(folder, batch_size=4, seed=0)


def test_folder_with_other_files_is_left_alone(source, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="folder of their own"):
        write_pair_shards(source, tmp_path, num_pairs=3)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def interrupt_after(num_done):
    def stop(done, _):
        if done >= num_done:
            raise KeyboardInterrupt

    return stop


def test_interrupted_run_goes_on_and_keeps_whole_shards(source, folder, tmp_path):
    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        write_pair_shards(
            source,
            again,
            num_pairs=NUM_PAIRS,
            pairs_per_shard=7,
            on_progress=interrupt_after(14),
        )
    kept, cut = sorted(again.glob("*.tfrecord"))
    before = kept.stat().st_mtime_ns
    cut.write_bytes(cut.read_bytes()[:50])
    write_pair_shards(source, again, num_pairs=NUM_PAIRS, pairs_per_shard=7)
    assert kept.stat().st_mtime_ns == before
    assert verify_container(again) == NUM_PAIRS
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("settings", "num_pairs", "size"),
    [
        ({"seed": 1}, NUM_PAIRS, 7),
        ({"snr_max_db": 1.0}, NUM_PAIRS, 7),
        ({}, NUM_PAIRS - 1, 7),
        ({}, NUM_PAIRS, 6),
    ],
)
def test_pairs_of_other_settings_never_come_under_an_older_index(
    source_of, folder, settings, num_pairs, size
):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="of other settings"):
        write_pair_shards(source_of(**settings), folder, num_pairs=num_pairs, pairs_per_shard=size)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_pairs_of_recordings_that_have_changed_are_not_mixed_with_older_ones(
    noisy_corpus, tmp_path
):
    def mix():
        corpus = read_corpus(noisy_corpus)
        stores = [open_store(c) for c in (corpus.speech_in("train"), corpus.noise_in("train"))]
        source = PairSource(stores[0], stores[1], MixSettings(crop_seconds=0.1), 1, 0)
        write_pair_shards(source, tmp_path / "pairs", num_pairs=4)

    mix()
    mix()
    path = read_corpus(noisy_corpus).speech_in("train")[0].path
    soundfile.write(path, np.full(6400, 0.1), 16000)
    with pytest.raises(ValueError, match="files that have changed"):
        mix()


def test_counts_out_of_range_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match=r"at least 1. Received batch_size=1, num_pairs=0"):
        write_pair_shards(source, tmp_path / "p", num_pairs=0)


def test_folder_that_holds_nothing_to_verify_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds one of packed\.json, shards\.json"):
        verify_container(tmp_path)
