# SPDX-License-Identifier: Apache-2.0
import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.folder import read_folder
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import (
    PairSource,
    benchmark_set,
    evaluation_set,
    paired_set,
    training_pairs,
    validation_pairs,
)
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.store import AudioStore, load_store

SETTINGS = MixSettings(crop_seconds=0.5)


@pytest.fixture
def stores(make_store) -> tuple[AudioStore, AudioStore]:
    rng = np.random.default_rng(0)
    voices = [0.2 * np.sin(np.arange(30000) * step) for step in (0.05, 0.08, 0.11, 0.17)]
    noises = [0.003 * rng.uniform(-1, 1, 20000) for _ in range(6)]
    categories = ["rain", "rain", "rain", "siren", "wind", "wind"]
    return make_store(voices, ["a", "a", "b", "c"]), make_store(noises, categories=categories)


def take(dataset, count):
    return [
        (views["first_view"].numpy(), views["second_view"].numpy(), speech.numpy())
        for views, speech in dataset.take(count)
    ]


def assert_equal_batches(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_training_batches_have_static_shapes_and_float32(stores):
    dataset = training_pairs(*stores, settings=SETTINGS, batch_size=3, seed=0)
    spec: Any = dataset.element_spec
    views, speech = spec
    assert {name: tuple(view.shape) for name, view in views.items()} == {
        "first_view": (3, 8000),
        "second_view": (3, 8000),
    }
    assert tuple(speech.shape) == (3, 8000)
    assert speech.dtype == "float32"


def test_resuming_gives_what_the_uninterrupted_run_would_have_seen(stores):
    whole = take(training_pairs(*stores, settings=SETTINGS, batch_size=2, seed=5), 5)
    resumed = training_pairs(*stores, settings=SETTINGS, batch_size=2, seed=5, first_batch=3)
    assert_equal_batches(whole[3:], take(resumed, 2))


def test_a_batch_depends_on_seed_and_index(stores):
    source, other = (PairSource(stores[0], stores[1], SETTINGS, 2, seed) for seed in (5, 6))
    later, sooner = source.batch(9), source.batch(1)
    assert_equal_batches([later, sooner], [source.batch(9), source.batch(1)])
    assert not np.array_equal(later[0], sooner[0])
    assert not np.array_equal(later[0], other.batch(9)[0])


def test_the_files_of_a_batch_are_those_it_depends_on(stores):
    speech, noise = (
        replace(store, clips=[replace(c, path=Path(kind) / c.path) for c in store.clips])
        for kind, store in zip(("speech", "noise"), stores, strict=True)
    )
    files = PairSource(speech, noise, SETTINGS, 1, seed=0).files(5)
    expected = PairSource(speech, noise, SETTINGS, 1, seed=0).batch(5)
    assert 3 <= len(files) < 10
    for index, clip in enumerate([*speech.clips, *noise.clips]):
        signals = [list(store.signals) for store in (speech, noise)]
        place = signals[index >= 4]
        place[index % 4 if index < 4 else index - 4] = place[0][::-1] // 2
        voices, noises = replace(speech, signals=signals[0]), replace(noise, signals=signals[1])
        batch = PairSource(voices, noises, SETTINGS, 1, seed=0).batch(5)
        is_same = all(np.array_equal(a, b) for a, b in zip(batch, expected, strict=True))
        assert is_same == (str(clip.path) not in files), clip.path


def test_examples_of_a_batch_differ(stores):
    first, _, _ = PairSource(stores[0], stores[1], SETTINGS, 4, 0).batch(0)
    assert len({row.tobytes() for row in first}) == 4


MACHINES = {
    "as it is": {},
    "old, no AVX": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL"},
    "other BLAS kernels": {"OPENBLAS_CORETYPE": "Nehalem"},
    "one thread": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
}
DIGEST = """
import hashlib, sys
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.sources import open_store
corpus = read_corpus(sys.argv[1])
stores = [open_store(c) for c in (corpus.speech_in("train"), corpus.noise_in("train"))]
settings = MixSettings(crop_seconds=0.3, clip_probability=0.5, band_limit_probability=0.5)
source = PairSource(*stores, settings, 32, 0)
print(hashlib.sha256(b"".join(s.tobytes() for k in range(4) for s in source.batch(k))).hexdigest())
"""


def test_the_same_seed_gives_the_same_batches_on_other_processors(noisy_corpus):
    digests = {}
    for name, changes in MACHINES.items():
        command = [sys.executable, "-W", "ignore", "-c", DIGEST, str(noisy_corpus)]
        environment = {**os.environ, **changes}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests[name] = done.stdout
    assert len(set(digests.values())) == 1, digests


def test_tf_data_delivers_the_batches_of_the_source_in_order(stores):
    source = PairSource(stores[0], stores[1], SETTINGS, 2, 5)
    delivered = take(training_pairs(*stores, settings=SETTINGS, batch_size=2, seed=5), 6)
    assert_equal_batches(delivered, [source.batch(index) for index in range(6)])


def test_any_number_of_workers_makes_the_batches_of_one(stores):
    source = PairSource(stores[0], stores[1], SETTINGS, 2, 5)
    expected = [source.batch(index) for index in range(12)]
    for num_workers in (2, 5):
        with ThreadPoolExecutor(num_workers) as pool:
            assert_equal_batches(list(pool.map(source.batch, range(12))), expected)


def test_pairs_of_a_corpus_are_resampled_and_keep_what_it_states(tmp_path):
    time = np.arange(9600) / 48000
    for side, level in (("clean", 0.2), ("noisy", 0.3)):
        for speaker in ("p232", "p257"):
            folder = tmp_path / f"{side}_testset_wav"
            folder.mkdir(exist_ok=True)
            tone = level * np.sin(2 * np.pi * 440 * time)
            soundfile.write(folder / f"{speaker}_001.wav", tone, 48000)
    (tmp_path / "log_testset.txt").write_text("p232_001 bus 17.5\n")
    first, second = paired_set(read_corpus(tmp_path, ()))
    assert (first.name, first.snr_db, first.noise_category) == ("p232_001", 17.5, "bus")
    assert np.isnan(second.snr_db)
    assert first.noisy.size == first.speech.size == 3200
    assert first.noisy[500:-500] == pytest.approx(1.5 * first.speech[500:-500], abs=1e-3)
    (listed,) = paired_set(read_corpus(tmp_path, ()), snrs_db={"p257_001": 2.5})
    assert (listed.name, listed.snr_db) == ("p257_001", 2.5)
    with pytest.raises(ValueError, match=r"all 2 pairs .* without p999_001\."):
        paired_set(read_corpus(tmp_path, ()), snrs_db={"p257_001": 2.5, "p999_001": 2.5})


@pytest.fixture
def write_pairs(tmp_path):
    def write(*names, clean=None):
        tone = 0.1 * np.sin(np.arange(3200) * 0.2)
        for index, name in enumerate(names):
            for side, samples in (("clean", tone if clean is None else clean), ("noisy", tone)):
                path = tmp_path / "test" / side / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples * (1 + index), 16000, subtype="FLOAT")
        return read_corpus(tmp_path, ())

    return write


