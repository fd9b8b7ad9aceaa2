# SPDX-License-Identifier: Apache-2.0
"""Mixing on the accelerator against `PairSource`, which mixes by numpy and scipy."""

import numpy as np
import pytest

from lmkd_tf.data import accelerator
from lmkd_tf.data.accelerator import AcceleratorSource, put_audio
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.data.pipeline import PairSource
from lmkd_tf.data.rooms import RoomPool

PLAIN = {
    "crop_seconds": 0.5,
    "partial_silence_probability": 0.0,
    "two_noises_probability": 0.0,
    "babble_probability": 0.0,
    "tilt_probability": 0.0,
}


def _burst(rng, num_samples):
    """Noise that comes and goes, with a pause that a noise must not be drawn from."""
    envelope = np.abs(np.sin(np.arange(num_samples) * 3e-4)) ** 8
    return rng.normal(0.0, 0.1, num_samples) * envelope


@pytest.fixture
def source_of(make_store):
    """Function from settings to a source of short and long clips, some of one speaker."""
    rng = np.random.default_rng(3)
    speech = [_burst(rng, size) for size in (20000, 3000, 2500, 12000, 2000, 15000)]
    noise = [_burst(rng, size) for size in (30000, 900, 5000, 41000)]
    response = (rng.normal(size=3000) * np.exp(-np.arange(3000) / 400)).astype(np.float32)
    response[0] = 1.0

    def make(batch_size=6, **settings):
        return PairSource(
            make_store(speech, ["a", "b", "b", "a", "b", "c"]),
            make_store(noise),
            MixSettings(**{**PLAIN, **settings}),
            batch_size,
            seed=5,
            rooms=RoomPool([response, response[:1000]], 16000),
        )

    return make


def _assert_same(source, tolerance, batches=3):
    on_accelerator = AcceleratorSource(source)
    for number in range(batches):
        wanted, found = source.batch(number), on_accelerator.batch(number)
        for signal, other in zip(wanted, found, strict=True):
            assert signal.shape == other.shape
            np.testing.assert_allclose(np.asarray(other), signal, atol=tolerance)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"partial_silence_probability": 1.0},
        {"two_noises_probability": 1.0, "max_noises": 4},
        {"babble_probability": 1.0},
        {"noise_speeds": (0.8, 1.25)},
        {"tilt_probability": 1.0, "speech_tilt_probability": 0.5},
        {"room_tone_probability": 0.7},
        {"room_probability": 0.5},
        {"band_limit_probability": 0.7},
        {"clip_probability": 0.5},
        {"sampling": "epochs"},
        {"level_min_dbfs": -1.0, "level_max_dbfs": -0.5},
    ],
    ids=lambda settings: "_".join(settings) or "plain",
)
def test_the_same_seed_gives_the_same_pairs(source_of, settings):
    _assert_same(source_of(**settings), 2e-5)


def test_all_together_are_the_same_pairs_too(source_of):
    names = (
        *("partial_silence", "two_noises", "tilt", "speech_tilt"),
        *("room", "room_tone", "band_limit", "clip"),
    )
    settings = {f"{name}_probability": 0.5 for name in names}
    _assert_same(source_of(**settings, babble_probability=0.2), 5e-5, batches=6)


def test_companding_is_the_same_but_where_rounding_decides(source_of):
    source = source_of(codec_probability=1.0, codecs=("ulaw",))
    wanted, found = source.batch(0), AcceleratorSource(source).batch(0)
    for signal, other in zip(wanted, found, strict=True):
        differs = np.abs(np.asarray(other) - signal) > 2e-5
        assert differs.mean() < 1e-3


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_another_speed_is_the_same_but_for_the_resampling_filter(source_of, speed):
    """They differ in the highest octave and at the ends of the crop."""
    source = source_of(speed_probability=0.5, speeds=(speed,), snr_min_db=60.0, snr_max_db=60.0)
    wanted, found = source.batch(1), AcceleratorSource(source).batch(1)
    for signal, other in zip(wanted, found, strict=True):
        cut = slice(200, -200)
        spectra = [np.fft.rfft(np.asarray(x)[:, cut].astype(np.float64)) for x in (signal, other)]
        low = [spectrum[:, : spectrum.shape[1] // 2] for spectrum in spectra]
        error_db = 10 * np.log10(np.sum(np.abs(low[0] - low[1]) ** 2) / np.sum(np.abs(low[0]) ** 2))
        assert error_db < -35.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speech_level": "p56"}, r"`speech_level` must be 'frames'\. Received 'p56'\. Set it"),
        ({"codec_probability": 0.1}, r"`codecs` must be 'ulaw' alone\. Received \('ulaw', 'vor"),
    ],
)
def test_what_cannot_be_mixed_there_is_refused(source_of, settings, message):
    with pytest.raises(ValueError, match=message):
        AcceleratorSource(source_of(**settings))


def test_more_audio_than_indices_reach_is_refused(source_of, monkeypatch):
    monkeypatch.setattr(accelerator, "_MAX_SAMPLES", 1000)
    with pytest.raises(ValueError, match=r"At most 1000 samples fit.*Received \d+\. Train"):
        put_audio(source_of())
