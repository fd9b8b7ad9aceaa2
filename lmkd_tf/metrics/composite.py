# SPDX-License-Identifier: Apache-2.0
"""CSIG, CBAK and COVL: predicted opinion of the speech, the background and the whole, 1 to 5.

Regressions of Hu and Loizou, "Evaluation of Objective Quality Measures for Speech
Enhancement", IEEE TASL 16(1), 2008, table IV, with PESQ replaced by wide-band PESQ, as in all
published VoiceBank+DEMAND tables since SEGAN (2017):

    CSIG = 3.093 - 1.029 LLR + 0.603 PESQ - 0.009 WSS
    CBAK = 1.634 + 0.478 PESQ - 0.007 WSS + 0.063 segmental SNR
    COVL = 1.594 + 0.805 PESQ - 0.512 LLR - 0.007 WSS

LLR is the log-likelihood ratio of linear predictions, WSS Klatt's weighted spectral slope;
both are means over the lower 95 % of frames of 30 ms, every 7.5 ms.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from lmkd_tf.metrics.perceptual import check_shapes

_FRAME_LENGTH = 480  # 30 ms at 16 kHz
_HOP_LENGTH = 120
_KEPT_SHARE = 0.95
_LPC_ORDER = 16
_FFT_LENGTH = 1024
_SNR_RANGE_DB = (-10.0, 35.0)
_EPSILON = np.finfo(np.float64).eps
# Loizou's table of the 25 critical bands: centers and bandwidths in Hz.
_BAND_CENTERS_HZ = np.array([
    50.0, 120.0, 190.0, 260.0, 330.0, 400.0, 470.0, 540.0, 617.372, 703.378, 798.717, 904.128,
    1020.38, 1148.30, 1288.72, 1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97,
    2978.04, 3276.17, 3597.63,
])  # fmt: skip
_BANDWIDTHS_HZ = np.array([
    70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 77.3724, 86.0056, 95.3398, 105.411, 116.256,
    127.914, 140.423, 153.823, 168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072,
    298.126, 321.465, 346.136,
])  # fmt: skip


class Composite(NamedTuple):
    """Predicted mean opinion scores, 1 to 5."""

    csig: float
    cbak: float
    covl: float


def composite_scores(reference: np.ndarray, estimate: np.ndarray, pesq: float) -> Composite:
    """Computes CSIG, CBAK and COVL, each cut to [1, 5].

    CBAK depends on the level of the estimate, through the segmental SNR; the others do not.

    Args:
        reference: Clean speech at 16 kHz in [-1, 1], shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.
        pesq: Wide-band PESQ of the estimate.

    Returns:
        The three scores.

    Raises:
        ValueError: If the shapes differ or the signals are shorter than a frame.
    """
    llr = _mean_of_lower(log_likelihood_ratios(reference, estimate))
    wss = _mean_of_lower(spectral_slope_distances(reference, estimate))
    snr_db = segmental_snr_db(reference, estimate)
    scores = (
        3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss,
        1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * snr_db,
        1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss,
    )
    return Composite(*(float(np.clip(score, 1.0, 5.0)) for score in scores))


def segmental_snr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Computes the mean SNR of frames of 30 ms, each cut to [-10, 35] dB.

    It depends on the level of the estimate: the error is the plain difference.

    Args:
        reference: Clean speech at 16 kHz, shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.

    Returns:
        Segmental SNR in dB.

    Raises:
        ValueError: If the shapes differ or the signals are shorter than a frame.
    """
    speech, estimated = _framed(reference, estimate)
    speech_energy = np.sum(speech**2, axis=1)
    error_energy = np.sum((speech - estimated) ** 2, axis=1)
    snr_db = 10.0 * np.log10(speech_energy / (error_energy + _EPSILON) + _EPSILON)
    return float(np.mean(np.clip(snr_db, *_SNR_RANGE_DB)))


