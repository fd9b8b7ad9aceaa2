// SPDX-License-Identifier: Apache-2.0
// Stand-in for a driver: a microphone that hears a ramp, for as long as the test lasts. Replace
// this file on a board.
#include "../audio.h"

#define PRV_NUM_HALVES 8

static struct {
    int16_t *microphone;
    size_t half_samples;
    lmkd_audio_callback callback;
    int num_done;
} prv_driver;

int lmkd_audio_start(int16_t *microphone, int16_t *loudspeaker, size_t half_samples,
                     lmkd_audio_callback callback) {
    (void)loudspeaker;
    prv_driver.microphone = microphone;
    prv_driver.half_samples = half_samples;
    prv_driver.callback = callback;
    return 0;
}

void lmkd_audio_invalidate(int16_t *samples, size_t num_samples) {
    (void)samples;
    (void)num_samples;
}

void lmkd_audio_clean(int16_t *samples, size_t num_samples) {
    (void)samples;
    (void)num_samples;
}

int lmkd_audio_wait(void) {
    const int half = prv_driver.num_done % 2;
    int16_t *samples = prv_driver.microphone + (size_t)half * prv_driver.half_samples;
    for (size_t n = 0; n < prv_driver.half_samples; n++) {
        samples[n] = (int16_t)(16 * (int)n);
    }
    prv_driver.callback(half);
    return prv_driver.num_done++ < PRV_NUM_HALVES;
}
