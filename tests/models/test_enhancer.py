# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
import tf_keras

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.models.builder import build, build_core
from lmkd_tf.models.enhancer import SpeechEnhancer, load_enhancer

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)
SIZE = {"num_bands": 16, "channels": 6, "dilations": (1, 2)}


@pytest.fixture
def enhancer(seeded):
    model = build("tcn", stft=FRAME, **SIZE)
    rng = np.random.default_rng(seeded)
    weights = [w + 0.3 * rng.uniform(size=w.shape) for w in model.core.get_weights()]
    model.core.set_weights(weights)
    return model


def noisy_of(num_samples=1000, batch_size=2, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=(batch_size, num_samples))).astype(np.float32)


def enhance_with_numpy(model, noisy):
    """STFT frames by hand, mask from the core, inverse by overlap-add in double precision."""
    hann = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64))
    matrix = erb_matrix(FRAME, 16).astype(np.float64)
    num_hops = -(-len(noisy) // 32)
    padded = np.zeros((num_hops + 2) * 32)
    padded[32 : 32 + len(noisy)] = noisy
    starts = range(0, (num_hops + 1) * 32, 32)
    spectrum = np.stack([np.fft.rfft(padded[start : start + 64] * hann) for start in starts])
    energy = np.abs(spectrum) ** 2 @ (matrix / matrix.sum(axis=0))
    features = (10 * np.log10(energy + 1e-6) + 10) / 50
    mask = np.asarray(model.core(features.astype("f")[None, :, None], training=False))[0, :, 0]
    frames = np.fft.irfft(spectrum * (mask @ matrix.T)) * hann
    output = np.zeros_like(padded)
    for start, frame in zip(starts, frames, strict=True):
        output[start : start + 64] += frame
    return output[32 : 32 + len(noisy)]


@pytest.mark.parametrize("num_samples", [1, 31, 32, 1000])
def test_enhancer_equals_the_same_chain_in_numpy(enhancer, num_samples):
    noisy = noisy_of(num_samples)
    enhanced = np.asarray(enhancer(noisy))
    assert enhanced.shape == noisy.shape
    for found, clip in zip(enhanced, noisy, strict=True):
        np.testing.assert_allclose(found, enhance_with_numpy(enhancer, clip), atol=1e-5)


def test_enhanced_samples_depend_on_nothing_later_than_one_window(enhancer):
    before = noisy_of(1024)
    after = before.copy()
    after[:, 500] += 0.5
    moved = np.flatnonzero(np.any(np.asarray(enhancer(after)) != np.asarray(enhancer(before)), 0))
    # sample 500 lies in hop 15; the first frame that holds it starts with hop 14
    assert moved.min() >= 14 * 32


def test_saved_enhancer_loads_and_enhances_to_the_bit(enhancer, tmp_path):
    enhancer.save(tmp_path / "model.keras")
    loaded = load_enhancer(tmp_path / "model.keras")
    assert loaded.stft == FRAME
    noisy = noisy_of()
    np.testing.assert_array_equal(loaded(noisy), enhancer(noisy))
    step, expected = loaded.step_graph(), enhancer.step_graph()
    inputs = [np.ones(tensor.shape, np.float32) for tensor in expected.inputs]
    np.testing.assert_array_equal(step(inputs)[0], expected(inputs)[0])


def test_enhancer_of_a_tf_keras_core_enhances_alike(enhancer):
    twin = build_core("tcn", namespace=tf_keras, **SIZE)
    twin.set_weights(enhancer.core.get_weights())
    noisy = noisy_of()
    np.testing.assert_allclose(SpeechEnhancer(twin, FRAME)(noisy), enhancer(noisy), atol=1e-6)


@pytest.mark.parametrize("cuts", [[], ["block_1"], ["block_1", "block_2"]])
def test_the_segments_of_an_enhancer_give_the_enhanced_speech(enhancer, cuts):
    tapped = enhancer.tapped(["block_1", "block_2"], cuts)
    noisy = keras.ops.convert_to_tensor(noisy_of())
    x, context = tapped.start(noisy)
    latents = []
    for segment in range(tapped.num_segments):
        found, x = tapped.run(segment, x, context, False)
        latents += found
    assert [tuple(latent.shape) for latent in latents] == [(2, 33, 1, 6)] * 2
    assert tapped.shapes == [(None, None, 1, 6)] * 2
    np.testing.assert_allclose(x, enhancer(noisy), atol=1e-6)


def test_enhancer_trains_with_fit(enhancer):
    before = enhancer.core.get_weights()
    enhancer.compile(keras.optimizers.Adam(0.01), loss="mse")
    history = enhancer.fit(noisy_of(), 0.5 * noisy_of(), epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    changed = zip(before, enhancer.core.get_weights(), strict=True)
    assert all(np.any(old != new) for old, new in changed)


def test_loading_a_missing_file_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"needed\. Received .*gone\.keras, which does not"):
        load_enhancer(tmp_path / "gone.keras")


def test_loading_a_damaged_file_names_it(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04 half of an archive")
    with pytest.raises(ValueError, match=r"Received .*bad\.keras, which cannot be read"):
        load_enhancer(tmp_path / "bad.keras")


def test_loading_another_kind_of_model_says_what_it_is(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"must hold a SpeechEnhancer\. .*with a Sequential\."):
        load_enhancer(tmp_path / "other.keras")


def test_file_from_before_recurrences_has_none():
    size = {"num_bands": 32, "bands_per_position": 4, "channels": 8, "dilations": (1,)}
    size |= {"bottleneck_channels": 8, "bottleneck_dilations": (1,), "recurrent_channels": 0}
    model = build("small", **size)
    config = model.get_config()
    del config["size"]["recurrent_channels"]
    former = SpeechEnhancer.from_config(config)
    assert former.size == model.size
    assert [w.shape for w in former.step_graph().weights] == [w.shape for w in model.core.weights]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.complex64, bool])
