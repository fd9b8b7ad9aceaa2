// SPDX-License-Identifier: Apache-2.0
// The transform by CMSIS-DSP, which packs its spectrum as fft.h does.
#include "arm_math.h"
#include "fft.h"
#include "lmkd_config.h"

// Only the tables of one length are linked by arm_rfft_fast_init_<length>_f32.
#define PRV_JOIN(front, length, back) front##length##back
#define PRV_INIT_OF(length) PRV_JOIN(arm_rfft_fast_init_, length, _f32)

static void prv_transform(float *from, float *to, uint8_t is_inverse) {
    arm_rfft_fast_instance_f32 transform;
    // A constant length that exists cannot fail.
    (void)PRV_INIT_OF(LMKD_FFT_LENGTH)(&transform);
    arm_rfft_fast_f32(&transform, from, to, is_inverse);
}

void lmkd_fft_forward(float *samples, float *spectrum) {
    prv_transform(samples, spectrum, 0);
}

void lmkd_fft_inverse(float *spectrum, float *samples) {
    prv_transform(spectrum, samples, 1);
}
