# SPDX-License-Identifier: Apache-2.0
"""Scores a system on clips with a clean reference."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any

import numpy as np

from lmkd_tf.config.processes import end_with_parent
from lmkd_tf.data.pipeline import EvaluationClip
from lmkd_tf.metrics.perceptual import Score
from lmkd_tf.metrics.si_sdr import si_sdr_db
from lmkd_tf.metrics.utterance import floored_scores

METRICS = (
    "pesq_wb", "stoi", "estoi", "si_sdr_db", "segmental_snr_db", "csig", "cbak", "covl",
    "dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl",
)  # fmt: skip
# Clips that are enhanced and not yet scored, per process: enough to keep all of them busy.
_MAX_WAITING = 3
# Lowest SI-SDR that counts: that of silence is minus infinity, which has no mean, and far below
# the noisy speech the figure says nothing but "failed".
SI_SDR_FLOOR_DB = -30.0


def score_clips(
    system_name: str,
    clips: Sequence[EvaluationClip],
    enhance: Callable[[np.ndarray], np.ndarray],
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    metrics: Sequence[str] = METRICS,
) -> list[dict[str, Any]]:
    """Enhances every clip and scores it against its clean speech.

    The network runs in this process; the scores, which take longer, are computed in
    processes of their own.

    Args:
        system_name: Name of the system in the rows.
        clips: Clips with `name`, `noisy`, `speech`, `snr_db` and `noise_category`.
        enhance: Maps noisy `(N,)` to enhanced `(N,)`; the identity scores the noisy speech.
        num_workers: Scoring processes; with 0 everything runs in this one.
        on_progress: Called with (clips scored, clips in all).
        metrics: Scores wanted, of `METRICS`.

    Returns:
        One row per clip: `system`, `file`, `snr_db` (None where unknown), `noise_category`, one
        value for each of `metrics`, None where the clean speech leaves it undefined, and `note`,
        which says why. What fails on sound speech, such as silence, gets the lowest score.

    Raises:
        ImportError: If the packages of the extra `eval` are missing.
        ValueError: If `enhance` changes the length or returns NaN.
    """
    rows = []
    signals = ((system_name, clip, enhance(clip.noisy)) for clip in clips)
    for row in score_signals(signals, num_workers, metrics):
        rows.append(row)
        if on_progress:
            on_progress(len(rows), len(clips))
    return rows


def score_signals(
    signals: Iterable[tuple[str, EvaluationClip, np.ndarray]],
    num_workers: int = 2,
    metrics: Sequence[str] = METRICS,
) -> Iterator[dict[str, Any]]:
    """Scores signals that are enhanced already, few of which are held at a time.

    Args:
        signals: Name of the system, clip, and enhanced signal `(N,)`, made when needed.
        num_workers: Scoring processes; with 0 everything runs in this one.
        metrics: Scores wanted, of `METRICS`.

    Yields:
        Rows as those of `score_clips`, in the order of the signals.

    Raises:
        ImportError: If the packages of the extra `eval` are missing.
        ValueError: If a signal has another length than its clip, or is not finite.
    """
    waiting: deque[tuple[dict[str, Any], Future, Score]] = deque()
    with ExitStack() as stack:
        submit = _submitter(stack, num_workers)
        for system_name, clip, signal in signals:
            enhanced = _checked(system_name, clip, signal)
            row = {"system": system_name, "file": clip.name, "snr_db": known_snr_db(clip)}
            row["noise_category"] = clip.noise_category
            names = [name for name in metrics if name != "si_sdr_db"]
            scores = submit(clip.speech, enhanced, names)
            waiting.append((row, scores, _si_sdr(clip.speech, enhanced)))
            while len(waiting) > _MAX_WAITING * num_workers:
                yield _finished(*waiting.popleft(), metrics)
        while waiting:
            yield _finished(*waiting.popleft(), metrics)


def known_snr_db(clip: EvaluationClip) -> float | None:
    """Returns the SNR of a clip in dB, None where it is unknown."""
    return float(clip.snr_db) if np.isfinite(clip.snr_db) else None


def mean_score(rows: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """Averages a metric over rows; undefined scores are left out.

    Returns:
        The mean, or None where no row has a score.
    """
    values = [row[metric] for row in rows if row.get(metric) is not None]
    return float(np.mean(values)) if values else None


def _submitter(stack: ExitStack, num_workers: int) -> Callable[..., "Future[dict[str, Score]]"]:
    if num_workers == 0:
        return _run_here
    # Spawned, because a fork of a process that runs TensorFlow's threads can hang. The
    # function sent there lies in a file without Keras, so these processes stay small.
    spawn = get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=spawn, initializer=end_with_parent)
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    return lambda *arguments: pool.submit(floored_scores, *arguments)


def _run_here(*arguments: Any) -> "Future[dict[str, Score]]":
    future: Future[dict[str, Score]] = Future()
    future.set_result(floored_scores(*arguments))
    return future


def _si_sdr(speech: np.ndarray, enhanced: np.ndarray) -> Score:
    try:
        value = si_sdr_db(speech, enhanced)
    except ValueError:
        return Score(None, "SI-SDR: silent reference")
    if value == np.inf:
        return Score(None, "SI-SDR: inf")
    if value < SI_SDR_FLOOR_DB:
        return Score(SI_SDR_FLOOR_DB, f"SI-SDR: {value:.1f} dB, counted as {SI_SDR_FLOOR_DB:g}")
    return Score(value)


def _finished(
    row: dict[str, Any],
    future: "Future[dict[str, Score]]",
    si_sdr: Score,
    metrics: Sequence[str],
) -> dict[str, Any]:
    scores: Mapping[str, Score] = {**future.result(), "si_sdr_db": si_sdr}
    notes = [scores[name].note for name in metrics if scores[name].note]
    return {**row, **{name: scores[name].value for name in metrics}, "note": "; ".join(notes)}


def _checked(system_name: str, clip: EvaluationClip, signal: np.ndarray) -> np.ndarray:
    enhanced = np.asarray(signal, np.float32)
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
