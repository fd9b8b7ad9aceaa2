# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
import tf_keras

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.distiller import LatentMixupDistiller
from lmkd_tf.distill.losses import SpeechLoss
from lmkd_tf.metrics.cost import count_parameters
from lmkd_tf.models import build
from lmkd_tf.models.axial_attention import AxialAttention
from lmkd_tf.models.builder import build_core
from lmkd_tf.models.cmgan_weights import convert_state_dict
from lmkd_tf.models.enhancer import load_enhancer
from tests.models.cmgan_by_hand import Generator, random_state_dict

SIZE = {"channels": 4, "num_blocks": 1, "frame": (16, 4), "max_distances": (4, 10)}


def parameters_by_hand(c, blocks=4, bins=201, rows=(1025, 1025)):
    norm, unit = 2 * c, 2 * c + c  # gain and bias; with one slope per channel
    dense = sum(6 * i * c * c + c + unit for i in range(1, 5))
    encoder = (3 * c + c + unit) + dense + (3 * c * c + c + unit)
    feed_forward = norm + (4 * c * c + 4 * c) + (4 * c * c + c)
    attention = norm + 3 * c * c + (c * c + c)  # without the table of positions
    convolution = norm + (4 * c * c + 4 * c) + (31 * 2 * c + 2 * c) + 2 * 2 * c + (2 * c * c + c)
    conformer = 2 * feed_forward + attention + convolution + norm
    body = blocks * (2 * conformer + sum(rows) * c // 4)
    sub_pixel = 3 * c * 2 * c + 2 * c
    mask = dense + sub_pixel + (2 * c + 1) + 3 + 2 + bins
    complex_ = dense + sub_pixel + unit + (4 * c + 2)
    return encoder + body + mask + complex_


@pytest.mark.parametrize(("channels", "published"), [(64, 1_834_833), (12, 92_729)])
def test_parameters_are_those_of_the_published_generator(channels, published):
    assert parameters_by_hand(channels) == published
    assert count_parameters(build("cmgan", channels=channels)) == published


def test_student_of_the_paper_is_the_generator_of_twelve_channels():
    assert count_parameters(build("cmgan_student")) == 92_729


def test_clipped_tables_of_positions_have_fewer_parameters():
    # 101 halved bins are at most 100 apart: nothing is lost along frequency
    model = build("cmgan", channels=12, max_distances=(512, 100))
    assert count_parameters(model) == parameters_by_hand(12, rows=(1025, 201))


@pytest.fixture(scope="module")
def tensors():
    return random_state_dict()


@pytest.fixture(scope="module")
def model(tensors):
    return convert_state_dict(tensors)


def noisy_of(num_samples=240, batch_size=2, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=(batch_size, num_samples))).astype(np.float32)


def enhance_by_hand(tensors, noisy):
    """Level, transform, compression, generator and back for one signal, in double precision."""
    level = np.sqrt(np.mean(np.square(noisy, dtype=np.float64)))
    scaled = noisy / level
    scaled = np.concatenate([scaled, scaled[: -len(scaled) % 4]])
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(16) / 16)
    padded = np.concatenate([scaled[8:0:-1], scaled, scaled[-2:-10:-1]])
    starts = range(0, len(scaled) + 1, 4)
    spectrum = np.stack([np.fft.rfft(padded[s : s + 16] * window) for s in starts])
    compressed = np.abs(spectrum) ** 0.3 * np.exp(1j * np.angle(spectrum))
    enhanced = Generator(tensors)(compressed[None])[0]
    enhanced = np.abs(enhanced) ** (1 / 0.3) * np.exp(1j * np.angle(enhanced))
    summed, weight = np.zeros(len(padded)), np.zeros(len(padded))
    for start, frame in zip(starts, np.fft.irfft(enhanced, 16), strict=True):
        summed[start : start + 16] += frame * window
        weight[start : start + 16] += window**2
    return (summed / weight)[8:-8][: len(noisy)] * level


@pytest.mark.parametrize("num_samples", [240, 91])
def test_enhanced_speech_is_that_of_the_equations(model, tensors, num_samples):
    noisy = noisy_of(num_samples)
    enhanced = np.asarray(model(noisy), np.float64)
    assert enhanced.shape == noisy.shape
    for found, clip in zip(enhanced, noisy, strict=True):
        wanted = enhance_by_hand(tensors, clip)
        ratio = np.sum(wanted**2) / np.sum((wanted - found) ** 2)
        assert 10 * np.log10(ratio) >= 80


def test_output_follows_the_level_of_the_input(model):
    loud, quiet = np.asarray(model(noisy_of())), np.asarray(model(0.01 * noisy_of()))
    np.testing.assert_allclose(quiet, 0.01 * loud, rtol=1e-3, atol=1e-6)


def test_silence_stays_silent_and_finite(model):
    # What the network makes of nothing is scaled by the level of -120 dBFS.
    assert np.abs(np.asarray(model(np.zeros((1, 100), np.float32)))).max() < 1e-6


