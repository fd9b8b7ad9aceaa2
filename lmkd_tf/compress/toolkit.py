# SPDX-License-Identifier: Apache-2.0
"""The one import of tensorflow-model-optimization (tfmot)."""

import functools
import os
from types import ModuleType


@functools.cache
def load_tfmot() -> ModuleType:
    """Imports tfmot without its side effect.

    Importing it sets `TF_USE_LEGACY_KERAS`, which would turn `tf.keras` into
    `tf_keras` for this process and its children; the variable is put back, and
    `tf.keras`, which settles on its first use, is used before.

    Returns:
        The module `tensorflow_model_optimization`.
    """
    import tensorflow as tf

    _ = tf.keras.layers
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tfmot
