// SPDX-License-Identifier: Apache-2.0
// Any sequence of calls with any audio: no undefined behavior, bounded output.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lmkd/lmkd.h"

int LLVMFuzzerTestOneInput(const uint8_t *content, size_t num_bytes);

static LMKD_MEMORY(prv_memory);

struct prv_source {
    const uint8_t *next;
    size_t left;
};

static void prv_take(struct prv_source *source, void *target, size_t num_bytes) {
    const size_t count = num_bytes < source->left ? num_bytes : source->left;
    memset(target, 0, num_bytes);
    memcpy(target, source->next, count);
    source->next += count;
    source->left -= count;
}

static void prv_process_float(struct lmkd_state *state, struct prv_source *source) {
    float hop[LMKD_HOP_LENGTH];
    prv_take(source, hop, sizeof hop);
    const enum lmkd_status status = lmkd_process_hop_f32(state, hop, hop);
    for (size_t n = 0; status == LMKD_OK && n < LMKD_HOP_LENGTH; n++) {
        if (!(fabsf(hop[n]) <= 64.0f * LMKD_FLOAT_LIMIT)) {
            abort();
        }
    }
}

static void prv_process_int16(struct lmkd_state *state, struct prv_source *source) {
    int16_t hops[2 * LMKD_HOP_LENGTH];
    uint16_t count;
    prv_take(source, &count, sizeof count);
    prv_take(source, hops, sizeof hops);
    const size_t num_samples = count % (2u * LMKD_HOP_LENGTH + 1u);
    const enum lmkd_status status = lmkd_process(state, hops, hops, num_samples);
    const int is_whole = num_samples > 0 && num_samples % LMKD_HOP_LENGTH == 0;
    if ((status == LMKD_OK) != is_whole) {
        abort();
    }
}

static void prv_change(struct lmkd_state *state, struct prv_source *source, uint8_t kind) {
    float limit_db;
    enum lmkd_status status;
    prv_take(source, &limit_db, sizeof limit_db);
    if (kind == 0) {
        status = lmkd_set_attenuation_limit(state, limit_db);
        if ((status == LMKD_OK) != (limit_db >= 0.0f && limit_db - limit_db == 0.0f)) {
            abort();
        }
    } else if (kind == 1) {
        status = lmkd_set_bypass(state, limit_db > 0.0f);
    } else {
        status = lmkd_reset(state);
    }
    (void)status;
}

int LLVMFuzzerTestOneInput(const uint8_t *content, size_t num_bytes) {
    struct prv_source source = {content, num_bytes};
    static struct lmkd_state *state;
    if (state == NULL && lmkd_init(prv_memory, sizeof prv_memory, NULL, &state) != LMKD_OK) {
        abort();
    }
    while (source.left > 0) {
        uint8_t kind;
        prv_take(&source, &kind, 1);
        if (kind % 8 < 3) {
            prv_process_float(state, &source);
        } else if (kind % 8 < 5) {
            prv_process_int16(state, &source);
        } else {
            prv_change(state, &source, kind % 8 - 5);
        }
    }
    return 0;
}
