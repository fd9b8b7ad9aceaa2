# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lmkd_tf.data.effects import compand
from lmkd_tf.data.mixing import MixSettings, noise_pool, speech_pool
from lmkd_tf.data.pairing import draw_pair, mix_pair
from lmkd_tf.data.rooms import RoomPool


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def speech():
    time = np.arange(16000) / 16000
    return (0.05 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)  # no pauses: power 0.00125


@pytest.fixture
def noises(rng):
    return (3.0 * rng.standard_normal((2, 16000))).astype(np.float32)


def power(samples):
    return np.mean(samples.astype(np.float64) ** 2)


def test_the_snr_of_each_view_is_the_one_asked_for(speech, noises):
    views, clean = mix_pair(speech, noises, np.array([-5.0, 12.0]), -30.0)
    measured = [10 * np.log10(power(clean) / power(view - clean)) for view in views]
    assert measured == pytest.approx([-5.0, 12.0], abs=0.01)


def test_one_gain_serves_both_views_and_the_speech(speech, noises):
    views, clean = mix_pair(speech, noises, np.array([0.0, 10.0]), -25.0)
    gain = np.dot(clean, speech) / np.dot(speech, speech)
    assert clean == pytest.approx(gain * speech, abs=1e-7)
    for view, noise, snr_db in zip(views, noises, (0.0, 10.0), strict=True):
        noise_gain = np.sqrt(0.00125 / power(noise) * 10 ** (-snr_db / 10))
        # What is left after the speech is the noise alone, at the gain of the speech.
        assert view - clean == pytest.approx(gain * noise_gain * noise, abs=2e-5)


def test_the_views_have_the_level_asked_for(speech, noises):
    views, _ = mix_pair(speech, noises, np.array([0.0, 3.0]), -31.0)
    assert 10 * np.log10(power(views)) == pytest.approx(-31.0, abs=0.01)


def test_peaks_lower_the_common_gain_and_nothing_is_clipped(speech, noises):
    noises[1, 77] = 300.0
    views, clean = mix_pair(speech, noises, np.array([20.0, 0.0]), -3.0)
    peak = max(np.abs(views).max(), np.abs(clean).max())
    assert 0.98 < peak <= 0.99
    assert 10 * np.log10(power(clean) / power(views[1] - clean)) == pytest.approx(0.0, abs=0.01)


def test_a_view_may_be_quieter_than_its_speech_and_the_speech_is_protected_too(speech):
    # Noise that cancels the speech: only the clean signal peaks.
    views, clean = mix_pair(speech, -speech[np.newaxis] * 0.999, np.array([0.0]), -6.0)
    assert np.abs(views).max() < 0.01
    assert np.abs(clean).max() <= 0.99


def test_a_crop_without_speech_still_gets_noise_at_the_level(noises):
    views, clean = mix_pair(np.zeros(16000, np.float32), noises, np.array([0.0, 0.0]), -30.0)
    assert not clean.any()
    assert 10 * np.log10(power(views)) == pytest.approx(-30.0, abs=0.01)


def test_all_silence_stays_silence():
    zeros = np.zeros(1600, np.float32)
    views, clean = mix_pair(zeros, np.stack([zeros, zeros]), np.array([0.0, 5.0]), -20.0)
    assert not views.any()
    assert not clean.any()


@pytest.mark.parametrize(("shape", "num_snrs"), [((2, 15999), 2), ((2, 16000), 1), ((16000,), 2)])
def test_shapes_that_do_not_fit_are_refused(speech, shape, num_snrs):
    with pytest.raises(ValueError, match=r"must have shapes \(N,\), \(V, N\) and \(V,\). Received"):
        mix_pair(speech, np.zeros(shape, np.float32), np.zeros(num_snrs), -20.0)


@pytest.fixture
def pools(make_store):
    voices = [0.2 * np.sin(np.arange(40000) * step) for step in (0.05, 0.11, 0.17)]
    noise = [0.003 * np.random.default_rng(seed).uniform(-1, 1, 30000) for seed in range(4)]
    return speech_pool(make_store(voices, ["a", "b", "c"])), noise_pool(make_store(noise))


def test_a_pair_shares_its_speech_and_has_two_different_noises(pools, rng):
    settings = MixSettings(crop_seconds=1.0, babble_probability=0.0)
    for _ in range(20):
        first, second, speech = draw_pair(rng, pools[0], pools[1], settings)
        noise = np.stack([first - speech, second - speech])
        assert abs(np.corrcoef(noise)[0, 1]) < 0.2
        assert abs(np.corrcoef(speech, noise[0])[0, 1]) < 0.2


