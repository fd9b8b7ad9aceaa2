# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from lmkd_tf.data.mixing import (
    MixSettings,
    clip_peaks,
    draw_babble,
    draw_noise,
    draw_noise_clip,
    draw_speech,
    limit_band,
    loop_clip,
    noise_pool,
    speech_pool,
    tilt_spectrum,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def white(seed, num_samples, scale=0.1):
    return scale * np.random.default_rng(seed).uniform(-1, 1, num_samples)


def constant(value, num_samples):
    return np.full(num_samples, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_seconds": 0.0}, "`crop_seconds` must be at least 0.1 s"),
        ({"snr_min_db": 21.0}, "SNR range must not be empty"),
        ({"level_min_dbfs": -10.0}, "level range must not be empty"),
        ({"level_max_dbfs": 1.0}, "end at 0 dBFS or below"),
        ({"peak_limit": 1.5}, r"`peak_limit` must be in \(0, 1\]"),
        ({"tilt_max_db": -1.0}, "`tilt_max_db` must not be negative"),
        ({"babble_probability": 1.5}, r"`babble_probability` must be in \[0, 1\]. Received"),
        ({"room_probability": -0.1}, r"`room_probability` must be in \[0, 1\]"),
        ({"max_noises": 1}, "`max_noises` must be at least 2"),
        ({"early_ms": -1.0}, "`early_ms` must not be negative"),
        ({"clip_max_db": 0.0}, "`clip_max_db` must be above 0 dB"),
        ({"band_limits_hz": ()}, "`band_limits_hz` must hold frequencies"),
        ({"codec_probability": 2.0}, r"`codec_probability` must be in \[0, 1\]"),
        ({"speeds": ()}, r"`speeds` must hold factors from 0\.5 to 2"),
        ({"speeds": (1.0, 2.5)}, r"`speeds` must hold factors from 0\.5 to 2"),
        ({"noise_speeds": ()}, r"`noise_speeds` must hold factors from 0\.5 to 2"),
        ({"noise_speeds": (0.4, 1.0)}, r"`noise_speeds` must hold factors from 0\.5 to 2"),
        ({"codecs": ("mp3",)}, "`codecs` must hold names out of ulaw, vorbis, opus"),
        ({"speech_level": "loud"}, "`speech_level` must be one of frames, p56"),
        ({"sampling": "all"}, "`sampling` must be one of random, epochs"),
    ],
)
def test_mix_settings_refuse_what_is_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        MixSettings(**change)


def test_loop_clip_within_the_clip_is_a_plain_cut():
    signal = np.arange(1000, dtype=np.int16)
    assert (loop_clip(signal, 100, 900) * 32768).tolist() == list(range(100, 1000))


@pytest.mark.parametrize("offset", [0, 1, 600, 799, 800, 801, 950, 999])
def test_loop_clip_repeats_with_equal_power_fades(offset):
    signal = np.random.default_rng(1).integers(-9000, 9000, 1000).astype(np.int16)
    # By hand: each copy starts 200 samples before the one before it ends.
    angle = 0.5 * np.pi * (np.arange(200) + 0.5) / 200
    fade_in = np.concatenate([np.sin(angle), np.ones(600), np.cos(angle)])
    first = np.concatenate([np.ones(800), np.cos(angle)])
    expected = np.zeros(6000)
    for copy in range(7):
        start = 800 * copy
        shaped = signal * (fade_in if copy else first)
        expected[start : start + 1000] += shaped[: max(0, min(1000, 6000 - start))]
    looped = loop_clip(signal, offset, 4000, fade_samples=200)
    assert looped * 32768 == pytest.approx(expected[offset : offset + 4000], abs=0.01)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_loop_clip_copes_with_tiny_clips(length):
    looped = loop_clip(np.full(length, 1000, dtype=np.int16), length - 1, 50)
    assert looped.shape == (50,)
    assert np.all(looped > 0)


def test_looping_white_noise_keeps_its_power():
    signal = (white(0, 8000) * 32767).astype(np.int16)
    looped = loop_clip(signal, 4000, 64000)
    power_db = 10 * np.log10(np.mean(looped**2) / np.mean((signal / 32768.0) ** 2))
    assert power_db == pytest.approx(0.0, abs=0.2)


