# SPDX-License-Identifier: Apache-2.0
import keras
import pytest

from lmkd_tf.models.enhancer import SpeechEnhancer, load_enhancer


def test_student_file_that_carries_code_is_refused(tmp_path):
    x = keras.layers.Input((None, 1, 16))
    code = keras.layers.Lambda(lambda values: values * 2.0, name="code")
    core = keras.Model(x, keras.layers.Activation("sigmoid")(code(x)))
    SpeechEnhancer(core).save(tmp_path / "evil.keras")
    with pytest.raises(ValueError, match=r"must not carry code\. Received .*evil\.keras"):
        load_enhancer(tmp_path / "evil.keras")
