# SPDX-License-Identifier: Apache-2.0
"""One table of architectures and one function that builds them."""

import difflib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.models.enhancer import SpeechEnhancer
from lmkd_tf.models.tcn import build_tcn

# name -> (builder of the core, its default size). A core maps features
# (B, T, 1, E) to a mask (B, T, 1, E); see `build_tcn` for the step graph.
ARCHITECTURES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "nano": (build_tcn, {"num_bands": 128, "channels": 96, "dilations": (1, 2, 4, 8) * 2}),
    "wide": (build_tcn, {"num_bands": 257, "channels": 256, "dilations": (1, 2, 4, 8) * 3}),
}


def build_core(
    architecture: str, *, namespace: ModuleType = keras, is_step: bool = False, **size: Any
) -> Any:
    """Builds the band-mask network of an architecture.

    Args:
        architecture: Name in `ARCHITECTURES`.
        namespace: `keras`, or `tf_keras` for the twin that is compressed.
        is_step: Whether to build the graph of one hop with explicit state.
        **size: Overrides of the default size, such as `channels=64`.

    Returns:
        Functional model of the given namespace.

    Raises:
        ValueError: If the name or a size argument is unknown.
    """
    _check_known("architecture", architecture, list(ARCHITECTURES))
    builder, defaults = ARCHITECTURES[architecture]
    for name in size:
        _check_known("size argument", name, list(defaults))
    return builder(**{**defaults, **size}, namespace=namespace, is_step=is_step)


def build(architecture: str, *, stft: StftConfig | None = None, **size: Any) -> SpeechEnhancer:
    """Builds an untrained network from noisy to enhanced speech.

    Args:
        architecture: `"nano"` (the student) or `"wide"` (the teacher).
        stft: Frame of the transform; default 512/256 at 16 kHz.
        **size: `num_bands`, `channels`, `dilations`.

    Returns:
        Model from `(B, N)` to `(B, N)`, samples in [-1, 1].

    Raises:
        ValueError: If the name or a size argument is unknown.
    """
    core = build_core(architecture, **size)
    return SpeechEnhancer(core, stft, architecture=architecture, size=size)


def _check_known(kind: str, name: str, known: list[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3) or known
    raise ValueError(f"Unknown {kind}. Received {name!r}. Use one of: {', '.join(near)}.")