def test_pairs_of_one_file_name_in_several_folders_are_told_apart(write_pairs):
    corpus = write_pairs("spk1/001", "spk1/002", "spk2/001")
    clips = paired_set(corpus)
    assert [clip.name for clip in clips] == ["spk1-001", "002", "spk2-001"]
    assert clips[2].noisy == pytest.approx(3 * clips[0].noisy, abs=1e-6)
    (listed,) = paired_set(corpus, snrs_db={"spk2-001": 2.5})
    assert np.array_equal(listed.noisy, clips[2].noisy)


@pytest.mark.parametrize(
    ("clean", "reason"),
    [
        (np.zeros(3200), "is all zero"),
        (np.full(3200, np.nan), "holds NaN or infinite samples"),
        (np.full(400, 0.1), "is shorter than 0.05 s"),
    ],
)
def test_pair_with_a_faulty_clean_side_is_refused_by_name(write_pairs, clean, reason):
    corpus = write_pairs("001", clean=clean)
    with pytest.raises(ValueError, match=rf"must hold sound.*clean/001\.wav, which {reason}"):
        paired_set(corpus)


def test_pair_without_its_clean_file_is_refused_by_name(write_pairs):
    corpus = write_pairs("001", "002")
    corpus.pairs[1].clean.unlink()
    with pytest.raises(FileNotFoundError, match=r"must exist. Received no file .*clean/002\.wav"):
        paired_set(corpus)


def test_pairs_that_would_have_one_name_are_refused(write_pairs):
    corpus = write_pairs("a/b/001", "a-b/001")
    with pytest.raises(ValueError, match=r"differ in their names.*'a-b-001' here"):
        paired_set(corpus)


def test_corpus_without_pairs_says_so(noisy_corpus):
    with pytest.raises(ValueError, match=r"noisy and clean files in split 'test'. Received trees"):
        paired_set(read_corpus(noisy_corpus))


def test_views_are_within_full_scale(stores):
    batches = [PairSource(stores[0], stores[1], SETTINGS, 8, 0).batch(index) for index in range(10)]
    assert np.abs(batches).max() <= 0.99


def test_validation_pairs_are_the_same_in_every_pass(stores):
    dataset = validation_pairs(*stores, settings=SETTINGS, batch_size=2, num_batches=3, seed=1)
    assert dataset.cardinality() == 3
    assert_equal_batches(take(dataset, 9), take(dataset, 9))
    again = validation_pairs(*stores, settings=SETTINGS, batch_size=2, num_batches=3, seed=1)
    assert_equal_batches(take(dataset, 9), take(again, 9))


