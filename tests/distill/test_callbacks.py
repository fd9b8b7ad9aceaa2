# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest

from lmkd_tf.distill.callbacks import RaiseOnNan


def model_of():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    return model


def fit(callbacks, bad_row=5, epochs=2):
    noisy, speech = np.ones((8, 2), np.float32), np.zeros((8, 1), np.float32)
    noisy[bad_row] = np.nan
    options = {"batch_size": 2, "epochs": epochs, "verbose": 0, "shuffle": False}
    return model_of().fit(noisy, speech, callbacks=callbacks, **options)


def test_a_loss_that_is_not_finite_stops_with_its_step():
    with pytest.raises(FloatingPointError, match=r"finite loss\. Received nan in step 2\. Look"):
        fit([RaiseOnNan()])


def test_an_infinite_loss_stops_too():
    with pytest.raises(FloatingPointError, match=r"Received inf in step 0\. Look"):
        RaiseOnNan().on_train_batch_end(0, {"loss": float("inf")})


def test_the_files_of_the_step_are_named():
    def describe(step):
        return [f"clean_{step}.flac", "noise.wav"]

    with pytest.raises(FloatingPointError, match=r"step 2, made of clean_2\.flac, noise\.wav\."):
        fit([RaiseOnNan(describe)])


def test_steps_are_counted_from_where_training_was_resumed():
    with pytest.raises(FloatingPointError, match=r"in step 102\."):
        fit([RaiseOnNan(first_step=100)])


def test_steps_of_one_execution_are_named_together():
    model = model_of()
    model.compile("sgd", loss="mse", steps_per_execution=2)
    noisy, speech = np.ones((12, 2), np.float32), np.zeros((12, 1), np.float32)
    noisy[10] = np.nan
    options = {"batch_size": 2, "verbose": 0, "shuffle": False}
    files = RaiseOnNan(lambda step: [f"{step}.flac"])
    with pytest.raises(FloatingPointError, match=r"steps 4 to 5, made of 4\.flac, 5\.flac\."):
        model.fit(noisy, speech, callbacks=[files], **options)


def test_the_checkpoint_of_the_epoch_before_stays(tmp_path):
    path = tmp_path / "last.keras"

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.layers[0].kernel.assign(np.full((2, 1), np.nan))

    model, noisy, speech = model_of(), np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    callbacks = [Spoil(), RaiseOnNan(), keras.callbacks.ModelCheckpoint(path)]
    with pytest.raises(FloatingPointError, match="Received nan in step 1"):
        model.fit(noisy, speech, epochs=3, verbose=0, callbacks=callbacks)
    loaded = keras.saving.load_model(path)
    assert all(np.isfinite(weight).all() for weight in loaded.get_weights())
