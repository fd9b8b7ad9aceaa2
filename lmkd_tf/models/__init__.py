# SPDX-License-Identifier: Apache-2.0
"""Networks, feature taps, presets and the streaming student."""

from lmkd_tf.models.builder import ARCHITECTURES, build
from lmkd_tf.models.enhancer import SpeechEnhancer
from lmkd_tf.models.presets import from_preset
from lmkd_tf.models.taps import FeatureTap

__all__ = ["ARCHITECTURES", "FeatureTap", "SpeechEnhancer", "build", "from_preset"]
