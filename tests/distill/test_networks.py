# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.distill.mixture import Mixer
from lmkd_tf.distill.networks import blend_inputs, run_student, run_teacher
from lmkd_tf.distill.objective import Objective
from lmkd_tf.distill.views import NUM_LAMBDA_BANDS, Pair, blend_per_band
from tests.distill.by_hand import LAMBDAS, mix
from tests.distill.toy import Toy, latents_by_hand

FRAME = StftConfig(window_length=64, hop_length=32, fft_length=64)
MIXINGS = ("both", "teacher", "student", "input", "cross", "none", "split")
MIXER = Mixer(np.tile(LAMBDAS, (3, 1)), LAMBDAS)


def views(length=5):
    return np.random.default_rng(0).normal(size=(8, length)).astype(np.float32)


def blended(inputs):
    return mix(inputs[:4], inputs[4:]).astype(np.float32)


def objective(mixing, propagation="student", **changes):
    return Objective(mixing=mixing, propagation=propagation, **changes)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def mixed_latents(inputs):
    return [mix(z[:4], z[4:]) for z in latents_by_hand(inputs)[0]]


# ---- the mixed input -----------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", MIXINGS)
def test_the_input_is_mixed_only_where_a_network_is_fed_the_mixture(mixing):
    inputs = views()
    pair = Pair(inputs[:4], inputs[4:], inputs[:4], inputs[:4])
    blend = blend_inputs(objective(mixing), pair, MIXER, None)
    if mixing in ("teacher", "student", "input"):
        np.testing.assert_allclose(blend, blended(inputs), atol=1e-6)
    else:
        assert blend is None


def test_the_input_is_mixed_per_band_where_lambda_is_drawn_so():
    inputs = views(100)
    pair = Pair(inputs[:4], inputs[4:], inputs[:4], inputs[:4])
    per_band = np.random.default_rng(1).uniform(size=(4, NUM_LAMBDA_BANDS)).astype(np.float32)
    mixer = MIXER._replace(band_lambda=per_band)
    blend = blend_inputs(objective("input", granularity="band"), pair, mixer, FRAME)
    expected = blend_per_band(inputs[:4], inputs[4:], per_band, FRAME)
    np.testing.assert_allclose(blend, expected, atol=1e-6)
    assert np.max(np.abs(np.asarray(blend) - blended(inputs))) > 0.1


def test_lambda_per_band_without_a_transform_is_refused():
    mixer = MIXER._replace(band_lambda=np.ones((4, NUM_LAMBDA_BANDS), "f"))
    message = r"λ per band needs a student with an STFT\. Received one without .* Use granularity"
    with pytest.raises(ValueError, match=message):
        blend_inputs(objective("input", granularity="band"), Pair(*4 * [views()]), mixer, None)


# ---- the student ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", MIXINGS)
def test_the_student_enhances_both_views_whatever_is_mixed(mixing):
    inputs, toy = views(), Toy((2,))
    streams = run_student(toy, objective(mixing), inputs, blended(inputs), MIXER, training=True)
    latents, output = latents_by_hand(inputs)
    assert_close([*streams.latents, streams.output], [*latents, output])
    assert toy.runs == [(0, True), (1, True)]


@pytest.mark.parametrize("mixing", ["both", "student"])
def test_the_student_decodes_its_own_mixed_latent(mixing):
    inputs = views()
    streams = run_student(Toy((2,)), objective(mixing), inputs, None, MIXER, training=True)
    mixed = mixed_latents(inputs)
    expected = latents_by_hand(blended(inputs), mixed[-1], 2)[1]
    assert_close([*streams.mixed_latents, streams.mixed_output], [*mixed, expected])


@pytest.mark.parametrize("mixing", ["both", "student"])
def test_without_propagation_the_student_mixes_and_decodes_nothing_mixed(mixing):
    inputs = views()
    settings = objective(mixing, "none")
    streams = run_student(Toy((1,)), settings, inputs, None, MIXER, training=True)
    assert_close(streams.mixed_latents, mixed_latents(inputs))
    assert streams.mixed_output is None


@pytest.mark.parametrize("mixing", ["teacher", "input"])
def test_the_student_is_fed_the_mixed_input(mixing):
    inputs = views()
    blend = blended(inputs)
    streams = run_student(Toy((2,)), objective(mixing), inputs, blend, MIXER, training=True)
    latents, output = latents_by_hand(blend)
    assert_close([*streams.mixed_latents, streams.mixed_output], [*latents, output])