def test_snrs_and_levels_fill_their_ranges(pools, rng):
    settings = MixSettings(
        crop_seconds=1.0, partial_silence_probability=0.0, babble_probability=0.0
    )
    pairs = [draw_pair(rng, pools[0], pools[1], settings) for _ in range(150)]
    snrs_db = [10 * np.log10(power(s) / power(v - s)) for a, b, s in pairs for v in (a, b)]
    levels = [10 * np.log10((power(a) + power(b)) / 2) for a, b, _ in pairs]
    assert -5.1 < min(snrs_db) < -4 < 19 < max(snrs_db) < 20.1
    assert -40.1 < min(levels) < -38 < -14 < max(levels) < -11.9


def test_equal_generators_give_equal_pairs(pools):
    draws = [
        draw_pair(np.random.default_rng(7), pools[0], pools[1], MixSettings()) for _ in range(2)
    ]
    assert all(np.array_equal(*signals) for signals in zip(*draws, strict=True))


@pytest.fixture
def rooms():
    response = np.zeros(8000, dtype=np.float32)
    response[[0, 400, 4000]] = [1.0, 0.5, 0.3]  # direct, 25 ms, 250 ms
    return RoomPool([response], 16000)


def test_target_is_the_early_part_and_the_views_hold_all_of_it(rng, pools, rooms):
    settings = MixSettings(snr_min_db=60.0, snr_max_db=60.0, room_probability=1.0)
    first, second, clean = draw_pair(
        np.random.default_rng(1), pools[0], pools[1], settings, rooms=rooms
    )
    _, _, dry = draw_pair(np.random.default_rng(1), pools[0], pools[1], settings)
    # By hand: dry speech, its echo after 400 samples, and in the views one more after 4000.
    early = dry.astype(np.float64)
    early[400:] += 0.5 * dry[:-400]
    heard = early.copy()
    heard[4000:] += 0.3 * dry[:-4000]
    gain = np.dot(clean, early) / np.dot(early, early)
    assert clean == pytest.approx(gain * early, abs=1e-5)
    for view in (first, second):
        noise_db = 10 * np.log10(power(view - gain * heard) / power(gain * heard))
        assert noise_db == pytest.approx(-60.0, abs=3.0)


def test_an_effect_that_is_switched_on_leaves_the_other_draws_as_they_were(pools):
    plain = draw_pair(np.random.default_rng(4), pools[0], pools[1], MixSettings())
    clipped = draw_pair(
        np.random.default_rng(4), pools[0], pools[1], MixSettings(clip_probability=1.0)
    )
    assert np.array_equal(plain[2], clipped[2])
    for view, cut in zip(plain[:2], clipped[:2], strict=True):
        limit = np.abs(cut).max()
        assert np.array_equal(np.clip(view, -limit, limit), cut)
        assert limit < np.abs(view).max()


def test_band_limit_is_common_to_the_views_and_the_target(pools):
    settings = MixSettings(band_limit_probability=1.0, band_limits_hz=(1000.0,))
    for signal in draw_pair(np.random.default_rng(4), pools[0], pools[1], settings):
        spectrum = np.abs(np.fft.rfft(signal.astype(np.float64))) ** 2
        above = round(2000 * signal.size / 16000)
        assert spectrum[above:].sum() < 1e-4 * spectrum.sum()


def test_a_codec_damages_the_views_and_leaves_the_target(pools):
    plain = draw_pair(np.random.default_rng(4), pools[0], pools[1], MixSettings())
    settings = MixSettings(codec_probability=1.0, codecs=("ulaw",))
    coded = draw_pair(np.random.default_rng(4), pools[0], pools[1], settings)
    assert np.array_equal(plain[2], coded[2])
    for view, heard in zip(plain[:2], coded[:2], strict=True):
        assert np.array_equal(compand(view), heard)
        assert not np.array_equal(view, heard)


def _treble_over_bass_db(samples):
    energies = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2
    places = np.arange(energies.size) / energies.size * 8000
    return 10 * np.log10(energies[places > 5000].mean() / energies[places < 200].mean())


