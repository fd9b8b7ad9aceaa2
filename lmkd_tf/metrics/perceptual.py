# SPDX-License-Identifier: Apache-2.0
"""PESQ, STOI and ESTOI through the packages `pesq` and `pystoi`, which the extra `eval` installs.

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
    pesq = import_package("pesq")
    check_shapes(reference, estimate)
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
    return _stoi(reference, estimate, is_extended=False)


def estoi(reference: np.ndarray, estimate: np.ndarray) -> Score:
    """Computes extended STOI (Jensen and Taal, IEEE/ACM TASLP 24(11), 2016), about 0 to 1.

    It compares spectra over time as well, so it notices modulated noise. Arguments, result
    and errors are those of `stoi`.
    """
    return _stoi(reference, estimate, is_extended=True)


def import_package(name: str) -> ModuleType:
    """Imports a package of the extra `eval`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Scoring needs the package {name}. It is not installed here. "
            'Run: pip install "lmkd-tf[eval]".'
        ) from error


def check_shapes(reference: np.ndarray, estimate: np.ndarray) -> None:
    """Refuses a pair of signals that is not two equally long vectors.

    Raises:
        ValueError: If the shapes differ or are not `(N,)`.
    """
    if np.shape(reference) != np.shape(estimate) or np.ndim(reference) != 1:
        raise ValueError(
            "`reference` and `estimate` must have the same shape (N,). "
            f"Received {np.shape(reference)} and {np.shape(estimate)}. "
            "Cut both to the same length."
        )


def _stoi(reference: np.ndarray, estimate: np.ndarray, is_extended: bool) -> Score:
    pystoi = import_package("pystoi")
    check_shapes(reference, estimate)
    name = "ESTOI" if is_extended else "STOI"
    if not np.any(reference):
        return Score(None, f"{name}: silent reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            signals = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
            return Score(float(pystoi.stoi(*signals, SAMPLE_RATE_HZ, extended=is_extended)))
        except RuntimeWarning:
            return Score(None, f"{name}: less than 0.4 s of active speech")


def _text_of(error: Exception) -> str:
    message = error.args[0] if error.args else type(error).__name__
    return message.decode() if isinstance(message, bytes) else str(message)
