# SPDX-License-Identifier: Apache-2.0
"""Magnitude pruning of a `tf_keras` core inside the distiller."""

from typing import Any

import keras
import numpy as np

from lmkd_tf.compress.toolkit import load_tfmot


def prune(core: Any, *, sparsity: float, num_steps: int) -> Any:
    """Wraps a core so that training drives its small weights to zero.

    The sparsity grows by a cubic law over the first 70 % of the steps and then
    stays. Pointwise kernels are pruned; depthwise ones hold 3 weights per channel
    and are left alone by tfmot.

    Args:
        core: `tf_keras` core.
        sparsity: Share of zeros at the end, in [0, 1).
        num_steps: Optimizer steps of the stage. Inside `LatentMixupDistiller`
            every layer is called once per step, so layer calls equal steps.

    Returns:
        Wrapped core; train it with `PruningStep` among the callbacks.

    Raises:
        ValueError: If `sparsity` or `num_steps` is out of range.
    """
    if not 0.0 <= sparsity < 1.0 or num_steps < 1:
        raise ValueError(
            "`sparsity` must lie in [0, 1) and `num_steps` be positive. "
            f"Received sparsity={sparsity}, num_steps={num_steps}. Use for example 0.5 and 500."
        )
    sparsity_api = load_tfmot().sparsity.keras
    end_step = max(1, int(0.7 * num_steps))
    schedule = sparsity_api.PolynomialDecay(
        0.0, sparsity, begin_step=0, end_step=end_step, frequency=max(1, end_step // 20)
    )
    return sparsity_api.prune_low_magnitude(core, pruning_schedule=schedule)


class PruningStep(keras.callbacks.Callback):
    """Keras 3 callback around tfmot's `tf_keras` callback `UpdatePruningStep`.

    Args:
        pruned: Core returned by `prune`.
    """

    def __init__(self, pruned: Any):
        super().__init__()
        self._inner = load_tfmot().sparsity.keras.UpdatePruningStep()
        self._inner.set_model(pruned)

    def on_train_begin(self, logs=None) -> None:
        """Sets the step counter of every pruned layer."""
        self._inner.on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        """Makes the masks final for evaluation."""
        self._inner.on_epoch_end(epoch, logs)


def strip_pruning(pruned: Any) -> Any:
    """Returns the plain core with its zeros, without the wrappers."""
    return load_tfmot().sparsity.keras.strip_pruning(pruned)


def kernel_sparsity(core: Any) -> dict[str, float]:
    """Measures the share of zeros in each pointwise kernel.

    Args:
        core: Core of either namespace, wrapped or not.

    Returns:
        Layer name -> share of zeros in [0, 1].
    """
    shares = {}
    for variable in core.variables:
        path = getattr(variable, "path", variable.name).split(":")[0]
        # Keras 3 calls depthwise kernels (3, 1, C, 1) `kernel` as well.
        if path.endswith("/kernel") and tuple(variable.shape[:2]) == (1, 1):
            name = path.split("/")[-2].removeprefix("quant_")
            shares[name] = float(np.mean(variable.numpy() == 0.0))
    return shares
