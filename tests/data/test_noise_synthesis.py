# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.signal import welch

from lmkd_tf.data.noise_synthesis import SYNTHESIZERS, synthesize_babble

NAMES = sorted(SYNTHESIZERS)


def synthesize(name, seed, seconds=4.0):
    return SYNTHESIZERS[name](np.random.default_rng(seed), round(seconds * 16000), 16000)


def share_of_power(samples, low_hz, high_hz):
    frequencies, power = welch(samples, 16000, nperseg=1024)
    return power[(frequencies >= low_hz) & (frequencies < high_hz)].sum() / power.sum()


def level_spread_db(samples):
    frames = samples[: samples.size // 800 * 800].reshape(-1, 800)
    low, high = np.percentile(np.sqrt(np.mean(frames**2, axis=1)), [5, 95])
    return 20 * np.log10(high / low)


def test_there_are_eight_synthesizers_and_babble():
    assert len(NAMES) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_leveled_float32_without_offset_or_clipping(name):
    noise = synthesize(name, 0)
    assert noise.dtype == np.float32
    assert noise.shape == (64000,)
    assert np.isfinite(noise).all()
    assert abs(noise.mean()) < 1e-4
    peak, level_dbfs = np.abs(noise).max(), 20 * np.log10(noise.std())
    assert peak <= 0.9001
    # Either at the level or, where clicks are high over it, at the peak limit.
    assert level_dbfs == pytest.approx(-26.0, abs=0.01) or peak == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_noise_repeats_with_its_seed_and_differs_from_seed_to_seed(name):
    assert np.array_equal(synthesize(name, 3), synthesize(name, 3))
    assert abs(np.corrcoef(synthesize(name, 3), synthesize(name, 4))[0, 1]) < 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_samples", [800, 16001])
def test_noise_of_any_length_can_be_made(name, num_samples):
    noise = SYNTHESIZERS[name](np.random.default_rng(0), num_samples, 16000)
    assert noise.shape == (num_samples,)
    assert noise.any()


@pytest.mark.parametrize(
    ("name", "low_hz", "high_hz", "least_share"),
    [
        ("fan_hum", 0, 1500, 0.7),
        ("traffic", 0, 2000, 0.7),
        ("rain", 700, 8000, 0.7),
        ("wind", 0, 500, 0.8),
        ("siren", 300, 4000, 0.6),
        ("engine", 0, 3000, 0.7),
        ("dishes", 350, 8000, 0.8),
    ],
)
def test_power_lies_where_the_real_thing_has_it(name, low_hz, high_hz, least_share):
    shares = [share_of_power(synthesize(name, seed), low_hz, high_hz) for seed in range(3)]
    assert min(shares) > least_share


@pytest.mark.parametrize(("name", "least_db"), [("keyboard", 15), ("dishes", 12), ("wind", 5)])
def test_unsteady_noises_change_over_time(name, least_db):
    assert min(level_spread_db(synthesize(name, seed)) for seed in range(3)) > least_db


def test_colored_noise_has_slopes_of_many_kinds():
    shares = [share_of_power(synthesize("colored_noise", seed), 2000, 8000) for seed in range(12)]
    assert min(shares) < 0.1
    assert max(shares) > 0.4


def test_babble_is_a_leveled_sum_of_all_voices():
    time = np.arange(32000) / 16000
    voices = [np.sin(2 * np.pi * hz * time) for hz in (300.0, 700.0, 1500.0)]
    babble = synthesize_babble(np.random.default_rng(0), 48000, 16000, voices)
    assert babble.shape == (48000,)
    assert 20 * np.log10(babble.std()) == pytest.approx(-26.0, abs=0.01)
    for hz in (300.0, 700.0, 1500.0):
        assert share_of_power(babble, hz - 40, hz + 40) > 0.05