def test_saved_model_loads_and_enhances_to_the_bit(model, tmp_path):
    model.save(tmp_path / "cmgan.keras")
    loaded = load_enhancer(tmp_path / "cmgan.keras")
    np.testing.assert_array_equal(loaded(noisy_of()), model(noisy_of()))


def test_model_trains_and_predicts(seeded):
    model = build("cmgan", **SIZE)
    kernels = [v for v in model.trainable_variables if len(v.shape) > 1]
    before = [keras.ops.convert_to_numpy(v) for v in kernels]
    model.compile(keras.optimizers.Adam(0.01), loss=SpeechLoss(StftConfig(16000, 32, 16, 32)))
    losses = model.fit(noisy_of(), 0.3 * noisy_of(), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    values = zip(kernels, before, strict=True)
    assert [v.path for v, old in values if np.array_equal(old, keras.ops.convert_to_numpy(v))] == []
    assert model.predict(noisy_of(), verbose=0).shape == noisy_of().shape


def test_dropout_acts_in_training_only(model):
    one, other = (np.asarray(model(noisy_of(), training=True)) for _ in range(2))
    assert np.any(one != other)
    np.testing.assert_array_equal(model(noisy_of()), model(noisy_of()))


@pytest.mark.parametrize("cuts", [[], ["encoder"], ["encoder", "tscb_1"]])
def test_segments_give_the_enhanced_speech(model, cuts):
    tapped = model.tapped(["encoder", "tscb_1"], cuts)
    noisy = keras.ops.convert_to_tensor(noisy_of())
    x, context = tapped.start(noisy)
    latents = []
    for segment in range(tapped.num_segments):
        found, x = tapped.run(segment, x, context, False)
        latents += found
    assert [tuple(latent.shape) for latent in latents] == [(2, 61, 5, 4)] * 2
    np.testing.assert_allclose(x, model(noisy), atol=1e-5)


@pytest.mark.parametrize("student", ["cmgan", "tcn"])
def test_teacher_distils_into_its_own_kind_and_into_a_causal_student(seeded, student):
    frame = StftConfig(16000, 32, 16, 32)
    if student == "cmgan":
        network = build("cmgan", **SIZE)
    else:
        network = build("tcn", stft=frame, num_bands=8, channels=4, dilations=(1,))
    tap = ("bottleneck", "tscb_1", "tscb_1" if student == "cmgan" else "block_1")
    teacher = build("cmgan", **{**SIZE, "channels": 8})
    distiller = LatentMixupDistiller(teacher=teacher, student=network, taps=[tap])
    distiller.compile(keras.optimizers.Adam(1e-3), loss=SpeechLoss(frame))
    frozen, before = teacher.get_weights(), network.get_weights()
    views = {"first_view": noisy_of(seed=1), "second_view": noisy_of(seed=2)}
    history = distiller.fit(views, noisy_of(seed=3), batch_size=2, epochs=1, verbose=0).history
    assert history["latent_loss"][0] > 0
    assert np.isfinite(history["loss"][0])
    assert any(np.any(a != b) for a, b in zip(before, network.get_weights(), strict=True))
    for old, new in zip(frozen, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_positions_beyond_the_farthest_are_one(seeded):
    layer = AxialAttention(2, 4, 2)
    x = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    layer(x)
    wide = AxialAttention(2, 4, 20)
    wide(x)
    query, key_value, table, kernel, bias = layer.get_weights()
    clipped = table[np.clip(np.arange(-20, 21), -2, 2) + 2]
    wide.set_weights([query, key_value, clipped, kernel, bias])
    np.testing.assert_allclose(layer(x), wide(x), atol=1e-6)


def test_attention_along_time_is_that_along_frequency_of_the_transposed_input(seeded):
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 8)).astype(np.float32)
    time, frequency = AxialAttention(1, 4, 6), AxialAttention(2, 4, 6)
    for layer in (time, frequency):
        layer(x)
    frequency.set_weights(time.get_weights())
    swapped = np.asarray(frequency(x.swapaxes(1, 2))).swapaxes(1, 2)
    np.testing.assert_allclose(time(x), swapped, atol=1e-6)


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"must divide the channels\. Received 4 heads for 18"):
        AxialAttention(1, 4, 6)(np.zeros((1, 2, 2, 18), np.float32))


@pytest.mark.parametrize("how", [{"is_step": True}, {"namespace": tf_keras}])
def test_step_graph_and_twin_are_refused(how):
    with pytest.raises(ValueError, match=r"neither streams nor is compressed\. .*Distil it into"):
        build_core("cmgan", **SIZE, **how)


@pytest.mark.parametrize("frame", [(18, 6), (16, 5)])
def test_frame_that_does_not_fit_is_refused(frame):
    with pytest.raises(ValueError, match=r"multiple of 4 and of its hop\. Received .*\(400, 100\)"):
        build("cmgan", **{**SIZE, "frame": frame})


def test_signal_shorter_than_half_a_window_is_refused(model):
    with pytest.raises(ValueError, match=r"needs more than 8 samples.*Received 8\. Append zeros"):
        model(np.zeros((1, 8), np.float32))
