# SPDX-License-Identifier: Apache-2.0
"""All scores of one utterance, for the scoring processes; nothing here imports Keras."""

import math
from collections.abc import Sequence

import numpy as np

from lmkd_tf.metrics.composite import composite_scores, segmental_snr_db
from lmkd_tf.metrics.p835 import dnsmos
from lmkd_tf.metrics.perceptual import Score, estoi, pesq_wb, stoi

_COMPOSITE = ("csig", "cbak", "covl")
_OPINION = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")
SCORES = ("pesq_wb", "stoi", "estoi", "segmental_snr_db", *_COMPOSITE, *_OPINION)
# What an estimate gets that a metric cannot judge though the reference is sound: the lowest
# score there is. Left out, it would make a system better to lose its hardest clips.
FLOORS = {"pesq_wb": 1.0, "stoi": 0.0, "estoi": 0.0, **dict.fromkeys(_COMPOSITE, 1.0)}


def floored_scores(
    reference: np.ndarray, estimate: np.ndarray, names: Sequence[str] = SCORES
) -> dict[str, Score]:
    """Computes scores of which only those of an unsuitable reference are undefined.

    Arguments, result and errors are those of `utterance_scores`; a silent estimate of sound
    speech, or one in which a metric finds nothing, gets the value in `FLOORS` and a note.
    """
    scores = utterance_scores(reference, estimate, names)
    failed = [name for name in names if name in FLOORS and not _is_defined(scores[name])]
    if not failed:
        return scores
    # A reference that cannot be compared with itself is the cause, whatever the estimate.
    best = utterance_scores(reference, reference, failed)
    return {**scores, **{n: _floored(n, scores[n]) for n in failed if _is_defined(best[n])}}


def utterance_scores(
    reference: np.ndarray, estimate: np.ndarray, names: Sequence[str] = SCORES
) -> dict[str, Score]:
    """Computes scores of one utterance; SI-SDR is in `lmkd_tf.metrics.si_sdr`.

    PESQ, STOI, ESTOI, CSIG and COVL do not depend on the level of the estimate; segmental
    SNR, CBAK and DNSMOS do.

    Args:
        reference: Clean speech at 16 kHz in [-1, 1], shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.
        names: Scores wanted, of `SCORES`.

    Returns:
        Score by name; a value is None with a note where it is undefined.

    Raises:
        ImportError: If the packages of the extra `eval` are missing.
        ValueError: If the shapes differ.
    """
    scores: dict[str, Score] = {}
    if {"pesq_wb", *_COMPOSITE} & set(names):
        scores["pesq_wb"] = pesq_wb(reference, estimate)
    if set(_COMPOSITE) & set(names):
        scores.update(_composite(reference, estimate, scores["pesq_wb"].value))
    if set(_OPINION) & set(names):
        scores.update(zip(_OPINION, map(Score, dnsmos(estimate)), strict=True))
    single = {"stoi": stoi, "estoi": estoi, "segmental_snr_db": _segmental_snr_db}
    for name in single.keys() & set(names):
        scores[name] = single[name](reference, estimate)
    return {name: scores[name] for name in names}


def _is_defined(score: Score) -> bool:
    return score.value is not None and math.isfinite(score.value)


def _floored(name: str, score: Score) -> Score:
    note = score.note or f"{name}: not computable"
    return Score(FLOORS[name], f"{note}, counted as {FLOORS[name]:g}")


def _composite(reference: np.ndarray, estimate: np.ndarray, pesq: float | None) -> dict[str, Score]:
    if pesq is None:
        return dict.fromkeys(_COMPOSITE, Score(None))
    return {
        name: Score(value)
        for name, value in composite_scores(reference, estimate, pesq)._asdict().items()
    }


def _segmental_snr_db(reference: np.ndarray, estimate: np.ndarray) -> Score:
    try:
        return Score(segmental_snr_db(reference, estimate))
    except ValueError:
        return Score(None, "segmental SNR: shorter than a frame")
