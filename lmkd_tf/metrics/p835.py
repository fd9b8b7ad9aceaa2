# SPDX-License-Identifier: Apache-2.0
"""DNSMOS P.835: opinion of speech, background and whole, predicted by a network of Microsoft.

Reddy, Gopal and Cutler, ICASSP 2022. The network is a file of the package `speechmos`, which
the extra `eval` installs with `onnxruntime`; nothing is downloaded. Of that package only the
file is used, since its own code asks for librosa.
"""

import functools
import importlib.resources
from typing import Any, NamedTuple

import numpy as np

from lmkd_tf.metrics.perceptual import SAMPLE_RATE_HZ, import_package

_MODEL_FILE = ("dnsmos_models", "sig_bak_ovr.onnx")
_WINDOW_LENGTH = round(9.01 * SAMPLE_RATE_HZ)
# From the outputs of the network to the scale of listeners, highest power first: the fit that
# was published with the network, for SIG, BAK and OVRL.
_CALIBRATIONS = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


class Dnsmos(NamedTuple):
    """Predicted mean opinion scores, 1 to 5."""

    sig: float
    bak: float
    ovrl: float


def dnsmos(estimate: np.ndarray) -> Dnsmos:
    """Predicts the opinion of listeners without a reference.

    Windows of 9.01 s are judged every second and averaged; a shorter signal is repeated, as
    the published scores do. The result depends on the level of the signal.

    Args:
        estimate: Signal to judge at 16 kHz in [-1, 1], shape `(N,)`; cut to that range.

    Returns:
        SIG, BAK and OVRL.

    Raises:
        ImportError: If `speechmos` or `onnxruntime` is not installed.
        ValueError: If the signal is empty or not one-dimensional.
    """
    samples = np.clip(np.asarray(estimate, np.float32), -1.0, 1.0)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(
            "`estimate` must be one channel of shape (N,), N above 0. "
            f"Received shape {samples.shape}. Judge each channel alone."
        )
    while samples.size < _WINDOW_LENGTH:
        samples = np.concatenate([samples, samples])
    num_windows = max(1, samples.size // SAMPLE_RATE_HZ - 9)
    starts = SAMPLE_RATE_HZ * np.arange(num_windows)[:, None]
    windows = samples[starts + np.arange(_WINDOW_LENGTH)]
    session = _session()
    raw = np.concatenate([session.run(None, {"input_1": w[None]})[0] for w in windows])
    scores = [
        float(np.mean(np.polyval(calibration, column)))
        for calibration, column in zip(_CALIBRATIONS, raw.astype(np.float64).T, strict=True)
    ]
    return Dnsmos(*scores)


@functools.cache
def _session() -> Any:
    runtime = import_package("onnxruntime")
    import_package("speechmos")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # utterances are scored in parallel
    model = importlib.resources.files("speechmos").joinpath(*_MODEL_FILE).read_bytes()
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