def log_likelihood_ratios(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Computes how badly the estimate's linear prediction predicts the reference.

    Args:
        reference: Clean speech at 16 kHz, shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.

    Returns:
        One ratio of error energies per frame, as natural logarithm, shape `(T,)`; 0 where
        the reference is silent.

    Raises:
        ValueError: If the shapes differ or the signals are shorter than a frame.
    """
    speech, estimated = (_autocorrelation(frames) for frames in _framed(reference, estimate))
    ratios = np.zeros(len(speech))
    for index, (own, other) in enumerate(zip(speech, estimated, strict=True)):
        if own[0] > 0.0:
            matrix = scipy.linalg.toeplitz(own)
            best, found = _prediction_filter(own), _prediction_filter(other)
            ratios[index] = np.log((found @ matrix @ found) / (best @ matrix @ best))
    return ratios


def spectral_slope_distances(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Computes Klatt's weighted distance of spectral slopes.

    Slopes are level differences of neighboring critical bands. They weigh the more, the
    nearer the band is to the frame's highest peak and to the next peak.

    Args:
        reference: Clean speech at 16 kHz, shape `(N,)`.
        estimate: Signal to judge, shape `(N,)`.

    Returns:
        One distance per frame, in dB squared, shape `(T,)`.

    Raises:
        ValueError: If the shapes differ or the signals are shorter than a frame.
    """
    levels = [_band_levels_db(frames) for frames in _framed(reference, estimate)]
    slopes = [np.diff(level, axis=1) for level in levels]
    weights = sum(_slope_weights(*pair) for pair in zip(levels, slopes, strict=True)) / 2
    distances = np.sum(weights * (slopes[0] - slopes[1]) ** 2, axis=1)
    return distances / np.sum(weights, axis=1)


def _framed(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns windowed frames `(T, frame)` of both signals."""
    check_shapes(reference, estimate)
    count = (len(reference) - _FRAME_LENGTH) // _HOP_LENGTH
    if count < 1:
        raise ValueError(
            f"Frames of 30 ms need at least {_FRAME_LENGTH + _HOP_LENGTH} samples. "
            f"Received {len(reference)}. Leave this clip out."
        )
    positions = np.arange(1, _FRAME_LENGTH + 1) / (_FRAME_LENGTH + 1)
    window = 0.5 * (1.0 - np.cos(2.0 * np.pi * positions))
    starts = _HOP_LENGTH * np.arange(count)[:, None]
    indices = starts + np.arange(_FRAME_LENGTH)
    speech, estimated = (np.asarray(s, np.float64)[indices] for s in (reference, estimate))
    return window * speech, window * estimated


def _mean_of_lower(distances: np.ndarray) -> float:
    """Averages the lower 95 %: a few frames with absurd distances would decide the mean."""
    count = round(_KEPT_SHARE * len(distances))
    return float(np.mean(np.sort(distances)[: max(1, count)]))


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    """Returns lags 0 to 16 of every frame, shape `(T, 17)`."""
    return np.stack(
        [
            np.sum(frames[:, : _FRAME_LENGTH - lag] * frames[:, lag:], axis=1)
            for lag in range(_LPC_ORDER + 1)
        ],
        axis=1,
    )


def _prediction_filter(correlation: np.ndarray) -> np.ndarray:
    """Returns the coefficients `(17,)` of the prediction error, of which the first is 1."""
    if correlation[0] == 0.0:
        return np.eye(1, _LPC_ORDER + 1)[0]  # silence: nothing is predicted
    floor = 1e-12 * correlation[0]  # keeps a pure tone solvable
    column = correlation[:-1] + floor * np.eye(1, _LPC_ORDER)[0]
    return np.concatenate([[1.0], -scipy.linalg.solve_toeplitz(column, correlation[1:])])


def _band_levels_db(frames: np.ndarray) -> np.ndarray:
    """Returns the level of 25 critical bands, shape `(T, 25)`."""
    num_bins = _FFT_LENGTH // 2
    power = np.abs(np.fft.rfft(frames, _FFT_LENGTH)[:, :num_bins]) ** 2
    return 10.0 * np.log10(np.maximum(power @ _band_filters(num_bins).T, 1e-10))


def _band_filters(num_bins: int) -> np.ndarray:
    """Returns Gaussian filters `(25, F)`, cut below -30 dB."""
    bin_hz = 8000.0 / num_bins
    centers = np.floor(_BAND_CENTERS_HZ / bin_hz)[:, None]
    widths = (_BANDWIDTHS_HZ / bin_hz)[:, None]
    gains = np.log(_BANDWIDTHS_HZ[0] / _BANDWIDTHS_HZ)[:, None]
    filters = np.exp(-11.0 * ((np.arange(num_bins) - centers) / widths) ** 2 + gains)
    return np.where(filters > np.exp(-30.0 / (2.0 * 2.303)), filters, 0.0)


def _slope_weights(levels_db: np.ndarray, slopes_db: np.ndarray) -> np.ndarray:
    """Returns one weight per slope, shape `(T, 24)`."""
    below_maximum = np.max(levels_db, axis=1, keepdims=True) - levels_db[:, :-1]
    below_peak = _next_peaks_db(levels_db, slopes_db) - levels_db[:, :-1]
    return 20.0 / (20.0 + below_maximum) / (1.0 + below_peak)


def _next_peaks_db(levels_db: np.ndarray, slopes_db: np.ndarray) -> np.ndarray:
    """Returns for every slope the level at the top of the hill that it lies on, `(T, 24)`.

    A rising slope looks up the bands, a falling one down. As in Loizou's program, the top of
    a rising run is the band before its last rise.
    """
    num_slopes = slopes_db.shape[1]
    is_rising = slopes_db > 0.0
    peaks = np.empty_like(slopes_db)
    top = levels_db[:, num_slopes - 1].copy()
    for band in range(num_slopes - 1, -1, -1):
        goes_on = is_rising[:, band + 1] if band + 1 < num_slopes else np.zeros(len(top), bool)
        top = np.where(goes_on, top, levels_db[:, band])
        peaks[:, band] = top
    bottom = levels_db[:, 0].copy()
    for band in range(num_slopes):
        goes_on = ~is_rising[:, band - 1] if band > 0 else np.zeros(len(bottom), bool)
        bottom = np.where(goes_on, bottom, levels_db[:, band])
        peaks[:, band] = np.where(is_rising[:, band], peaks[:, band], bottom)
    return peaks
