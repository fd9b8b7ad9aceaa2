// SPDX-License-Identifier: Apache-2.0
// Microphone to loudspeaker, for any board: two halves of a DMA buffer in turns.
//
// The interrupt only says which half is free; the loop processes it before the other half is. One
// hop is 16 ms: `prv_num_late` counts the interrupts that came before the loop was done with the
// half of the one before. Implement platform/audio.h.
#include <stdbool.h>
#include <stdio.h>

#include "../platform/audio.h"
#include "lmkd/lmkd.h"

#define NONE (-1)

static LMKD_MEMORY(prv_memory);
static _Alignas(32) int16_t prv_microphone[2 * LMKD_HOP_LENGTH];
static _Alignas(32) int16_t prv_loudspeaker[2 * LMKD_HOP_LENGTH];
static volatile int prv_free_half = NONE;
static volatile bool prv_is_processing;
static volatile unsigned prv_num_late;

static void prv_on_half(int half) {
    if (prv_is_processing || prv_free_half != NONE) {
        prv_num_late++;
    }
    prv_free_half = half;
}

static enum lmkd_status prv_process_half(struct lmkd_state *state, int half) {
    int16_t *in = prv_microphone + half * LMKD_HOP_LENGTH;
    int16_t *out = prv_loudspeaker + half * LMKD_HOP_LENGTH;
    lmkd_audio_invalidate(in, LMKD_HOP_LENGTH);
    const enum lmkd_status status = lmkd_process_hop(state, in, out);
    lmkd_audio_clean(out, LMKD_HOP_LENGTH);
    return status;
}

int main(void) {
    struct lmkd_state *state;
    // Before audio starts: this reads the whole model to check it.
    enum lmkd_status status = lmkd_init(prv_memory, sizeof prv_memory, NULL, &state);
    if (status == LMKD_OK &&
        lmkd_audio_start(prv_microphone, prv_loudspeaker, LMKD_HOP_LENGTH, prv_on_half) != 0) {
        status = LMKD_ERROR_STATE;
    }
    while (status == LMKD_OK && lmkd_audio_wait()) {
        const int half = prv_free_half;
        if (half != NONE) {
            prv_is_processing = true;
            prv_free_half = NONE;  // before the work: the next half may come during it
            status = prv_process_half(state, half);
            prv_is_processing = false;
        }
    }
    printf("status %d, late halves: %u\n", (int)status, prv_num_late);
    return status != LMKD_OK || prv_num_late != 0u;
}