@pytest.mark.parametrize("mixing", ["cross", "none", "split"])
def test_the_student_is_compared_on_both_views(mixing):
    inputs = views()
    streams = run_student(Toy((2,)), objective(mixing), inputs, None, MIXER, training=True)
    assert_close(streams.mixed_latents, latents_by_hand(inputs)[0])
    assert streams.mixed_output is None


@pytest.mark.parametrize("tap", [0, 1, 2])
def test_the_student_is_mixed_at_the_tap_that_was_drawn(tap):
    inputs = views()
    mixer = MIXER._replace(chosen=ops.one_hot(tap, 3))
    settings = objective("both", mix_tap="random")
    streams = run_student(Toy(), settings, inputs, None, mixer, training=True)
    expected = latents_by_hand(blended(inputs), mixed_latents(inputs)[tap], tap)[1]
    assert_close([streams.mixed_output], [expected])


# ---- the teacher ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", MIXINGS)
def test_the_teacher_runs_in_inference_mode(mixing):
    toy, inputs = Toy((2,)), views()
    run_teacher(toy, objective(mixing), inputs, blended(inputs), MIXER)
    assert toy.runs == [(0, False), (1, False)]


@pytest.mark.parametrize("mixing", ["both", "teacher"])
def test_latents_of_the_teacher_are_mixed_at_every_tap(mixing):
    inputs = views()
    streams = run_teacher(Toy((0,)), objective(mixing), inputs, None, MIXER)
    latents, output = latents_by_hand(inputs)
    assert_close(streams.mixed_latents, mixed_latents(inputs))
    assert_close([*streams.latents, streams.output], [*latents, output])
    assert streams.mixed_output is None


def test_the_teacher_decodes_its_mixed_latent_where_both_networks_do():
    inputs = views()
    streams = run_teacher(Toy((0,)), objective("both", "both"), inputs, None, MIXER)
    mixed = mixed_latents(inputs)[0]
    later, output = latents_by_hand(blended(inputs), mixed, 0)
    assert_close([*streams.mixed_latents, streams.mixed_output], [mixed, *later, output])


@pytest.mark.parametrize("mixing", ["student", "input"])
def test_the_teacher_is_fed_the_mixed_input_alone(mixing):
    inputs = views()
    blend = blended(inputs)
    streams = run_teacher(Toy((2,)), objective(mixing), inputs, blend, MIXER)
    latents, output = latents_by_hand(blend)
    assert_close([*streams.latents, *streams.mixed_latents], [*latents, *latents])
    assert_close([streams.mixed_output], [output])
    assert streams.output is None


@pytest.mark.parametrize("mixing", ["cross", "none", "split"])
def test_the_teacher_is_compared_on_both_views(mixing):
    inputs = views()
    streams = run_teacher(Toy((2,)), objective(mixing), inputs, None, MIXER)
    latents, output = latents_by_hand(inputs)
    assert_close([*streams.mixed_latents, streams.output], [*latents, output])
    assert streams.mixed_output is None


# ---- the teacher from a cache --------------------------------------------------------------------


def cached(inputs):
    """Per tap `(B, 2, ...)`, in half precision as they are stored."""
    return [np.stack([z[:4], z[4:]], axis=1).astype(np.float16) for z in latents_by_hand(inputs)[0]]


@pytest.mark.parametrize("mixing", ["both", "teacher", "none", "split"])
def test_cached_latents_replace_the_run_of_the_teacher(mixing):
    inputs, toy = views(), Toy((2,))
    settings = objective(mixing)
    live = run_teacher(Toy((2,)), settings, inputs, None, MIXER)
    tensor = ops.convert_to_tensor(inputs)
    streams = run_teacher(toy, settings, tensor, None, MIXER, cached=cached(inputs))
    for found, expected in (
        (streams.latents, live.latents),
        (streams.mixed_latents, live.mixed_latents),
    ):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)  # that of half precision
            assert one.dtype == tensor.dtype
    assert toy.runs == []


@pytest.mark.parametrize(
    "settings",
    [
        objective("input"),
        objective("both", "both"),
        objective("both", pairing="other_snr"),
        objective("both", output_weight=1.0),
        objective("both", position_weight="teacher_advantage"),
    ],
)
def test_cached_latents_are_refused_where_others_are_needed(settings):
    inputs = views()
    message = r"the objective must need no others\. Received mixing=.*\. Train on pairs without"
    with pytest.raises(ValueError, match=message):
        run_teacher(Toy((2,)), settings, inputs, None, MIXER, cached=cached(inputs))
