# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.data.epochs import EpochOrder, permute
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import PairSource


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000])
def test_permutation_visits_every_index_once(size):
    assert sorted(permute(i, size, b"key") for i in range(size)) == list(range(size))


def test_permutation_depends_on_its_key_and_looks_random():
    orders = [[permute(i, 500, key) for i in range(500)] for key in (b"a", b"b")]
    assert orders[0] != orders[1]
    # The correlation of random ranks has a standard deviation of 1 / sqrt(499) = 0.045.
    assert abs(np.corrcoef(orders[0], np.arange(500))[0, 1]) < 0.15
    assert abs(np.corrcoef(orders[0], orders[1])[0, 1]) < 0.15


def test_an_epoch_visits_every_part_of_every_clip_once():
    order = EpochOrder(np.array([100, 350, 99, 1000]), 100, seed=0)
    assert order.epoch_length == 1 + 3 + 1 + 10
    for epoch in (0, 1, 7):
        places = [order.place(epoch * 15 + step) for step in range(15)]
        assert sorted((p.clip, p.part, p.num_parts) for p in places) == sorted(
            (clip, part, parts) for clip, parts in enumerate((1, 3, 1, 10)) for part in range(parts)
        )


def test_epochs_have_orders_of_their_own():
    order = EpochOrder(np.full(50, 100), 100, seed=0)
    first, second = ([order.place(50 * e + i).clip for i in range(50)] for e in (0, 1))
    assert first != second


def test_crops_of_an_epoch_cover_all_speech(make_store):
    # Sample n has the value n, so a crop tells where it lies.
    speech = make_store([np.arange(16000) / 32767])
    noise = make_store([0.0001 * np.ones(8000)])
    settings = MixSettings(crop_seconds=0.1, partial_silence_probability=0.0, sampling="epochs")
    source = PairSource(speech, noise, settings, 1, 0)
    assert source.epoch_length == 10
    starts = []
    for index in range(10):
        _, _, clean = source.batch(index)
        steps = np.diff(clean[0])
        starts.append(clean[0, 0] / steps.mean())
    # One crop begins in each tenth of the 14401 places where one can.
    assert sorted(int(start * 10 // 14401) for start in starts) == list(range(10))


def test_a_run_resumed_in_mid_epoch_goes_on_as_if_never_interrupted(make_store):
    speech = make_store([0.1 * np.sin(np.arange(20000) * step) for step in (0.1, 0.2, 0.3)])
    noise = make_store([0.01 * np.random.default_rng(0).uniform(-1, 1, 9000)])
    settings = MixSettings(crop_seconds=0.25, sampling="epochs")
    whole, resumed = (PairSource(speech, noise, settings, 4, 3) for _ in range(2))
    expected = [whole.batch(index) for index in range(9)]
    for index in (5, 8):
        for one, other in zip(expected[index], resumed.batch(index), strict=True):
            assert np.array_equal(one, other)
