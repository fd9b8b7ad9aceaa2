# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.metrics.cost import count_parameters, macs_per_frame
from lmkd_tf.models import build
from lmkd_tf.models.builder import build_core

FRAME = {"window_length": 64, "hop_length": 32, "fft_length": 64}
SIZE = {
    "num_bands": 32,
    "bands_per_position": 4,
    "channels": 8,
    "squeeze_channels": 4,
    "bottleneck_channels": 8,
}


def _build(num_filtered_bins=12, num_taps=2, upsampling="sub_pixel"):
    keras.utils.set_random_seed(0)
    how = {"num_filtered_bins": num_filtered_bins, "num_taps": num_taps, "upsampling": upsampling}
    return build("nano_variant", stft=StftConfig(16000, **FRAME), **SIZE, **how)


def _noisy(num_samples=640):
    return (0.1 * np.random.default_rng(0).normal(size=(1, num_samples))).astype(np.float32)


def _set_taps(model, values):
    """Makes the taps the same in every frame: `values` is `(K, N, 2)`."""
    layer = model.core.get_layer("taps")
    kernel, _ = layer.get_weights()
    # The bias is shared by the positions, so bins four apart have the same taps.
    layer.set_weights([np.zeros_like(kernel), values[:4].reshape(-1).astype(np.float32)])


def test_training_starts_at_the_gains_alone():
    model = _build()
    spectrum = np.random.default_rng(1).normal(size=(1, 5, 33, 2)).astype(np.float32)
    gains = np.random.default_rng(2).uniform(size=(1, 5, 1, 32)).astype(np.float32)
    taps = np.zeros((1, 5, 1, 2 * 2 * 12), np.float32)
    plain = build("nano", stft=model.stft, **SIZE)
    found = model.synthesize(spectrum, np.concatenate([gains, taps], -1), 160)
    np.testing.assert_allclose(found, plain.synthesize(spectrum, gains, 160), atol=1e-6)
    output = np.asarray(model.core(model.analyze(_noisy())[0]))
    assert np.all(output[..., 32:] == 0.0)


def test_taps_are_a_complex_filter_of_the_lowest_bins():
    model = _build()
    rng = np.random.default_rng(3)
    low = rng.normal(size=(2, 6, 12, 2))
    taps = rng.normal(size=(2, 6, 12, 2, 2))
    complex_low, complex_taps = (x[..., 0] + 1j * x[..., 1] for x in (low, taps))
    expected = complex_low.copy()
    for frame in range(6):
        for tap in range(min(frame, 1) + 1):
            expected[:, frame] += complex_taps[:, frame, :, tap] * complex_low[:, frame - tap]
    found = np.asarray(
        model._filter(low.astype(np.float32), taps.reshape(2, 6, -1).astype(np.float32))
    )
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected, atol=1e-5)


def test_a_turned_tap_turns_the_phase_of_the_lowest_bins_alone():
    model, noisy = _build(num_taps=1), _noisy()
    before = np.asarray(model(noisy))
    # 1 + (-1 + i) = i: a quarter turn of 12 bins of 250 Hz, so of what lies below 3 kHz.
    _set_taps(model, np.broadcast_to([-1.0, 1.0], (12, 1, 2)))
    after = np.asarray(model(noisy))
    changed = np.abs(np.fft.rfft((after - before)[0]))
    hz = np.fft.rfftfreq(640, 1 / 16000)
    assert changed[(hz > 250) & (hz < 2500)].mean() > 10 * changed[hz > 4000].mean()


def test_the_network_hears_phase_only_where_it_filters():
    spectrum = np.random.default_rng(4).normal(size=(1, 3, 33, 2)).astype(np.float32)
    turned = np.stack([-spectrum[..., 1], spectrum[..., 0]], -1)
    for model, hears in ((_build(), True), (_build(0, 0), False)):
        same = np.allclose(model.features(spectrum), model.features(turned), atol=1e-6)
        assert same != hears


def test_transposed_convolution_replaces_the_sub_pixel_one():
    transposed, sub_pixel = (_build(0, 0, how) for how in ("transposed", "sub_pixel"))
    assert transposed.core.get_layer("interleave").output.shape[1:] == (None, 8, 16)
    # 8 channels to 16 by three taps at 4 positions, instead of 32 by one.
    assert macs_per_frame(transposed.core) - macs_per_frame(sub_pixel.core) == 4 * 8 * (3 * 16 - 32)
    # ... and scale and shift of 16 channels instead of 32.
    more = 8 * (3 * 16 - 32) - 2 * 16
    assert count_parameters(transposed.core) - count_parameters(sub_pixel.core) == more


@pytest.mark.parametrize(("bins", "taps"), [(10, 1), (36, 1), (12, 0), (0, 2)])
def test_bins_and_taps_that_do_not_fit_are_refused(bins, taps):
    message = f"Received num_filtered_bins={bins}, num_taps={taps}, num_bands=32"
    with pytest.raises(ValueError, match=message):
        _build(bins, taps)


def test_neither_a_step_graph_nor_a_twin_is_built():
    with pytest.raises(ValueError, match="is float and has no step graph"):
        build_core("nano_variant", is_step=True)
    with pytest.raises(ValueError, match="A network that streams here has real gains"):
        _build().step_graph()


def test_misspelt_upsampling_is_refused():
    with pytest.raises(ValueError, match=r"must be one of sub_pixel, transposed\. Received 'trans"):
        _build(upsampling="transpose")
