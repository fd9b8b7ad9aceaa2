// SPDX-License-Identifier: Apache-2.0
// The transform against the sum that defines it, in double precision.
#include "check.h"
#include "fft.h"
#include "tables.h"

#define FLOOR_DB 125.0

static float prv_samples[LMKD_FFT_LENGTH];
static float prv_work[LMKD_FFT_LENGTH];
static float prv_spectrum[LMKD_FFT_LENGTH];
static float prv_wanted[LMKD_FFT_LENGTH];

static void prv_fill(uint32_t seed) {
    for (int n = 0; n < LMKD_FFT_LENGTH; n++) {
        prv_samples[n] = prv_noise(&seed);
        prv_work[n] = prv_samples[n];
    }
}

static double prv_sum(int bin, double (*wave)(double)) {
    double sum = 0.0;
    for (int n = 0; n < LMKD_FFT_LENGTH; n++) {
        const int phase = bin * n % LMKD_FFT_LENGTH;
        sum +=
            (double)prv_samples[n] * wave(2.0 * 3.14159265358979323846 * phase / LMKD_FFT_LENGTH);
    }
    return sum;
}

static void prv_define(void) {
    for (int bin = 1; bin < LMKD_NUM_BINS - 1; bin++) {
        prv_wanted[2 * bin] = (float)prv_sum(bin, cos);
        prv_wanted[2 * bin + 1] = (float)-prv_sum(bin, sin);
    }
    prv_wanted[0] = (float)prv_sum(0, cos);
    prv_wanted[1] = (float)prv_sum(LMKD_NUM_BINS - 1, cos);
}

static void prv_test_forward_is_the_defining_sum(void) {
    prv_fill(7u);
    prv_define();
    lmkd_fft_forward(prv_work, prv_spectrum);
    CHECK(prv_snr_db(prv_wanted, prv_spectrum, LMKD_FFT_LENGTH) >= FLOOR_DB,
          "the transform is the defining sum");
}

static void prv_test_inverse_returns_the_samples(void) {
    prv_fill(8u);
    lmkd_fft_forward(prv_work, prv_spectrum);
    lmkd_fft_inverse(prv_spectrum, prv_work);
    CHECK(prv_snr_db(prv_samples, prv_work, LMKD_FFT_LENGTH) >= FLOOR_DB,
          "the inverse of the transform is the signal");
}

static void prv_test_impulse_has_a_flat_spectrum(void) {
    for (int n = 0; n < LMKD_FFT_LENGTH; n++) {
        prv_work[n] = n == 0 ? 1.0f : 0.0f;
    }
    lmkd_fft_forward(prv_work, prv_spectrum);
    int num_wrong = prv_spectrum[0] != 1.0f || prv_spectrum[1] != 1.0f;
    for (int bin = 1; bin < LMKD_NUM_BINS - 1; bin++) {
        num_wrong += prv_spectrum[2 * bin] != 1.0f || prv_spectrum[2 * bin + 1] != 0.0f;
    }
    CHECK(num_wrong == 0, "every bin of an impulse is one");
}

int main(void) {
    prv_test_forward_is_the_defining_sum();
    prv_test_inverse_returns_the_samples();
    prv_test_impulse_has_a_flat_spectrum();
    return prv_report("test_fft");
}
