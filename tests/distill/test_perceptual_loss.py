# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
import soundfile
from scipy.stats import spearmanr

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.losses import SpeechLoss
from lmkd_tf.distill.perceptual_loss import (
    PesqShapedLoss,
    bark,
    hearing_threshold_db,
    pesq_shaped_disturbance,
)
from lmkd_tf.dsp.level import active_level_dbfs, gain_to_dbfs
from lmkd_tf.dsp.stft import inverse_stft, stft
from lmkd_tf.metrics.perceptual import pesq_wb
from lmkd_tf.metrics.si_sdr import si_sdr_db

FRAME = StftConfig()
NUM_SAMPLES = 48000
SNRS_DB = (-5, 0, 5, 10, 15, 20)


def synthetic(batch_size=3, num_samples=12000, seed=0):
    """Tone complexes that come and go, and a noisy version of each."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 16000
    tones = [
        np.sin(2 * np.pi * k * rng.uniform(110, 220, (batch_size, 1)) * time) for k in (1, 5, 9)
    ]
    speech = 0.05 * sum(tones) * (np.sin(2 * np.pi * 3 * time) > -0.3)
    noisy = speech + 0.02 * rng.normal(size=speech.shape)
    return speech.astype(np.float32), noisy.astype(np.float32)


# ---- independent computation, frame by frame in double precision


def powers_of(signal):
    hann = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512))
    num_hops = -(-len(signal) // 256)
    padded = np.zeros((num_hops + 2) * 256)
    padded[256 : 256 + len(signal)] = signal
    frames = [padded[t * 256 : t * 256 + 512] * hann for t in range(num_hops + 1)]
    return np.abs(np.fft.rfft(frames)) ** 2


def band_powers_of(signal):
    """Powers per Bark, (T, 45): the bins of 31.25 Hz are cut where half-Bark bands meet."""
    powers = powers_of(signal.astype(np.float64))
    in_speech_band = [f for f in range(257) if 350 <= 31.25 * f <= 3250]
    level = powers[:, in_speech_band].sum(axis=1).mean()
    powers = powers * 10**8.7 / max(level, 1e-4)
    edges = np.linspace(0, 7 * np.arcsinh(8000 / 650), 46)  # 22.6 Bark
    bands = np.zeros((len(powers), 45))
    for f in range(257):
        low, high = (7 * np.arcsinh(np.clip(31.25 * (f + d), 0, 8000) / 650) for d in (-0.5, 0.5))
        for band in range(45):
            overlap = min(high, edges[band + 1]) - max(low, edges[band])
            if overlap > 0:
                bands[:, band] += powers[:, f] * overlap / (high - low) / 0.5
    return bands


def threshold_of(frequency_hz):
    khz = max(frequency_hz, 20) / 1000
    level_db = 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + khz**4 / 1000
    return 10 ** (level_db / 10)


def loudness_of(power, threshold):
    def sone(p, p0):
        return (p0 / 0.5) ** 0.23 * ((0.5 + 0.5 * p / p0) ** 0.23 - 1)

    return 0.0 if power < threshold else sone(power, threshold) / sone(1e4, threshold_of(1000.0))


def audible(frame, thresholds):
    return 0.5 * sum(p for p, p0 in zip(frame, thresholds, strict=True) if p > p0)


def equalized(clean, found, thresholds):
    """Clean bands at the mean powers of the others, over the frames with speech."""
    spoken = [i for i, frame in enumerate(clean) if audible(frame, thresholds) > 1e7]
    gains = [
        (np.mean([found[i][e] for i in spoken]) + 1e3)
        / (np.mean([clean[i][e] for i in spoken]) + 1e3)
        for e in range(len(thresholds))
    ]
    return clean * np.clip(gains, 0.01, 100)


def smoothed_gains(clean, found, thresholds):
    gain, gains = 1.0, []
    for p, q in zip(clean, found, strict=True):
        ratio = (audible(p, thresholds) + 5e3) / (audible(q, thresholds) + 5e3)
        gain = 0.2 * gain + 0.8 * ratio
        gains.append(np.clip(gain, 3e-4, 5))
    return gains


def frame_disturbances(clean, found, thresholds):
    symmetric, asymmetric = [], []
    for p, q, p0 in zip(clean, found, thresholds, strict=True):
        a, b = loudness_of(p, p0), loudness_of(q, p0)
        difference = max(abs(a - b) - 0.25 * min(a, b), 0)
        factor = ((q + 50) / (p + 50)) ** 1.2
        symmetric.append(difference)
        asymmetric.append(difference * (min(factor, 12) if factor >= 3 else 0))
    weight = ((audible(clean, thresholds) + 1e5) / 1e7) ** 0.04
    total_bark = 22.5
    root = np.sqrt(np.mean(np.square(symmetric)))
    return total_bark * root / weight, total_bark * np.mean(asymmetric) / weight


def pooled(disturbances):
    """Exponent 6 in intervals of 20 frames every 10, the ends cut evenly; 2 over intervals."""
    limited = [d if d < 45 else 45 + 0.02 * (d - 45) for d in disturbances]
    num_intervals = -(-len(limited) // 10)
    start = -(max((num_intervals - 1) * 10 + 20 - len(limited), 0) // 2)
    intervals = []
    for i in range(num_intervals):
        cut = limited[max(start + 10 * i, 0) : start + 10 * i + 20]
        intervals.append(np.mean(np.power(cut, 6)) ** (1 / 6))
    return np.sqrt(np.mean(np.square(intervals)))


def expected_disturbance(speech, enhanced):
    edges = np.linspace(0, 7 * np.arcsinh(8000 / 650), 46)
    centers_hz = 650 * np.sinh((edges[1:] + edges[:-1]) / 2 / 7)
    thresholds = [threshold_of(center) for center in centers_hz]
    clean, found = band_powers_of(speech), band_powers_of(enhanced)
    clean = equalized(clean, found, thresholds)
    gains = smoothed_gains(clean, found, thresholds)
    frames = zip(clean, found * np.array(gains)[:, None], strict=True)
    both = np.array([frame_disturbances(p, q, thresholds) for p, q in frames])
    return 0.1 * pooled(both[:, 0]) + 0.0309 * pooled(both[:, 1])


@pytest.mark.parametrize("num_samples", [12000, 3000])
def test_disturbance_equals_the_formula_frame_by_frame(num_samples):
    speech, noisy = synthetic(2, num_samples)
    expected = [expected_disturbance(s, y) for s, y in zip(speech, noisy, strict=True)]
    np.testing.assert_allclose(pesq_shaped_disturbance(speech, noisy, FRAME), expected, rtol=5e-3)


# ---- the ear by hand


def test_bark_scale_by_hand():
    # asinh(1) = 0.881374, asinh(4) = 2.094713
    np.testing.assert_allclose(bark([0.0, 650.0, 2600.0]), [0.0, 6.169616, 14.662988], atol=1e-5)


def test_hearing_threshold_by_hand():
    # 1 kHz: 3.64 - 6.5 exp(-3.174) + 0.001 = 3.369; the ear is best near 3.3 kHz.
    assert hearing_threshold_db(1000.0) == pytest.approx(3.369, abs=2e-3)
    levels_db = hearing_threshold_db(np.arange(100.0, 8000.0, 10.0))
    assert 3000 < 100 + 10 * np.argmin(levels_db) < 3600


def test_added_noise_disturbs_more_than_the_same_noise_removed():
    speech, noisy = synthetic()
    added = np.asarray(pesq_shaped_disturbance(speech, noisy, FRAME))
    removed = np.asarray(pesq_shaped_disturbance(noisy, speech, FRAME))
    assert np.all(added > removed + 0.1)


def test_equal_signals_do_not_disturb():
    speech, _ = synthetic()
    np.testing.assert_allclose(
        pesq_shaped_disturbance(speech, speech, FRAME), np.zeros(3), atol=1e-6
    )


def test_the_level_of_the_enhanced_speech_does_not_matter():
    speech, noisy = synthetic()
    expected = np.asarray(pesq_shaped_disturbance(speech, noisy, FRAME))
    for gain in (0.1, 3.0):
        found = pesq_shaped_disturbance(speech, np.float32(gain) * noisy, FRAME)
        np.testing.assert_allclose(found, expected, rtol=1e-3)


# ---- gradients


@pytest.mark.parametrize("gains", [(1, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0), (1, 1e-6, 0)])
def test_gradients_of_equal_and_silent_signals_are_finite(gains, gradients_of):
    speech, noisy = synthetic()
    given = np.float32(gains[0]) * speech
    enhanced = np.float32(gains[1]) * speech + np.float32(gains[2]) * noisy
    value = np.asarray(pesq_shaped_disturbance(given, enhanced, FRAME))
    gradient = gradients_of(lambda y: pesq_shaped_disturbance(given, y, FRAME), enhanced)[0]
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))
    assert np.abs(gradient).max() < 1e5


def test_a_step_against_the_gradient_lowers_the_disturbance(gradients_of):
    speech, noisy = synthetic()
    before = np.asarray(pesq_shaped_disturbance(speech, noisy, FRAME))
    (gradient,) = gradients_of(lambda y: pesq_shaped_disturbance(speech, y, FRAME), noisy)
    step = (1e-4 * np.sign(gradient)).astype(np.float32)
    after = np.asarray(pesq_shaped_disturbance(speech, noisy - step, FRAME))
    assert np.all(after < before - 1e-3)


def test_half_precision_gives_the_value_of_float32():
    halves = [signal.astype(np.float16) for signal in synthetic()]
    speech, noisy = (half.astype(np.float32) for half in halves)
    expected = np.asarray(pesq_shaped_disturbance(speech, noisy, FRAME))
    found = pesq_shaped_disturbance(halves[0], halves[1], FRAME)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_compiled_graph_of_unknown_length_gives_the_same_value(compiled):
    speech, noisy = synthetic()
    expected = np.asarray(pesq_shaped_disturbance(speech, noisy, FRAME))
    found = compiled(lambda s, y: pesq_shaped_disturbance(s, y, FRAME), speech, noisy)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# ---- the loss


def test_loss_adds_the_weighted_disturbance_to_its_base():
    speech, noisy = synthetic()
    base = SpeechLoss()
    disturbance = np.asarray(pesq_shaped_disturbance(speech, noisy, FRAME))
    expected = np.asarray(base.call(speech, noisy)) + 0.25 * disturbance
    np.testing.assert_allclose(
        PesqShapedLoss(base, weight=0.25).call(speech, noisy), expected, rtol=1e-6
    )
    np.testing.assert_array_equal(PesqShapedLoss().call(speech, noisy), disturbance)


@pytest.mark.parametrize("base", [None, SpeechLoss(exponent=0.5, waveform_weight=1.0)])
def test_loss_survives_its_config_with_its_base(base):
    loss = PesqShapedLoss(base, 0.5, StftConfig(window_length=256, hop_length=128))
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(restored, PesqShapedLoss)
    assert restored.get_config() == loss.get_config()
    signals = synthetic()
    np.testing.assert_array_equal(restored.call(*signals), loss.call(*signals))


def test_a_model_trains_with_the_loss_and_its_file_keeps_it(tmp_path, seeded):
    del seeded
    layers = keras.layers
    filters = [layers.Reshape((-1, 1)), layers.Conv1D(1, 33, padding="same"), layers.Flatten()]
    model = keras.Sequential([keras.Input((4000,)), *filters])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=PesqShapedLoss(SpeechLoss()))
    speech, noisy = synthetic(4, 4000)
    losses = model.fit(noisy, speech, epochs=10, verbose="0").history["loss"]
    assert losses[-1] < losses[0] - 0.1
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    expected = model.evaluate(noisy, speech, verbose="0")
    assert restored.evaluate(noisy, speech, verbose="0") == pytest.approx(expected, rel=1e-5)


def test_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"must not be negative\. Received weight=-1\. Use the"):
        PesqShapedLoss(weight=-1)


# ---- real recordings


def recordings(folder, count, seed):
    """Test recordings of a folder, cut or looped to three seconds."""
    paths = sorted((folder / "test").glob("*.flac"))
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    samples = [soundfile.read(paths[i], dtype="float32")[0] for i in chosen]
    return [np.resize(s, NUM_SAMPLES) for s in samples]


@pytest.fixture(scope="module")
def noisy_grid(shared_data):
    """Speech and noisy speech, `(8, SNRs, N)` each: every utterance with a noise of its own."""
    speech = recordings(shared_data / "speech", 8, seed=1)
    noise = recordings(shared_data / "noise", 8, seed=2)
    noisy = [
        [s + n * np.float32(gain_to_dbfs(n, active_level_dbfs(s) - snr_db)) for snr_db in SNRS_DB]
        for s, n in zip(speech, noise, strict=True)
    ]
    return np.repeat(np.array(speech)[:, None], len(SNRS_DB), axis=1), np.array(noisy)


def masked_ideally(speech, noisy):
    """Applies the ideal ratio mask: unlike a preset, it was not trained on this loss."""
    clean, noise, spectrum = (np.asarray(stft(x, FRAME)) for x in (speech, noisy - speech, noisy))
    power, noise_power = (np.sum(x**2, axis=-1, keepdims=True) for x in (clean, noise))
    mask = np.sqrt(power / (power + noise_power + 1e-9))
    return np.asarray(inverse_stft((mask * spectrum).astype(np.float32), FRAME, NUM_SAMPLES))


def disturbances(speech, enhanced):
    speech, enhanced = (signal.reshape(-1, NUM_SAMPLES) for signal in (speech, enhanced))
    return np.asarray(pesq_shaped_disturbance(speech, enhanced, FRAME))


def test_disturbance_of_real_speech_falls_with_every_step_of_the_snr(noisy_grid):
    values = disturbances(*noisy_grid).reshape(8, len(SNRS_DB))
    assert np.all(np.diff(values, axis=1) < 0)


def test_disturbance_of_real_speech_ranks_clips_as_pesq_does_and_better_than_si_sdr(noisy_grid):
    pytest.importorskip("pesq", reason="needs the extra eval")
    speech, noisy = (grid.reshape(-1, NUM_SAMPLES) for grid in noisy_grid)
    enhanced = masked_ideally(speech, noisy)
    speech, judged = np.concatenate([speech, speech]), np.concatenate([noisy, enhanced])
    scores = [pesq_wb(s, y).value for s, y in zip(speech, judged, strict=True)]
    si_sdrs_db = [si_sdr_db(s, y) for s, y in zip(speech, judged, strict=True)]
    correlation = -spearmanr(disturbances(speech, judged), scores).statistic
    assert correlation > 0.92
    assert correlation > spearmanr(si_sdrs_db, scores).statistic + 0.03
