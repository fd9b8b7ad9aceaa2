# SPDX-License-Identifier: Apache-2.0
"""The `tf_keras` twin of a Keras 3 network, because tfmot knows no other."""

from collections.abc import Callable
from typing import Any

import tf_keras

# Called with `namespace=` and `is_step=`; see `lmkd_tf.models.builder.build_core`.
CoreBuilder = Callable[..., Any]


def make_twin(build: CoreBuilder, core: Any) -> Any:
    """Builds the twin of a core and copies its weights.

    Args:
        build: Builder of the core.
        core: Trained Keras 3 core made by the same builder.

    Returns:
        `tf_keras` model that computes the same mask.
    """
    twin = build(namespace=tf_keras)
    twin.set_weights(core.get_weights())
    return twin


def make_step_twin(build: CoreBuilder, core: Any) -> Any:
    """Builds the step graph of a core in `tf_keras` and copies its weights.

    Args:
        build: Builder of the core.
        core: Core (either namespace) made by the same builder.

    Returns:
        `tf_keras` model of one hop with explicit state.
    """
    step = build(namespace=tf_keras, is_step=True)
    step.set_weights(core.get_weights())
    return step
