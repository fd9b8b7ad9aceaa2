# SPDX-License-Identifier: Apache-2.0
"""Magnitude pruning of a `tf_keras` core inside the distiller: which weights become zero."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tf_keras

from lmkd_tf.compress.toolkit import load_tfmot

# Pattern -> block of zeros as (inputs, outputs) of a (1, 1, inputs, outputs) kernel. In the .tflite
# a row of inputs lies together, so a block of one output and n inputs is n neighboring bytes.
_BLOCKS = {"unstructured": (1, 1), "1x4": (4, 1), "1x16": (16, 1), "2:4": (1, 1)}
PATTERNS = tuple(_BLOCKS)
SCHEDULES = ("polynomial", "constant")
# 70 % of the steps prune, the rest train what is left.
_PRUNING_SHARE = 0.7


def prune(
    core: Any,
    *,
    sparsity: float,
    num_steps: int,
    schedule: str = "polynomial",
    pattern: str = "unstructured",
    excluded: Sequence[str] = (),
) -> Any:
    """Wraps a core so that training drives its small weights to zero.

    Depthwise kernels are always left out: they hold a few weights per channel and a few percent
    of the work, and each of them counts. So are the kernels within recurrences; the convolutions in
    front of their gates are pruned. Normalization and biases are folded.

    Zeros make the compressed image smaller. TFLite Micro and the generated C multiply by them like
    by any other weight, so they save no cycles; `lmkd_tf.compress.structured` does.

    Args:
        core: `tf_keras` core.
        sparsity: Share of zeros at the end, in [0, 1).
        num_steps: Optimizer steps of the stage. Inside `LatentMixupDistiller`
            every layer is called once per step, so layer calls equal steps.
        schedule: `"polynomial"` grows the share by a cubic law over the first 70 % of the steps,
            `"constant"` has it from the first step on.
        pattern: `"unstructured"`; `"1x4"` or `"1x16"`, zeros in blocks of neighboring inputs of
            one output; `"2:4"`, two zeros in every four neighboring inputs.
        excluded: Layers to leave alone.

    Returns:
        Wrapped core; train it with `PruningStep` among the callbacks.

    Raises:
        ValueError: If a setting is out of range, unknown, or does not fit the core.
    """
    _check_settings(sparsity, num_steps, schedule, pattern)
    wanted = _layers_to_prune(core, pattern, excluded)
    sparsity_api = load_tfmot().sparsity.keras
    settings: dict[str, Any] = {"pruning_schedule": _schedule_of(schedule, sparsity, num_steps)}
    if pattern == "2:4":
        settings["sparsity_m_by_n"] = (2, 4)

    def wrap(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        is_wanted = layer.name in wanted
        return sparsity_api.prune_low_magnitude(copy, **settings) if is_wanted else copy

    pruned = tf_keras.models.clone_model(core, clone_function=wrap)
    for layer in pruned.layers:
        own = getattr(layer, "layer", layer)
        own.set_weights(core.get_layer(own.name).get_weights())
        if own is not layer and _BLOCKS[pattern] != (1, 1):
            # tfmot takes blocks for kernels of two axes only, though it drops axes of one itself.
            layer.pruning_obj._block_size = list(_BLOCKS[pattern])
    return pruned


def _check_settings(sparsity: float, num_steps: int, schedule: str, pattern: str) -> None:
    if not 0.0 <= sparsity < 1.0 or num_steps < 1:
        raise ValueError(
            "`sparsity` must lie in [0, 1) and `num_steps` be positive. "
            f"Received sparsity={sparsity}, num_steps={num_steps}. Use for example 0.5 and 500."
        )
    for name, value, known in (("schedule", schedule, SCHEDULES), ("pattern", pattern, PATTERNS)):
        if value not in known:
            raise ValueError(
                f"`{name}` must be one of {', '.join(known)}. Received {value!r}. Use {known[0]!r}."
            )
    if pattern == "2:4" and (sparsity != 0.5 or schedule != "constant"):
        raise ValueError(
            "The pattern 2:4 has half of the weights zero from the first step on. "
            f"Received sparsity={sparsity}, schedule={schedule!r}. Use 0.5 and 'constant'."
        )


def _layers_to_prune(core: Any, pattern: str, excluded: Sequence[str]) -> set[str]:
    kernels = {
        layer.name: layer.kernel
        for layer in core.layers
        if isinstance(layer, (tf_keras.layers.Conv2D, tf_keras.layers.Dense))
        and not isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    }
    unknown = sorted(set(excluded) - kernels.keys())
    if unknown:
        raise ValueError(
            "`excluded` must name layers that would be pruned. "
            f"Received {unknown}. Use some of: {', '.join(kernels)}."
        )
    wanted = kernels.keys() - set(excluded)
    block = _BLOCKS[pattern][0]
    unfit = [
        name
        for name in wanted
        if any(n != 1 for n in kernels[name].shape[:-2]) or kernels[name].shape[-2] <= block
    ]
    if unfit and block > 1:
        raise ValueError(
            f"Blocks need kernels of one tap and of more than {block} inputs. "
            f"Received {sorted(unfit)}. Exclude them or use the pattern 'unstructured'."
        )
    return wanted


def _schedule_of(schedule: str, sparsity: float, num_steps: int) -> Any:
    api = load_tfmot().sparsity.keras
    end_step = max(1, int(_PRUNING_SHARE * num_steps))
    frequency = max(1, end_step // 20)
    if schedule == "constant":
        return api.ConstantSparsity(sparsity, begin_step=0, frequency=frequency)
    return api.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=end_step, frequency=frequency)


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
            name = path.split("/")[-2].removeprefix("prune_low_magnitude_").removeprefix("quant_")
            shares[name] = float(np.mean(variable.numpy() == 0.0))
    return shares