def test_a_pause_of_a_noise_is_not_blown_up(make_store, rng):
    # Half a second above zero, then 9.5 s 50 dB below it and below zero: a plain draw of this
    # clip, every second one, would hit the pause alone in 9 of 10 cases (45 % of all).
    bark = np.concatenate([constant(0.5, 8000), constant(-0.0016, 152000)])
    pool = noise_pool(make_store([bark, white(2, 160000)], categories=["dog", "rain"]))
    draws = [draw_noise_clip(rng, pool, 16000) for _ in range(200)]
    # All five draws of one noise are pauses in 0.45**5 = 2 % of the cases.
    assert sum(draw.mean() < -0.01 for draw in draws) <= 12


def test_rare_noise_categories_are_favored(make_store, rng):
    # 15 clips of rain, one of siren: by the square root sirens come 1 / (1 + sqrt(15)) = 20.5 %.
    signals = [white(seed, 16000) for seed in range(16)]
    pool = noise_pool(make_store(signals, categories=["rain"] * 15 + ["siren"]))
    assert 1 - pool.cumulative[14] == pytest.approx(0.205, abs=0.001)


def test_every_second_of_speech_is_equally_likely(make_store):
    pool = speech_pool(make_store([white(0, 30000), white(1, 10000)]))
    assert pool.cumulative == pytest.approx([0.75, 1.0])


def test_babble_leaves_the_talker_out(make_store, rng):
    # The talker is a constant, the others are noise without a mean.
    pool = speech_pool(
        make_store([constant(0.5, 90000), white(0, 9000), white(1, 9000)], ["anna", "ben", "cleo"])
    )
    babbles = [draw_babble(rng, pool, 8000, "anna") for _ in range(20)]
    assert max(abs(babble.mean()) for babble in babbles) < 0.005
    assert any(babble.any() for babble in babbles)


def test_babble_of_a_lone_talker_is_replaced_by_a_recording(make_store, rng):
    voices = speech_pool(make_store([white(0, 20000)], ["anna"]))
    noises = noise_pool(make_store([white(1, 20000)]))
    settings = MixSettings(crop_seconds=1.0, babble_probability=1.0)
    assert not draw_babble(rng, voices, 16000, "anna").any()
    assert draw_noise(rng, noises, voices, "anna", settings).std() > 0.01


@pytest.mark.parametrize("kind", ["babble_probability", "two_noises_probability"])
def test_draw_noise_makes_each_kind_at_full_length(make_store, rng, kind):
    none = MixSettings(
        crop_seconds=1.5,
        babble_probability=0.0,
        two_noises_probability=0.0,
        tilt_probability=1.0,
    )
    voices = speech_pool(make_store([white(0, 20000), white(1, 20000)], ["anna", "ben"]))
    noises = noise_pool(make_store([white(2, 9000), white(3, 50000)]))
    noise = draw_noise(rng, noises, voices, "anna", replace(none, **{kind: 1.0}))
    assert noise.shape == (24000,)
    assert noise.dtype == np.float32
    assert noise.std() > 0.01


@pytest.mark.parametrize("tilt_db", [-6.0, 6.0])
def test_tilt_raises_one_end_as_much_as_it_lowers_the_other(tilt_db):
    impulse = np.zeros(16000, dtype=np.float32)
    impulse[0] = 1.0
    response_db = 20 * np.log10(np.abs(np.fft.rfft(tilt_spectrum(impulse, tilt_db, 16000))))
    assert response_db[[0, 1000, 8000]] == pytest.approx([-tilt_db / 2, 0, tilt_db / 2], abs=0.02)


def test_speech_crop_of_a_long_clip_is_an_exact_excerpt(make_store, rng):
    signal = np.arange(20000) / 32767
    pool = speech_pool(make_store([signal]))
    settings = MixSettings(crop_seconds=0.5, partial_silence_probability=0.0)
    crop, talker = draw_speech(rng, pool, settings)
    start = round(float(crop[0]) * 32768)
    assert (crop * 32768).tolist() == list(range(start, start + 8000))
    assert talker == "group_0"


