# SPDX-License-Identifier: Apache-2.0
"""PESQ and STOI through the packages `pesq` and `pystoi`, which the extra `eval` installs.

Nothing heavy is imported here, because the scoring processes start from this file.
"""

import importlib
import warnings
from types import ModuleType
from typing import NamedTuple

import numpy as np

SAMPLE_RATE_HZ = 16000


class Score(NamedTuple):
    """Value of a metric; None with the reason in `note` where it is undefined."""

    value: float | None
    note: str = ""


def pesq_wb(reference: np.ndarray, estimate: np.ndarray) -> Score:
    """Computes wide-band PESQ (ITU-T P.862.2), about 1.0 to 4.64.

    Args:
        reference: Clean speech at 16 kHz in [-1, 1], shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.

    Returns:
        The score; undefined for silence and below a quarter of a second.

    Raises:
        ImportError: If `pesq` is not installed.
        ValueError: If the shapes differ.
    """
    pesq = _import("pesq")
    _check_shapes(reference, estimate)
    if not np.any(estimate):
        return Score(None, "PESQ: silent estimate")
    try:
        signals = np.asarray(reference, np.float32), np.asarray(estimate, np.float32)
        return Score(float(pesq.pesq(SAMPLE_RATE_HZ, *signals, "wb")))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError) as error:
        return Score(None, f"PESQ: {_text_of(error)}")


def stoi(reference: np.ndarray, estimate: np.ndarray) -> Score:
    """Computes STOI (Taal et al., IEEE TASL 19(7), 2011), about 0 to 1.

    Args:
        reference: Clean speech at 16 kHz in [-1, 1], shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.

    Returns:
        The score; undefined with less than 0.4 s of active speech.

    Raises:
        ImportError: If `pystoi` is not installed.
        ValueError: If the shapes differ.
    """
    pystoi = _import("pystoi")
    _check_shapes(reference, estimate)
    if not np.any(reference):
        return Score(None, "STOI: silent reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            signals = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
            return Score(float(pystoi.stoi(*signals, SAMPLE_RATE_HZ, extended=False)))
        except RuntimeWarning:
            return Score(None, "STOI: less than 0.4 s of active speech")


def perceptual_scores(reference: np.ndarray, estimate: np.ndarray) -> list[Score]:
    """Computes `pesq_wb` and `stoi`, in this order; see there."""
    return [pesq_wb(reference, estimate), stoi(reference, estimate)]


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Scoring needs the package {name}. It is not installed here. "
            'Run: pip install "lmkd-tf[eval]".'
        ) from error


def _check_shapes(reference: np.ndarray, estimate: np.ndarray) -> None:
    if np.shape(reference) != np.shape(estimate) or np.ndim(reference) != 1:
        raise ValueError(
            "`reference` and `estimate` must have the same shape (N,). "
            f"Received {np.shape(reference)} and {np.shape(estimate)}. "
            "Cut both to the same length."
        )


def _text_of(error: Exception) -> str:
    message = error.args[0] if error.args else type(error).__name__
    return message.decode() if isinstance(message, bytes) else str(message)