def test_noise_is_drawn_at_each_of_its_speeds(make_store):
    hum = np.sin(2 * np.pi * 1000.0 / 16000 * np.arange(40000))
    speech = make_store([np.zeros(9000)])
    settings = MixSettings(crop_seconds=0.5, noise_speeds=(0.8, 1.25), tilt_probability=0.0)
    settings = replace(settings, two_noises_probability=0.0, babble_probability=0.0)
    source = PairSource(speech, make_store([0.5 * hum]), settings, batch_size=16, seed=0)
    first, second, _ = source.batch(0)
    views = np.concatenate([first, second])
    found_hz = np.argmax(np.abs(np.fft.rfft(views)), axis=1) * 2
    assert {*found_hz} == {800, 1250}
    assert source.files(0) == ["clip_0.flac"]


def test_validation_noises_are_single_recordings_as_they_are(make_store):
    # A constant is the only noise: a sum, a tilt or babble would not be constant.
    speech = make_store([0.2 * np.sin(np.arange(9000) * 0.1)])
    noise = make_store([np.full(20000, 0.1)])
    settings = replace(SETTINGS, noise_speeds=(0.5, 2.0))  # with ends that are not constant
    dataset = validation_pairs(
        speech, noise, settings=settings, batch_size=8, num_batches=4, seed=0
    )
    for first, _, clean in take(dataset, 4):
        assert np.ptp(first - clean, axis=1).max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"seed": -1}, "`seed` must not be negative. Received batch_size=1, seed=-1"),
        ({"first_batch": -1}, "`first_batch` must not be negative. Received -1"),
    ],
)
def test_training_pairs_refuse_numbers_out_of_range(stores, arguments, message):
    with pytest.raises(ValueError, match=message):
        training_pairs(*stores, **{"settings": SETTINGS, "batch_size": 1, "seed": 0} | arguments)


def test_validation_pairs_refuse_no_batches(stores):
    with pytest.raises(ValueError, match=r"`num_batches` must be at least 1. Received 0"):
        validation_pairs(*stores, settings=SETTINGS, batch_size=1, num_batches=0, seed=0)


def test_stores_of_two_sample_rates_are_refused(stores):
    speech, noise = stores
    other = AudioStore(noise.signals, noise.clips, [], 8000)
    with pytest.raises(ValueError, match=r"one sample rate. Received 16000 Hz and 8000 Hz"):
        training_pairs(speech, other, settings=SETTINGS, batch_size=1, seed=0)


def test_evaluation_clips_have_their_snr_and_level(stores):
    clips = evaluation_set(*stores, snrs_db=[-5.0, 5.0, 15.0], count=12, seed=0, level_dbfs=-30.0)
    assert [clip.snr_db for clip in clips] == [-5.0, 5.0, 15.0] * 4
    for clip in clips:
        noise = clip.noisy.astype(np.float64) - clip.speech
        voiced = clip.speech[clip.speech != 0]  # joined utterances have a pause of zeros
        snr_db = 10 * np.log10(np.mean(voiced.astype(np.float64) ** 2) / np.mean(noise**2))
        assert snr_db == pytest.approx(clip.snr_db, abs=0.15)
        assert 10 * np.log10(np.mean(clip.noisy**2)) == pytest.approx(-30.0, abs=0.01)


def test_every_noise_category_comes_once_before_one_comes_again(stores):
    clips = evaluation_set(*stores, snrs_db=[0.0, 10.0], count=12, seed=3)
    for snr_db in (0.0, 10.0):
        categories = [clip.noise_category for clip in clips if clip.snr_db == snr_db]
        assert sorted(categories[:3]) == sorted(categories[3:]) == ["rain", "siren", "wind"]


def test_evaluation_set_is_fixed_by_its_seed_and_names_are_unique(stores):
    sets = [evaluation_set(*stores, snrs_db=[0.0], count=9, seed=s) for s in (1, 1, 2)]
    assert all(
        a.name == b.name and np.array_equal(a.noisy, b.noisy)
        for a, b in zip(sets[0], sets[1], strict=True)
    )
    assert not all(np.array_equal(a.noisy, b.noisy) for a, b in zip(sets[0], sets[2], strict=True))
    assert len({clip.name for clip in sets[0]}) == 9