def test_a_tilt_of_the_speech_is_common_to_the_views_and_the_target(make_store, pools):
    voices = [0.1 * np.random.default_rng(seed).normal(size=40000) for seed in range(2)]
    voices = speech_pool(make_store(voices, ["a", "b"]))
    plain = MixSettings(snr_min_db=60.0, snr_max_db=60.0)
    settings = replace(plain, speech_tilt_probability=1.0, tilt_max_db=12.0)
    tilts_db = []
    for seed in range(20):
        dry, wet = (
            draw_pair(np.random.default_rng(seed), voices, pools[1], chosen)
            for chosen in (plain, settings)
        )
        for view in wet[:2]:
            assert 10 * np.log10(power(view - wet[2]) / power(wet[2])) < -50.0
        tilts_db.append(_treble_over_bass_db(wet[2]) - _treble_over_bass_db(dry[2]))
    assert -12.5 < min(tilts_db) < -6.0 < 6.0 < max(tilts_db) < 12.5


def test_speech_of_another_speed_is_in_the_views_and_in_the_target(pools):
    settings = MixSettings(
        snr_min_db=60.0,
        snr_max_db=60.0,
        speed_probability=1.0,
        speeds=(1.25,),
        partial_silence_probability=0.0,
        crop_seconds=1.0,
    )
    steps = {0.05, 0.11, 0.17}  # radians per sample of the voices in the pools
    for seed in range(5):
        rng = np.random.default_rng(seed)
        first, second, clean = draw_pair(rng, pools[0], pools[1], settings)
        spectrum = np.abs(np.fft.rfft(clean.astype(np.float64)))
        step = 2 * np.pi * np.argmax(spectrum) / clean.size
        assert min(abs(step - 1.25 * other) for other in steps) < 4e-4
        for view in (first, second):
            assert 10 * np.log10(power(view - clean) / power(clean)) < -50.0


def test_room_tone_stays_in_the_target_as_far_below_the_speech_as_drawn(pools):
    snrs_db = []
    for seed in range(20):
        plain = MixSettings(snr_min_db=60.0, snr_max_db=60.0, partial_silence_probability=0.0)
        settings = replace(plain, room_tone_probability=1.0)
        dry, wet = (
            draw_pair(np.random.default_rng(seed), pools[0], pools[1], chosen)
            for chosen in (plain, settings)
        )
        for view in wet[:2]:
            assert 10 * np.log10(power(view - wet[2]) / power(wet[2])) < -50.0
        speech = dry[2] * np.vdot(dry[2], wet[2]) / np.vdot(dry[2], dry[2])
        snrs_db.append(10 * np.log10(power(speech) / power(wet[2] - speech)))
    assert 24.0 < min(snrs_db) < 30.0 < 40.0 < max(snrs_db) < 46.0


@pytest.mark.parametrize("name", ["speed", "speech_tilt", "room_tone", "codec"])
def test_later_effects_are_drawn_as_often_as_asked_for(pools, name):
    chosen: dict[str, Any] = {f"{name}_probability": 0.3}
    settings = MixSettings(crop_seconds=0.5, **chosen, speeds=(1.1,))
    plain = MixSettings(crop_seconds=0.5)
    changed = 0
    for seed in range(200):
        pairs = [
            draw_pair(np.random.default_rng(seed), pools[0], pools[1], chosen)
            for chosen in (settings, plain)
        ]
        changed += any(not np.array_equal(*signals) for signals in zip(*pairs, strict=True))
    # A share of 0.3 of 200, for codecs of either view: 3 standard deviations.
    share = 1.0 - 0.7**2 if name == "codec" else 0.3
    assert abs(changed - 200 * share) < 3 * np.sqrt(200 * share * (1 - share))


def test_snr_by_the_recommendation_is_the_one_asked_for(pools):
    from tests.dsp.test_level_p56 import reference_level

    settings = MixSettings(
        snr_min_db=5.0, snr_max_db=5.0, speech_level="p56", partial_silence_probability=1.0
    )
    first, _, clean = draw_pair(np.random.default_rng(2), pools[0], pools[1], settings)
    noise_dbfs = 10 * np.log10(power(first - clean))
    assert reference_level(clean, 16000) - noise_dbfs == pytest.approx(5.0, abs=0.02)


def test_pairs_with_every_effect_stay_within_full_scale(pools, rooms):
    names = ("room", "clip", "band_limit", "speed", "speech_tilt", "room_tone", "codec")
    certain: dict[str, Any] = {f"{name}_probability": 1.0 for name in names}
    settings = MixSettings(**certain)
    for seed in range(20):
        pair = draw_pair(np.random.default_rng(seed), pools[0], pools[1], settings, rooms=rooms)
        assert np.abs(pair).max() <= 1.0
        assert np.isfinite(pair).all()
