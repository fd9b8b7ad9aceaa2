# SPDX-License-Identifier: Apache-2.0
"""One table of architectures and one function that builds them."""

import difflib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.models.cmgan import CMGANEnhancer, build_cmgan
from lmkd_tf.models.enhancer import SpeechEnhancer
from lmkd_tf.models.grid import build_grid
from lmkd_tf.models.grid_variants import GridVariantEnhancer, build_grid_variant
from lmkd_tf.models.gru import build_gru
from lmkd_tf.models.tcn import build_tcn

_CMGAN: dict[str, Any] = {
    "num_blocks": 4,
    "frame": (400, 100),
    "max_distances": (512, 512),
    "dropout": 0.2,
}

_NANO: dict[str, Any] = {
    "num_bands": 144,
    "bands_per_position": 8,
    "encoder_channels": 16,
    "channels": 32,
    "dilations": (),
    "squeeze_channels": 8,
    "bottleneck_channels": 72,
    "bottleneck_dilations": (),
    "recurrent_channels": 52,
}
# With blocks that remember frames at a distance, as it was when its variants were compared.
_NANO_DILATED: dict[str, Any] = {
    **_NANO,
    "channels": 24,
    "dilations": (1,),
    "bottleneck_dilations": (2, 8),
    "recurrent_channels": 0,
}

# name -> (builder of the core, its default size). A core maps features
# (B, T, 1, E) to a mask (B, T, 1, E); see `build_tcn` for the step graph.
ARCHITECTURES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "nano": (build_grid, _NANO),
    "small": (
        build_grid,
        {
            "num_bands": 192,
            "bands_per_position": 4,
            "encoder_channels": 24,
            "channels": 48,
            "dilations": (0, 0, 0),
            "squeeze_channels": 6,
            "bottleneck_channels": 32,
            "bottleneck_dilations": (),
            "recurrent_channels": 32,
        },
    ),
    "base": (
        build_grid,
        {
            "num_bands": 256,
            "bands_per_position": 4,
            "encoder_channels": 32,
            "channels": 64,
            "dilations": (0, 0, 0, 0),
            "squeeze_channels": 8,
            "bottleneck_channels": 36,
            "bottleneck_dilations": (),
            "recurrent_channels": 36,
        },
    ),
    "wide": (
        build_grid,
        {
            "num_bands": 256,
            "bands_per_position": 4,
            "encoder_channels": 48,
            "channels": 128,
            "dilations": (1, 2, 4, 1, 2, 4),
            "squeeze_channels": 16,
            "bottleneck_channels": 192,
            "bottleneck_dilations": (1, 2, 4, 8),
            "recurrent_channels": 0,
        },
    ),
    "tcn": (build_tcn, {"num_bands": 128, "channels": 96, "dilations": (1, 2, 4, 8) * 2}),
    "gru": (build_gru, {"num_bands": 128, "channels": 96}),
    "nano_variant": (
        build_grid_variant,
        {**_NANO_DILATED, "upsampling": "sub_pixel", "num_filtered_bins": 64, "num_taps": 3},
    ),
    "cmgan": (build_cmgan, {"channels": 64, **_CMGAN}),
    "cmgan_student": (build_cmgan, {"channels": 12, **_CMGAN}),
}
# What is around a core where it is not `SpeechEnhancer`.
_ENHANCERS: dict[Callable[..., Any], type[SpeechEnhancer]] = {
    build_cmgan: CMGANEnhancer,
    build_grid_variant: GridVariantEnhancer,
}


def is_streaming(architecture: str) -> bool:
    """Returns whether an architecture has a step graph."""
    return ARCHITECTURES[architecture][0] not in _ENHANCERS


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
    whole = whole_size(architecture, **size)
    return ARCHITECTURES[architecture][0](**whole, namespace=namespace, is_step=is_step)


def whole_size(architecture: str, **size: Any) -> dict[str, Any]:
    """Returns every size argument of a network; a record keeps them, because defaults change.

    Args:
        architecture: Name in `ARCHITECTURES`.
        **size: Overrides of the default size.

    Returns:
        Name -> value.

    Raises:
        ValueError: If the name or a size argument is unknown.
    """
    _check_known("architecture", architecture, list(ARCHITECTURES))
    defaults = ARCHITECTURES[architecture][1]
    for name in size:
        _check_known("size argument", name, list(defaults))
    return {**defaults, **size}


def build(architecture: str, *, stft: StftConfig | None = None, **size: Any) -> SpeechEnhancer:
    """Builds an untrained network from noisy to enhanced speech.

    Args:
        architecture: Name in `ARCHITECTURES`: the students `"nano"`, `"small"` and
            `"base"`, the teacher `"wide"`, `"tcn"`, `"gru"` and `"nano_variant"` to compare
            with, or `"cmgan"` and `"cmgan_student"`, which see the future.
        stft: Frame of the transform; default 512/256 at 16 kHz.
        **size: Sizes other than the architecture's own, such as `num_bands`, `channels`
            and `dilations`.

    Returns:
        Model from `(B, N)` to `(B, N)`, samples in [-1, 1].

    Raises:
        ValueError: If the name or a size argument is unknown.
    """
    core = build_core(architecture, **size)
    builder, defaults = ARCHITECTURES[architecture]
    enhancer = _ENHANCERS.get(builder, SpeechEnhancer)
    return enhancer(core, stft, architecture=architecture, size={**defaults, **size})


def _check_known(kind: str, name: str, known: list[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3) or known
    raise ValueError(f"Unknown {kind}. Received {name!r}. Use one of: {', '.join(near)}.")
