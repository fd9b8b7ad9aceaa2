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


@BOTH
def test_latents_are_the_outputs_of_the_named_layers(namespace):
    model = chain(namespace)
    latents, _ = TappedModel(model, ["first", "second"]).encode(batch(), training=False)
    first = np.tanh(np.asarray(batch()) @ model.get_layer("first").get_weights()[0])
    np.testing.assert_allclose(latents[0], first, atol=1e-6)
    assert tuple(latents[1].shape) == (3, 6)


@BOTH
def test_decoding_the_last_latent_gives_the_output_of_the_model(namespace):
    model = chain(namespace)
    tapped = TappedModel(model, ["first", "second"])
    latents, context = tapped.encode(batch(), training=False)
    decoded = tapped.decode(latents[-1], context, training=False)
    np.testing.assert_allclose(decoded, model(batch()), atol=1e-6)


@BOTH
def test_a_skip_from_the_input_reaches_the_decoder_as_context(namespace):
    model = with_input_skip(namespace)
    tapped = TappedModel(model, ["latent"])
    (latent,), context = tapped.encode(batch(), training=True)
    changed = [2.0 * context[0]]
    kernel, bias = model.get_layer("tail").get_weights()
    expected = np.asarray(latent) @ kernel + bias + 2.0 * np.asarray(batch())
    np.testing.assert_allclose(tapped.decode(latent, changed, training=True), expected, atol=1e-6)


@BOTH
def test_widths_are_those_of_the_latents(namespace):
    assert TappedModel(chain(namespace), ["first", "norm", "second"]).widths == [5, 5, 6]


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
    (latent,), context = tapped.encode(batch(), training=False)
    tapped.decode(latent, context, training=False)
    np.testing.assert_array_equal(model.get_layer("norm").get_weights()[2], before)
    tapped.decode(latent, context, training=True)
    assert np.any(model.get_layer("norm").get_weights()[2] != before)


def test_names_that_tfmot_wrapped_are_found_without_its_prefix():
    for prefix in ("quant_", "prune_low_magnitude_"):
        assert TappedModel(chain(tf_keras, prefix), ["first", "second"]).widths == [5, 6]


def test_unknown_layer_lists_the_layers_of_the_model():
    message = r"name a layer of the model\. Received 'gru_2'\. Use one of: noisy, first, norm, sec"
    with pytest.raises(ValueError, match=message):
        TappedModel(chain(), ["gru_2"])


def test_taps_in_the_wrong_order_are_refused():
    message = r"listed from input to output\. Received \['second', 'first'\], where \['second'\]"
    with pytest.raises(ValueError, match=message):
        TappedModel(chain(), ["second", "first"])


def test_training_through_a_tap_that_a_path_goes_around_is_refused():
    tapped = TappedModel(with_bypass(), ["latent"])
    (latent,), context = tapped.encode(batch(), training=True)
    with pytest.raises(ValueError, match=r"through the last tap\. Received .*\['early'\] goes aro"):
        tapped.decode(latent, context, training=True)


def test_inference_through_a_tap_that_a_path_goes_around_is_allowed():
    model = with_bypass()
    tapped = TappedModel(model, ["latent"])
    (latent,), context = tapped.encode(batch(), training=False)
    decoded = tapped.decode(latent, context, training=False)
    np.testing.assert_allclose(decoded, model(batch()), atol=1e-6)


def test_tap_model_asks_the_model_for_its_own_taps():
    class Declares:
        def tapped(self, layer_names):
            return layer_names

    assert tap_model(Declares(), ("a", "b")) == ["a", "b"]


def test_tap_model_of_a_subclassed_model_is_refused():
    class Opaque(keras.Model):
        pass

    with pytest.raises(TypeError, match=r"Taps need a functional model .* Received Opaque\. Build"):
        tap_model(Opaque(), ["x"])


def test_feature_tap_names_a_teacher_layer_before_a_student_layer():
    tap = FeatureTap("bottleneck", "block_12", "block_8")
    assert (tap.teacher_layer, tap.student_layer) == ("block_12", "block_8")