def test_utterances_are_whole_joined_to_four_seconds_and_at_most_ten(make_store):
    seconds = [1.0, 1.5, 2.0, 6.0, 12.0]
    signals = [0.1 * np.sin(np.arange(round(s * 16000)) * 0.1) for s in seconds]
    speech = make_store(signals, ["a"] * 5)
    noise = make_store([0.01 * np.random.default_rng(0).uniform(-1, 1, 16000)])
    clips = evaluation_set(speech, noise, snrs_db=[0.0], count=4, seed=0)
    lengths = {clip.speech.size / 16000 for clip in clips}
    assert max(lengths) <= 10.0
    # 1 + 1.5 + 2 + 6 = 10.5 s and a pause of 0.1 s at each joint; the 12 s are left out.
    assert 10.5 < sum(lengths) < 10.9


def test_evaluation_set_refuses_speech_that_is_too_long(make_store, stores):
    speech = make_store([0.1 * np.ones(11 * 16000)])
    with pytest.raises(ValueError, match=r"at most 10 s. Received 1 clips, all longer"):
        evaluation_set(speech, stores[1], snrs_db=[0.0], count=1, seed=0)


@pytest.mark.parametrize(("snrs_db", "count"), [([], 3), ([0.0], 0)])
def test_evaluation_set_refuses_to_be_empty(stores, snrs_db, count):
    with pytest.raises(ValueError, match="`count` must be at least 1"):
        evaluation_set(*stores, snrs_db=snrs_db, count=count, seed=0)


@pytest.fixture
def write_benchmark(tmp_path):
    def write(noisy, clean, sample_rate_hz=16000, columns=("noisy", "clean")):
        soundfile.write(tmp_path / "n.flac", noisy, sample_rate_hz)
        soundfile.write(tmp_path / "c.flac", clean, sample_rate_hz)
        with (tmp_path / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [[*columns, "nearest_nominal_snr_db"], ["n.flac", "c.flac", "7.5"]]
            )
        return tmp_path

    return write


def test_benchmark_clips_are_read_as_they_are(write_benchmark):
    noisy, clean = np.linspace(-0.5, 0.5, 800), np.linspace(0.0, 0.25, 800)
    (clip,) = benchmark_set(write_benchmark(noisy, clean))
    assert (clip.name, clip.snr_db) == ("n", 7.5)
    assert clip.noisy == pytest.approx(noisy, abs=1 / 32768)
    assert clip.speech == pytest.approx(clean, abs=1 / 32768)


def test_benchmark_without_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold a manifest.csv"):
        benchmark_set(tmp_path)


def test_benchmark_with_a_missing_column_is_named(write_benchmark):
    folder = write_benchmark(np.zeros(9), np.zeros(9), columns=("noisy", "tidy"))
    with pytest.raises(ValueError, match="must have the columns clean, nearest"):
        benchmark_set(folder)


def test_benchmark_pair_of_unequal_lengths_is_named(write_benchmark):
    with pytest.raises(ValueError, match=r"Received 900 and 800 samples for n.flac"):
        benchmark_set(write_benchmark(np.full(900, 0.1), np.full(800, 0.1)))


def test_benchmark_of_another_rate_is_refused(write_benchmark):
    with pytest.raises(ValueError, match=r"16000 Hz. Received 48000 Hz"):
        benchmark_set(write_benchmark(*[np.full(4800, 0.1)] * 2, sample_rate_hz=48000))


def test_benchmark_with_a_missing_file_is_named(write_benchmark):
    folder = write_benchmark(np.full(900, 0.1), np.full(900, 0.1))
    (folder / "c.flac").unlink()
    with pytest.raises(FileNotFoundError, match=r"Received no file .*c\.flac"):
        benchmark_set(folder)


def test_shared_benchmark_measures_the_snr_that_its_readme_states(shared_data):
    clips = benchmark_set(shared_data / "benchmark" / "vbdemand96")
    assert len(clips) == 96
    # README: noisy SI-SDR of the 46 pairs at 2.5 dB is 1.07 dB on average.
    hard = [clip for clip in clips if clip.snr_db == 2.5]
    scores = []
    for clip in hard:
        clean, noisy = (s.astype(np.float64) - s.mean() for s in (clip.speech, clip.noisy))
        target = clean * (clean @ noisy) / (clean @ clean)
        scores.append(10 * np.log10(np.sum(target**2) / np.sum((noisy - target) ** 2)))
    assert len(hard) == 46
    assert np.mean(scores) == pytest.approx(1.07, abs=0.01)


def test_shared_test_split_makes_an_evaluation_set_of_whole_utterances(shared_data):
    corpus = read_folder(shared_data)
    speech, noise = (load_store(part("test")) for part in (corpus.speech_in, corpus.noise_in))
    clips = evaluation_set(speech, noise, snrs_db=[-5, 0, 5, 10, 15], count=50, seed=0)
    assert len({clip.noise_category for clip in clips}) >= 20
    lengths = np.array([clip.speech.size for clip in clips]) / 16000
    assert np.median(lengths) > 4.0
    assert lengths.max() <= 10.0