def test_short_clips_are_followed_by_clips_of_the_same_speaker_only(make_store, rng):
    signals = [constant(0.1, 9000), constant(0.2, 9000), constant(0.7, 9000)]
    pool = speech_pool(make_store(signals, ["anna", "anna", "ben"]))
    settings = MixSettings(crop_seconds=1.0, partial_silence_probability=0.0)
    for _ in range(20):
        crop, talker = draw_speech(rng, pool, settings)
        levels = {round(float(value), 2) for value in (crop[4000], crop[15000])}
        if talker == "anna":
            assert levels == {0.1, 0.2}
        assert 0.7 not in levels or talker == "ben"


def test_a_lone_short_clip_lies_at_a_random_place_between_zeros(make_store, rng):
    pool = speech_pool(make_store([constant(0.5, 4000)]))
    settings = MixSettings(crop_seconds=1.0, partial_silence_probability=0.0)
    starts = set()
    for _ in range(10):
        crop, _ = draw_speech(rng, pool, settings)
        place = np.flatnonzero(crop)
        assert 3998 >= place[-1] - place[0] + 1 >= 3990  # fades begin and end at zero
        starts.add(int(place[0]))
    assert len(starts) > 5


def test_partly_silent_crops_hold_less_speech_than_the_crop(make_store, rng):
    pool = speech_pool(make_store([constant(0.5, 64000)]))
    settings = MixSettings(crop_seconds=1.0, partial_silence_probability=1.0)
    shares = [np.mean(draw_speech(rng, pool, settings)[0] != 0) for _ in range(50)]
    assert 0.29 < min(shares) < max(shares) < 0.86


def test_a_sum_of_noises_holds_up_to_the_number_allowed(make_store, rng):
    # Each recording is a tone of its own; a line in the spectrum tells that it is in the sum.
    tones = [
        0.1 * np.sin(2 * np.pi * hz * np.arange(20000) / 16000) for hz in (500, 1500, 2500, 3500)
    ]
    noises = noise_pool(make_store(tones))
    voices = speech_pool(make_store([white(0, 20000)]))
    settings = MixSettings(
        crop_seconds=1.0,
        babble_probability=0.0,
        two_noises_probability=1.0,
        tilt_probability=0.0,
        max_noises=4,
    )
    counts = []
    for _ in range(60):
        noise = draw_noise(rng, noises, voices, "nobody", settings)
        lines = np.abs(np.fft.rfft(noise))[[500, 1500, 2500, 3500]] / 8000
        counts.append(int(np.sum(lines > 0.005)))
    assert max(counts) == 4
    assert 2 in counts


@pytest.mark.parametrize("depth_db", [3.0, 12.0])
def test_clipping_cuts_at_its_depth_below_the_peak(depth_db):
    tone = (0.8 * np.sin(np.arange(16000) * 0.01)).astype(np.float32)
    clipped = clip_peaks(tone, depth_db)
    limit = 0.8 * 10 ** (-depth_db / 20)
    assert np.abs(clipped).max() == pytest.approx(limit, rel=1e-4)
    untouched = np.abs(tone) < 0.99 * limit
    assert np.array_equal(clipped[untouched], tone[untouched])
    # A sine is beyond a limit c for a share of 1 - 2/pi asin(c) of the time.
    share = 1 - 2 / np.pi * np.arcsin(10 ** (-depth_db / 20))
    assert np.mean(np.abs(clipped) >= 0.999 * limit) == pytest.approx(share, abs=0.02)


def test_band_limit_halves_the_power_at_its_frequency_and_takes_away_what_is_above():
    impulse = np.zeros((2, 16000), dtype=np.float32)
    impulse[:, 0] = 1.0
    response_db = 20 * np.log10(np.abs(np.fft.rfft(limit_band(impulse, 4000.0, 16000)[1])) + 1e-9)
    assert response_db[4000] == pytest.approx(-3.01, abs=0.05)
    assert response_db[1000] == pytest.approx(0.0, abs=0.01)
    # Butterworth of order 8 through the bilinear transform, by hand at 6 kHz:
    ratio = np.tan(np.pi * 6 / 16) / np.tan(np.pi * 4 / 16)
    assert response_db[6000] == pytest.approx(-10 * np.log10(1 + ratio**16), abs=0.1)


def test_band_limit_above_half_the_rate_changes_nothing():
    samples = white(0, 1000).astype(np.float32)
    assert np.array_equal(limit_band(samples, 8000.0, 16000), samples)
