# SPDX-License-Identifier: Apache-2.0
"""Scores a system on clips with a clean reference."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any

import numpy as np

from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.metrics.perceptual import Score, perceptual_scores
from lmkd_tf.metrics.si_sdr import si_sdr_db

METRICS = ("pesq_wb", "stoi", "si_sdr_db")


def score_clips(
    system_name: str,
    clips: Sequence[EvaluationClip],
    enhance: Callable[[np.ndarray], np.ndarray],
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Enhances every clip and scores it against its clean speech.

    The network runs in this process; PESQ and STOI, which take longer, run in
    processes of their own.

    Args:
        system_name: Name of the system in the rows.
        clips: Clips with `name`, `noisy`, `speech`, `snr_db` and `noise_category`.
        enhance: Maps noisy `(N,)` to enhanced `(N,)`; the identity scores the noisy speech.
        num_workers: Scoring processes; with 0 everything runs in this one.
        on_progress: Called with (clips scored, clips in all).

    Returns:
        One row per clip: `system`, `file`, `snr_db`, `noise_category`, `pesq_wb`,
        `stoi`, `si_sdr_db` and `note`; a metric is None where it is undefined.

    Raises:
        ImportError: If the packages of the extra `eval` are missing.
        ValueError: If `enhance` changes the length or returns NaN.
    """
    rows, pending = [], []
    with ExitStack() as stack:
        submit = _submitter(stack, num_workers)
        for clip in clips:
            enhanced = _enhanced(system_name, clip, enhance)
            row = {"system": system_name, "file": clip.name, "snr_db": float(clip.snr_db)}
            rows.append({**row, "noise_category": clip.noise_category})
            pending.append((submit(clip.speech, enhanced), _si_sdr(clip.speech, enhanced)))
            if num_workers == 0 and on_progress:
                on_progress(len(pending), len(clips))
        for index, (future, si_sdr) in enumerate(pending):
            rows[index].update(_as_columns([*future.result(), si_sdr]))
            if num_workers > 0 and on_progress:
                on_progress(index + 1, len(clips))
    return rows


def _submitter(stack: ExitStack, num_workers: int) -> Callable[..., "Future[list[Score]]"]:
    if num_workers == 0:
        return _run_here
    # Spawned, because a fork of a process that runs TensorFlow's threads can hang. The
    # function sent there lies in a file without Keras, so these processes stay small.
    pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"))
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    return lambda *signals: pool.submit(perceptual_scores, *signals)


def _run_here(*signals: np.ndarray) -> "Future[list[Score]]":
    future: Future[list[Score]] = Future()
    future.set_result(perceptual_scores(*signals))
    return future


def _si_sdr(speech: np.ndarray, enhanced: np.ndarray) -> Score:
    try:
        value = si_sdr_db(speech, enhanced)
    except ValueError:
        return Score(None, "SI-SDR: silent reference")
    return Score(value) if np.isfinite(value) else Score(None, f"SI-SDR: {value}")


def _as_columns(scores: Sequence[Score]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: score.value for name, score in zip(METRICS, scores, strict=True)
    }
    return {**columns, "note": "; ".join(score.note for score in scores if score.note)}


def _enhanced(
    system_name: str, clip: EvaluationClip, enhance: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    enhanced = np.asarray(enhance(clip.noisy), np.float32)
    if enhanced.shape != clip.speech.shape:
        raise ValueError(
            "A system must keep the length of the signal. "
            f"Received {enhanced.shape} for {clip.speech.shape} from {system_name!r} "
            f"on clip {clip.name!r}. Cut or pad its output."
        )
    if not np.isfinite(enhanced).all():
        raise ValueError(
            "A system must return finite samples. "
            f"Received NaN or infinity from {system_name!r} on clip {clip.name!r}. "
            "Check its weights."
        )
    return enhanced
