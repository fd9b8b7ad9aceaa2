# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
import tf_keras

from lmkd_tf.models.taps import FeatureTap, TappedModel, tap_model

BOTH = pytest.mark.parametrize("namespace", [keras, tf_keras])


def chain(namespace=keras, prefix=""):
    """Input (4) -> first (5) -> norm -> second (6) -> output (4)."""
    layers = namespace.layers
    inputs = layers.Input((4,), name="noisy")
    x = layers.Dense(5, activation="tanh", name=f"{prefix}first")(inputs)
    x = layers.BatchNormalization(name=f"{prefix}norm")(x)
    x = layers.Dense(6, activation="tanh", name=f"{prefix}second")(x)
    return namespace.Model(inputs, layers.Dense(4, name=f"{prefix}output")(x))


def with_input_skip(namespace=keras):
    layers = namespace.layers
    inputs = layers.Input((4,))
    latent = layers.Dense(5, name="latent")(inputs)
    return namespace.Model(inputs, layers.Add()([layers.Dense(4, name="tail")(latent), inputs]))


def with_bypass():
    inputs = keras.Input((4,))
    early = keras.layers.Dense(4, name="early")(inputs)
    latent = keras.layers.Dense(4, name="latent")(early)
    return keras.Model(inputs, keras.layers.Add(name="sum")([early, latent]))


def batch(namespace=keras, rows=3, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    return keras.ops.convert_to_tensor(values)


def run(tapped, inputs, training=False):
    """All segments one after another: latents of the taps, output."""
    x, context = tapped.start(inputs)
    latents = []
    for segment in range(tapped.num_segments):
        found, x = tapped.run(segment, x, context, training)
        latents += found
    return latents, x


@BOTH
def test_latents_are_the_outputs_of_the_named_layers(namespace):
    model = chain(namespace)
    latents, _ = run(TappedModel(model, ["first", "second"]), batch())
    first = np.tanh(np.asarray(batch()) @ model.get_layer("first").get_weights()[0])
    np.testing.assert_allclose(latents[0], first, atol=1e-6)
    assert tuple(latents[1].shape) == (3, 6)


@BOTH
@pytest.mark.parametrize("cuts", [(), ["first"], ["second"], ["first", "second"]])
def test_the_segments_together_give_the_output_of_the_model(namespace, cuts):
    model = chain(namespace)
    tapped = TappedModel(model, ["first", "second"], cuts)
    assert tapped.num_segments == max(1, len(cuts)) + 1
    latents, output = run(tapped, batch())
    assert [tuple(latent.shape) for latent in latents] == [(3, 5), (3, 6)]
    np.testing.assert_allclose(output, model(batch()), atol=1e-6)


def test_a_changed_latent_is_what_the_next_segment_sees():
    model = chain()
    tapped = TappedModel(model, ["first", "second"], ["first"])
    x, context = tapped.start(batch())
    _, latent = tapped.run(0, x, context, False)
    (second,), output = tapped.run(1, 0.0 * latent, context, False)
    expected = model.get_layer("second")(model.get_layer("norm")(np.zeros((3, 5), "f")))
    np.testing.assert_allclose(second, expected, atol=1e-6)
    np.testing.assert_allclose(output, model.get_layer("output")(expected), atol=1e-6)


@BOTH
def test_a_skip_from_the_input_reaches_the_decoder_as_context(namespace):
    model = with_input_skip(namespace)
    tapped = TappedModel(model, ["latent"])
    x, context = tapped.start(batch())
    (latent,), _ = tapped.run(0, x, context, True)
    changed = [2.0 * context[0]]
    kernel, bias = model.get_layer("tail").get_weights()
    expected = np.asarray(latent) @ kernel + bias + 2.0 * np.asarray(batch())
    np.testing.assert_allclose(tapped.run(1, latent, changed, True)[1], expected, atol=1e-6)


@BOTH
def test_shapes_are_those_of_the_latents(namespace):
    tapped = TappedModel(chain(namespace), ["first", "norm", "second"])
    assert tapped.shapes == [(None, 5), (None, 5), (None, 6)]


@BOTH
def test_weights_are_shared_with_the_model(namespace):
    model = chain(namespace)
    tapped = TappedModel(model, ["second"])
    assert [id(v) for v in tapped.trainable_variables] == [id(v) for v in model.trainable_variables]


@BOTH
def test_training_reaches_the_layers_on_both_sides(namespace):
    model = chain(namespace)
    tapped = TappedModel(model, ["first"])
    before = model.get_layer("norm").get_weights()[2]
    run(tapped, batch())
    np.testing.assert_array_equal(model.get_layer("norm").get_weights()[2], before)
    run(tapped, batch(), training=True)
    assert np.any(model.get_layer("norm").get_weights()[2] != before)


def test_names_that_tfmot_wrapped_are_found_without_its_prefix():
    for prefix in ("quant_", "prune_low_magnitude_"):
        tapped = TappedModel(chain(tf_keras, prefix), ["first", "second"], ["first"])
        assert tapped.shapes == [(None, 5), (None, 6)]


def test_unknown_layer_lists_the_layers_of_the_model():
    message = r"name a layer of the model\. Received 'gru_2'\. Use one of: noisy, first, norm, sec"
    with pytest.raises(ValueError, match=message):
        TappedModel(chain(), ["gru_2"])


@pytest.mark.parametrize(
    ("cuts", "wrong"), [([], "second"), (["first"], "second"), (["second"], "first")]
)
def test_taps_in_the_wrong_order_are_refused(cuts, wrong):
    message = rf"listed from input to output\. Received \['second', 'first'\], where \['{wrong}'\]"
    with pytest.raises(ValueError, match=message):
        TappedModel(chain(), ["second", "first"], cuts)


def test_training_through_a_tap_that_a_path_goes_around_is_refused():
    tapped = TappedModel(with_bypass(), ["latent"])
    message = r"through the tap that the model is cut at\. Received .*\['early'\] goes aro"
    with pytest.raises(ValueError, match=message):
        run(tapped, batch(), training=True)


def test_inference_through_a_tap_that_a_path_goes_around_is_allowed():
    model = with_bypass()
    _, output = run(TappedModel(model, ["latent"]), batch())
    np.testing.assert_allclose(output, model(batch()), atol=1e-6)


def test_tap_model_asks_the_model_for_its_own_taps():
    class Declares:
        def tapped(self, layer_names, cut_names):
            return layer_names, cut_names

    assert tap_model(Declares(), ("a", "b"), ("a",)) == (["a", "b"], ["a"])


def test_tap_model_of_a_subclassed_model_is_refused():
    class Opaque(keras.Model):
        pass

    with pytest.raises(TypeError, match=r"Taps need a functional model .* Received Opaque\. Build"):
        tap_model(Opaque(), ["x"])


def test_feature_tap_names_a_teacher_layer_before_a_student_layer():
    tap = FeatureTap("bottleneck", "block_12", "block_8")
    assert (tap.teacher_layer, tap.student_layer) == ("block_12", "block_8")


@BOTH
def test_a_model_of_two_outputs_is_refused(namespace):
    model = chain(namespace)
    two = namespace.Model(model.inputs, [*model.outputs, model.get_layer("second").output])
    with pytest.raises(ValueError, match=r"one input and one output\. Received .* with 1 and 2"):
        tap_model(two, ["first"])
