// SPDX-License-Identifier: Apache-2.0
// The steps of a hop around the network, float, on memory of the caller. lmkd.c calls them in
// order; each can be tested on its own. Python's dsp/stft.py, features.py and mask.py define them.
#ifndef LMKD_FRONT_END_H
#define LMKD_FRONT_END_H

#include <stdint.h>

#include "tables.h"

// Rounding adds a large number and subtracts it again, and NaN is found by arithmetic: both vanish
// where the compiler may reorder sums or takes every number for finite.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "Compile lmkd without -ffast-math and -Ofast, or with -fno-fast-math behind them."
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Windows a frame: the previous hop, then the newest, which becomes the previous one. `frame` has
// LMKD_FFT_LENGTH samples, zero behind the window.
void lmkd_window_frame(const float *hop, float *previous_hop, float *frame);

// Normalized log energies of the bands, about -1 (silence) to 1 (full scale), of a packed
// spectrum (fft.h).
void lmkd_band_features(const float *spectrum, float *features);

// Codes of the features, ties to even, saturating.
void lmkd_quantize_features(const float *features, int8_t *codes);

// Amplitude factors of the bands from the codes of the mask, none below `lowest`.
void lmkd_band_gains(const int8_t *mask, float lowest, float *gains);

// Multiplies every bin of a packed spectrum by the gains of its bands, interpolated.
void lmkd_apply_gains(const float *gains, float *spectrum);

// Windows a frame and adds it: `hop` receives the finished samples, `overlap` keeps the rest.
void lmkd_overlap_add(const float *frame, float *overlap, float *hop);

// Amplitude factor of a level: 10^(level_db / 20), level_db from -200 to 0.
float lmkd_amplitude(float level_db);

// Nearest integer as a float, ties to even, for |value| < 2^22.
static inline float lmkd_round(float value) {
    const float shifter = 12582912.0f;  // 1.5 * 2^23: its last place is one
    return (value + shifter) - shifter;
}

static inline float lmkd_clamp(float value, float lowest, float highest) {
    const float raised = value < lowest ? lowest : value;
    return raised > highest ? highest : raised;
}

#ifdef __cplusplus
}
#endif

#endif  // LMKD_FRONT_END_H
