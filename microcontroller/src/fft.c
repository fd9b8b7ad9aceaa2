// SPDX-License-Identifier: Apache-2.0
// Real Fourier transform by a complex one of half the length, whose passes (radix 4, and one of
// radix 2 where needed) write in order, so that no bit reversal is left (Stockham).
#include "fft.h"

#include <string.h>

#include "tables.h"

#define PRV_NUM_POINTS (LMKD_FFT_LENGTH / 2)

_Static_assert((LMKD_FFT_LENGTH & (LMKD_FFT_LENGTH - 1)) == 0 && LMKD_FFT_LENGTH >= 16,
               "the FFT length must be a power of two");

struct prv_complex {
    float re;
    float im;
};

static struct prv_complex prv_add(struct prv_complex a, struct prv_complex b) {
    return (struct prv_complex){a.re + b.re, a.im + b.im};
}

static struct prv_complex prv_subtract(struct prv_complex a, struct prv_complex b) {
    return (struct prv_complex){a.re - b.re, a.im - b.im};
}

static struct prv_complex prv_multiply(struct prv_complex a, struct prv_complex b) {
    return (struct prv_complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// exp(-2 pi i k / LMKD_FFT_LENGTH)
static struct prv_complex prv_twiddle(int k) {
    return (struct prv_complex){lmkd_twiddles[k][0], lmkd_twiddles[k][1]};
}

// Four points, by value so that they stay in registers.
struct prv_points {
    struct prv_complex at[4];
};

// Transform of four points `step` apart.
static inline struct prv_points prv_butterfly(const struct prv_complex *x, int step) {
    const struct prv_complex even = prv_add(x[0], x[2 * step]);
    const struct prv_complex even_difference = prv_subtract(x[0], x[2 * step]);
    const struct prv_complex odd = prv_add(x[step], x[3 * step]);
    const struct prv_complex odd_difference = prv_subtract(x[step], x[3 * step]);
    const struct prv_complex turned = {odd_difference.im, -odd_difference.re};  // times -i
    return (struct prv_points){{prv_add(even, odd), prv_add(even_difference, turned),
                                prv_subtract(even, odd), prv_subtract(even_difference, turned)}};
}

// One pass over transforms of `length` points, `stride` of them interleaved.
static void prv_radix4(const struct prv_complex *x, struct prv_complex *y, int length, int stride) {
    const int step = PRV_NUM_POINTS / 4;
    for (int q = 0; q < stride; q++) {  // all twiddle factors are 1
        const struct prv_points points = prv_butterfly(x + q, step);
        y[q] = points.at[0];
        y[q + stride] = points.at[1];
        y[q + 2 * stride] = points.at[2];
        y[q + 3 * stride] = points.at[3];
    }
    for (int p = 1; p < length / 4; p++) {
        const struct prv_complex w1 = prv_twiddle(2 * p * stride);
        const struct prv_complex w2 = prv_twiddle(4 * p * stride);
        const struct prv_complex w3 = prv_twiddle(6 * p * stride);
        x += stride;
        y += 4 * stride;
        for (int q = 0; q < stride; q++) {
            const struct prv_points points = prv_butterfly(x + q, step);
            y[q] = points.at[0];
            y[q + stride] = prv_multiply(points.at[1], w1);
            y[q + 2 * stride] = prv_multiply(points.at[2], w2);
            y[q + 3 * stride] = prv_multiply(points.at[3], w3);
        }
    }
}

static void prv_radix2(const struct prv_complex *x, struct prv_complex *y) {
    const int half = PRV_NUM_POINTS / 2;
    for (int q = 0; q < half; q++) {
        y[q] = prv_add(x[q], x[q + half]);
        y[q + half] = prv_subtract(x[q], x[q + half]);
    }
}

// Transforms PRV_NUM_POINTS points; returns which of the two arrays holds the result.
static struct prv_complex *prv_transform(struct prv_complex *x, struct prv_complex *y) {
    int stride = 1;
    for (int length = PRV_NUM_POINTS; length > 1; length /= 4, stride *= 4) {
        if (length == 2) {
            prv_radix2(x, y);
        } else {
            prv_radix4(x, y, length, stride);
        }
        struct prv_complex *swap = x;
        x = y;
        y = swap;
    }
    return x;
}

// Bins k and N / 2 - k of the real transform from points k and N / 2 - k of the complex one:
// even and odd samples are (a + b*) / 2 and (a - b*) / 2i. Both arrays may be the same.
static void prv_split(const struct prv_complex *points, struct prv_complex *bins) {
    const struct prv_complex first = points[0];
    bins[0] = (struct prv_complex){first.re + first.im, first.re - first.im};
    for (int k = 1; k <= PRV_NUM_POINTS / 2; k++) {
        const struct prv_complex low = points[k];
        const struct prv_complex high = points[PRV_NUM_POINTS - k];
        const struct prv_complex even = {0.5f * (low.re + high.re), 0.5f * (low.im - high.im)};
        const struct prv_complex odd = {0.5f * (low.im + high.im), 0.5f * (high.re - low.re)};
        const struct prv_complex turned = prv_multiply(odd, prv_twiddle(k));
        bins[PRV_NUM_POINTS - k] = (struct prv_complex){even.re - turned.re, turned.im - even.im};
        bins[k] = prv_add(even, turned);
    }
}

// The inverse of prv_split with the factor 1 / N; point k goes to place N / 2 - k, so that the
// forward transform that follows is the inverse one.
static void prv_join(const struct prv_complex *bins, struct prv_complex *points) {
    const float scale = 1.0f / (float)LMKD_FFT_LENGTH;
    const struct prv_complex first = bins[0];
    points[0] = (struct prv_complex){scale * (first.re + first.im), scale * (first.re - first.im)};
    for (int k = 1; k <= PRV_NUM_POINTS / 2; k++) {
        const struct prv_complex low = bins[k];
        const struct prv_complex high = bins[PRV_NUM_POINTS - k];
        const struct prv_complex even = {scale * (low.re + high.re), scale * (low.im - high.im)};
        const struct prv_complex turned = {scale * (low.re - high.re), scale * (low.im + high.im)};
        const struct prv_complex w = prv_twiddle(k);
        const struct prv_complex odd = prv_multiply(turned, (struct prv_complex){w.re, -w.im});
        points[k] = (struct prv_complex){even.re + odd.im, odd.re - even.im};
        points[PRV_NUM_POINTS - k] = (struct prv_complex){even.re - odd.im, even.im + odd.re};
    }
}

void lmkd_fft_forward(float *samples, float *spectrum) {
    struct prv_complex *bins = (struct prv_complex *)(void *)spectrum;
    prv_split(prv_transform((struct prv_complex *)(void *)samples, bins), bins);
}

void lmkd_fft_inverse(float *spectrum, float *samples) {
    struct prv_complex *points = (struct prv_complex *)(void *)samples;
    struct prv_complex *bins = (struct prv_complex *)(void *)spectrum;
    prv_join(bins, points);
    if (prv_transform(points, bins) != points) {
        memcpy(samples, spectrum, (size_t)LMKD_FFT_LENGTH * sizeof(float));
    }
}
