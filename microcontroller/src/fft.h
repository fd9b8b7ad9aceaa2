// SPDX-License-Identifier: Apache-2.0
// Real Fourier transform of LMKD_FFT_LENGTH samples (N), float.
//
// A spectrum is packed in N floats: real part of bin 0, real part of bin N / 2 (their imaginary
// parts are zero), then real and imaginary part of bins 1 to N / 2 - 1.
// fft.c is plain C; fft_cmsis.c calls CMSIS-DSP instead. One of them is linked.
#ifndef LMKD_FFT_H
#define LMKD_FFT_H

#ifdef __cplusplus
extern "C" {
#endif

// X[k] = sum over n of x[n] * exp(-2 pi i k n / N). `samples` is used up; `spectrum` must be
// another array.
void lmkd_fft_forward(float *samples, float *spectrum);

// The inverse, with the factor 1 / N. `spectrum` is used up; `samples` must be another array.
void lmkd_fft_inverse(float *spectrum, float *samples);

#ifdef __cplusplus
}
#endif

#endif  // LMKD_FFT_H
