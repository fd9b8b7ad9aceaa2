// SPDX-License-Identifier: Apache-2.0
#include "front_end.h"

#include <stddef.h>
#include <string.h>

// 10 * log10(2): dB of a doubled energy.
#define PRV_DB_PER_OCTAVE 3.01029996f
#define PRV_SQRT_2 1.41421356f

void lmkd_window_frame(const float *hop, float *previous_hop, float *frame) {
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        frame[n] = previous_hop[n] * lmkd_window[n];
        frame[LMKD_HOP_LENGTH + n] = hop[n] * lmkd_window[LMKD_HOP_LENGTH + n];
        previous_hop[n] = hop[n];
    }
    for (int n = LMKD_WINDOW_LENGTH; n < LMKD_FFT_LENGTH; n++) {
        frame[n] = 0.0f;
    }
}

// log2 of a normal positive number: its exponent, and log2(m) = 2 / ln 2 * atanh(s) with
// s = (m - 1) / (m + 1) for the mantissa m in [sqrt(1/2), sqrt(2)); the series ends below 1e-8.
static float prv_log2(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    int32_t exponent = (int32_t)(bits >> 23) - 127;
    bits = (bits & 0x007FFFFFu) | 0x3F800000u;
    float mantissa;
    memcpy(&mantissa, &bits, sizeof mantissa);
    if (mantissa > PRV_SQRT_2) {
        mantissa *= 0.5f;
        exponent++;
    }
    const float s = (mantissa - 1.0f) / (mantissa + 1.0f);
    const float s2 = s * s;
    const float series =
        2.88539008f +
        s2 * (0.961796694f + s2 * (0.577078016f + s2 * (0.412198583f + s2 * 0.320598898f)));
    return (float)exponent + s * series;
}

// Adds the energy of a bin to its bands.
static inline void prv_add_energy(float *bands, int bin, float energy) {
    float *band = bands + lmkd_band_start[bin];
    for (int k = 0; k < LMKD_BANDS_PER_BIN; k++) {
        band[k] += lmkd_band_weights[bin][k] * energy;
    }
}

void lmkd_band_features(const float *spectrum, float *features) {
    for (int band = 0; band < LMKD_NUM_BANDS; band++) {
        features[band] = 0.0f;
    }
    prv_add_energy(features, 0, spectrum[0] * spectrum[0]);
    for (int bin = 1; bin < LMKD_NUM_BINS - 1; bin++) {
        const float re = spectrum[2 * bin];
        const float im = spectrum[2 * bin + 1];
        prv_add_energy(features, bin, re * re + im * im);
    }
    prv_add_energy(features, LMKD_NUM_BINS - 1, spectrum[1] * spectrum[1]);
    for (int band = 0; band < LMKD_NUM_BANDS; band++) {
        const float energy = features[band] * lmkd_band_scale[band] + LMKD_FEATURE_FLOOR;
        const float level_db = PRV_DB_PER_OCTAVE * prv_log2(energy);
        features[band] = (level_db - LMKD_FEATURE_CENTER_DB) / LMKD_FEATURE_SCALE_DB;
    }
}

void lmkd_quantize_features(const float *features, int8_t *codes) {
    for (int band = 0; band < LMKD_NUM_BANDS; band++) {
        const float code = lmkd_round(features[band] / LMKD_INPUT_FEATURES_SCALE) +
                           (float)LMKD_INPUT_FEATURES_ZERO_POINT;
        codes[band] = (int8_t)(int32_t)lmkd_clamp(code, -128.0f, 127.0f);
    }
}

void lmkd_band_gains(const int8_t *mask, float lowest, float *gains) {
    for (int band = 0; band < LMKD_NUM_BANDS; band++) {
        const int32_t steps = mask[band] - LMKD_OUTPUT_MASK_ZERO_POINT;
        const float gain = (float)steps * LMKD_OUTPUT_MASK_SCALE;
        gains[band] = gain < lowest ? lowest : gain;
    }
}

static float prv_bin_gain(const float *gains, int bin) {
    const float *band = gains + lmkd_band_start[bin];
    float gain = lmkd_band_weights[bin][0] * band[0];
    for (int k = 1; k < LMKD_BANDS_PER_BIN; k++) {
        gain += lmkd_band_weights[bin][k] * band[k];
    }
    return gain;
}

void lmkd_apply_gains(const float *gains, float *spectrum) {
    spectrum[0] *= prv_bin_gain(gains, 0);
    spectrum[1] *= prv_bin_gain(gains, LMKD_NUM_BINS - 1);
    for (int bin = 1; bin < LMKD_NUM_BINS - 1; bin++) {
        const float gain = prv_bin_gain(gains, bin);
        spectrum[2 * bin] *= gain;
        spectrum[2 * bin + 1] *= gain;
    }
}

void lmkd_overlap_add(const float *frame, float *overlap, float *hop) {
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        hop[n] = overlap[n] + frame[n] * lmkd_window[n];
        overlap[n] = frame[LMKD_HOP_LENGTH + n] * lmkd_window[LMKD_HOP_LENGTH + n];
    }
}

// 2^x = 2^integer * exp(ln 2 * fraction), the fraction in [-1/2, 1/2], as a Taylor series.
float lmkd_amplitude(float level_db) {
    const float octaves = lmkd_clamp(level_db, -200.0f, 0.0f) / (2.0f * PRV_DB_PER_OCTAVE);
    const float whole = lmkd_round(octaves);
    const float x = (octaves - whole) * 0.693147181f;
    float amplitude =
        1.0f +
        x * (1.0f +
             x * (0.5f + x * (0.166666667f +
                              x * (0.0416666667f + x * (0.00833333333f + x * 0.00138888889f)))));
    for (float n = whole; n < 0.0f; n += 1.0f) {
        amplitude *= 0.5f;
    }
    return amplitude;
}
