# SPDX-License-Identifier: Apache-2.0
"""Latent-mixup knowledge distillation for speech enhancement, from Keras to Cortex-M."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from lmkd_tf import compress, config, data, distill, dsp, evaluate, export, metrics, models
    from lmkd_tf.config.schema import StftConfig
    from lmkd_tf.distill.distiller import LatentMixupDistiller
    from lmkd_tf.distill.losses import SpeechLoss
    from lmkd_tf.evaluate.streaming import StreamingEnhancer
    from lmkd_tf.models.enhancer import SpeechEnhancer
    from lmkd_tf.models.taps import FeatureTap

__version__ = "0.1.0"

_CLASSES = {
    "FeatureTap": "lmkd_tf.models.taps",
    "LatentMixupDistiller": "lmkd_tf.distill.distiller",
    "SpeechEnhancer": "lmkd_tf.models.enhancer",
    "SpeechLoss": "lmkd_tf.distill.losses",
    "StftConfig": "lmkd_tf.config.schema",
    "StreamingEnhancer": "lmkd_tf.evaluate.streaming",
}
_PACKAGES = (
    "compress", "config", "data", "distill", "dsp", "evaluate", "export", "metrics", "models",
)  # fmt: skip

__all__ = [
    "FeatureTap",
    "LatentMixupDistiller",
    "SpeechEnhancer",
    "SpeechLoss",
    "StftConfig",
    "StreamingEnhancer",
    "__version__",
    "compress",
    "config",
    "data",
    "distill",
    "dsp",
    "evaluate",
    "export",
    "metrics",
    "models",
]


def __getattr__(name: str) -> _typing.Any:
    """Imports a public name when it is first used, so that importing the package is quick."""
    if name in _CLASSES:
        value = getattr(_importlib.import_module(_CLASSES[name]), name)
        return globals().setdefault(name, value)  # from now on an ordinary attribute
    if name in _PACKAGES:
        return _importlib.import_module(f"lmkd_tf.{name}")
    raise AttributeError(f"module 'lmkd_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
