// SPDX-License-Identifier: Apache-2.0
// The few lines that a test program needs.
#ifndef LMKD_TESTS_CHECK_H
#define LMKD_TESTS_CHECK_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

static int prv_failures = 0;

static inline void prv_check(int is_true, const char *rule, int line) {
    if (!is_true) {
        prv_failures++;
        printf("FAILED line %d: %s\n", line, rule);
    }
}
#define CHECK(is_true, rule) prv_check((is_true) != 0, rule, __LINE__)
#define CHECK_STATUS(found, wanted) prv_check((found) == (wanted), #found " is " #wanted, __LINE__)

static inline int prv_report(const char *name) {
    printf("%s: %d failures\n", name, prv_failures);
    return prv_failures != 0;
}

// Energy of the wanted values over that of the difference, in dB.
static inline double prv_snr_db(const float *wanted, const float *found, size_t count) {
    double energy = 0.0, error = 0.0;
    for (size_t n = 0; n < count; n++) {
        const double difference = (double)wanted[n] - (double)found[n];
        energy += (double)wanted[n] * (double)wanted[n];
        error += difference * difference;
    }
    return error > 0.0 ? 10.0 * log10(energy / error) : 300.0;
}

// Next number of a generator, from -1 to 1.
static inline float prv_noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)((int32_t)(*state >> 8) - 8388608) / 8388608.0f;
}

#endif  // LMKD_TESTS_CHECK_H
