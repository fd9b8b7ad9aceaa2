# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lmkd_tf.cli.stages import core_builder
from lmkd_tf.compress.quantization import load_quantized
from lmkd_tf.models.enhancer import SpeechEnhancer, load_enhancer
from tests.workflow.road import FinishedRoad, finished_road, real_audio

HOP_LENGTH = 256
NUM_FRAMES = 600


@dataclass(frozen=True)
class Stream:
    """Noisy speech of a corpus and its features, float32, `(N,)` and `(T, E)`."""

    noisy: np.ndarray
    features: np.ndarray


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> FinishedRoad:
    return finished_road(tmp_path_factory)


@pytest.fixture(scope="session")
def pruned(road) -> SpeechEnhancer:
    """The float student that was quantized."""
    return load_enhancer(road.workdir / "pruned" / "pruned.keras")


@pytest.fixture(scope="session")
def quantized(road) -> Any:
    """The trained core with fake quantization, whole utterances."""
    weights = road.workdir / "quantized" / "quantized.weights.h5"
    return load_quantized(core_builder(road.config.student), weights)


@pytest.fixture(scope="session", params=["embedded", "recorded"])
def stream(request, road, pruned) -> Stream:
    """600 frames of the embedded corpus, and of real recordings where there are any."""
    is_embedded = request.param == "embedded"
    corpus = road.corpus if is_embedded else request.getfixturevalue("shared_data")
    noisy = real_audio(NUM_FRAMES * HOP_LENGTH, corpus)
    features = np.asarray(pruned.analyze(noisy[None])[0])[0, :, 0]
    return Stream(noisy, features)