def test_samples_that_are_not_float_are_refused(enhancer, dtype):
    samples = np.ones((1, 640), dtype)
    name = np.dtype(dtype).name
    for use in (enhancer, enhancer.analyze):
        with pytest.raises(TypeError, match=rf"(?s)Received dtype {name}\. .*int16_to_float"):
            use(samples)


def test_integer_samples_are_refused_in_a_compiled_graph(enhancer):
    with pytest.raises(TypeError, match="must be float"):
        enhancer.predict(np.ones((2, 640), np.int16), verbose=0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_samples_of_any_width_are_taken(enhancer, dtype):
    assert enhancer(np.zeros((1, 64), dtype)).shape == (1, 64)
    assert enhancer(keras.KerasTensor((None, None), dtype)).shape[0] is None


@pytest.mark.parametrize("shape", [(640,), (2, 640, 1), ()])
def test_samples_of_another_shape_are_refused_with_the_one_wanted(enhancer, shape):
    for use in (enhancer, enhancer.analyze):
        with pytest.raises(ValueError, match=r"(?s)must have the shape \(B, N\).*samples\[None\]"):
            use(np.zeros(shape, np.float32))


def test_twin_is_not_saved_without_its_weights(enhancer, tmp_path):
    twin = build_core("tcn", namespace=tf_keras, **SIZE)
    model = SpeechEnhancer(twin, FRAME, architecture="tcn", size=SIZE)
    with pytest.raises(ValueError, match=r"Received a core of tf_keras.*model\.core\.save_weights"):
        model.save(tmp_path / "student.keras")
    assert list(tmp_path.iterdir()) == []
    enhancer.save(tmp_path / "student.keras")
    before = (tmp_path / "student.keras").read_bytes()
    with pytest.raises(ValueError, match="Received a core of tf_keras"):
        model.save(tmp_path / "student.keras")
    assert (tmp_path / "student.keras").read_bytes() == before
