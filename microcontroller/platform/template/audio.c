// SPDX-License-Identifier: Apache-2.0
// Stand-in for a driver, and a test of mic_loop: it hears a ramp that rises from half to half, and
// plays only what the library makes of that. Replace this file on a board.
#include "../audio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lmkd/lmkd.h"

#define PRV_NUM_HALVES 8
#if !defined(LMKD_LATE_HALF)
#define LMKD_LATE_HALF (-1)  // the half that is still processed when the next one is free
#endif

static struct {
    int16_t *microphone;
    int16_t *loudspeaker;
    lmkd_audio_callback callback;
    int num_raised;
    int num_waited;
} prv_driver;

// What the DMA sees: the processor's buffers are as a cache in front of it.
static int16_t prv_heard[2 * LMKD_HOP_LENGTH];
static int16_t prv_played[2 * LMKD_HOP_LENGTH];

static LMKD_MEMORY(prv_memory);
static struct lmkd_state *prv_reference;

static void prv_raise_interrupt(void) {
    const int half = prv_driver.num_raised++ % 2;
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        prv_heard[half * LMKD_HOP_LENGTH + n] = (int16_t)(16 * n * prv_driver.num_raised);
        prv_played[half * LMKD_HOP_LENGTH + n] = -1;
    }
    prv_driver.callback(half);
}

static void prv_check_played(int half) {
    int16_t wanted[LMKD_HOP_LENGTH];
    if (lmkd_process_hop(prv_reference, prv_heard + half * LMKD_HOP_LENGTH, wanted) != LMKD_OK ||
        memcmp(wanted, prv_played + half * LMKD_HOP_LENGTH, sizeof wanted) != 0) {
        printf("half %d is not what was heard, enhanced\n", prv_driver.num_waited - 1);
        exit(1);
    }
}

int lmkd_audio_start(int16_t *microphone, int16_t *loudspeaker, size_t half_samples,
                     lmkd_audio_callback callback) {
    prv_driver.microphone = microphone;
    prv_driver.loudspeaker = loudspeaker;
    prv_driver.callback = callback;
    return half_samples != LMKD_HOP_LENGTH ||
           lmkd_init(prv_memory, sizeof prv_memory, NULL, &prv_reference) != LMKD_OK;
}

void lmkd_audio_invalidate(int16_t *samples, size_t num_samples) {
    memcpy(samples, prv_heard + (samples - prv_driver.microphone), num_samples * sizeof *samples);
}

void lmkd_audio_clean(int16_t *samples, size_t num_samples) {
    memcpy(prv_played + (samples - prv_driver.loudspeaker), samples, num_samples * sizeof *samples);
    if (prv_driver.num_raised - 1 == LMKD_LATE_HALF) {
        prv_raise_interrupt();
    }
}

int lmkd_audio_wait(void) {
    if (prv_driver.num_waited > 0) {
        prv_check_played((prv_driver.num_waited - 1) % 2);
    }
    if (prv_driver.num_waited == PRV_NUM_HALVES) {
        return 0;
    }
    if (prv_driver.num_waited++ == prv_driver.num_raised) {
        prv_raise_interrupt();
    }
    return 1;
}
