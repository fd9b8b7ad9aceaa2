# SPDX-License-Identifier: Apache-2.0
"""All scores of one utterance, for the scoring processes; nothing here imports Keras."""

import numpy as np

from lmkd_tf.metrics.composite import composite_scores, segmental_snr_db
from lmkd_tf.metrics.p835 import dnsmos
from lmkd_tf.metrics.perceptual import Score, estoi, pesq_wb, stoi


def utterance_scores(reference: np.ndarray, estimate: np.ndarray) -> dict[str, Score]:
    """Computes every score but SI-SDR, which `lmkd_tf.metrics.si_sdr` has.

    PESQ, STOI, ESTOI, CSIG and COVL do not depend on the level of the estimate; segmental
    SNR, CBAK and DNSMOS do.

    Args:
        reference: Clean speech at 16 kHz in [-1, 1], shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.

    Returns:
        `pesq_wb`, `stoi`, `estoi`, `segmental_snr_db`, `csig`, `cbak`, `covl`, `dnsmos_sig`,
        `dnsmos_bak` and `dnsmos_ovrl`; a value is None with a note where it is undefined.

    Raises:
        ImportError: If the packages of the extra `eval` are missing.
        ValueError: If the shapes differ.
    """
    pesq = pesq_wb(reference, estimate)
    scores = {"pesq_wb": pesq, "stoi": stoi(reference, estimate)}
    scores["estoi"] = estoi(reference, estimate)
    scores["segmental_snr_db"] = _segmental_snr_db(reference, estimate)
    if pesq.value is None:
        scores.update(dict.fromkeys(("csig", "cbak", "covl"), Score(None)))
    else:
        predicted = composite_scores(reference, estimate, pesq.value)
        scores.update({name: Score(value) for name, value in predicted._asdict().items()})
    opinions = dnsmos(estimate)._asdict()
    scores.update({f"dnsmos_{name}": Score(value) for name, value in opinions.items()})
    return scores


def _segmental_snr_db(reference: np.ndarray, estimate: np.ndarray) -> Score:
    try:
        return Score(segmental_snr_db(reference, estimate))
    except ValueError:
        return Score(None, "segmental SNR: shorter than a frame")
