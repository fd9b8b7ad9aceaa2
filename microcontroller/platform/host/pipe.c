// SPDX-License-Identifier: Apache-2.0
// The library as a process: requests on standard input, answers on standard output, in binary.
//
//     'r'                                       forgets the past; no answer
//     'a', limit in dB (float)                  limits the attenuation of hops; no answer
//     'b', 0 or 1 (uint32)                      bypass of hops off or on; no answer
//     'p', count (uint32), count hops (float)   enhanced hops (float), each one hop late
//     'g', count (uint32), count features       gains of the bands; float, LMKD_NUM_BANDS each
//
// Hops and gains have a stream of their own each. A request is read whole before it is answered.
#include <stdio.h>
#include <string.h>

#include "front_end.h"
#include "lmkd/lmkd.h"
#include "network.h"

#define PRV_MAX_COUNT 256u
#define PRV_MAX_WIDTH (LMKD_HOP_LENGTH > LMKD_NUM_BANDS ? LMKD_HOP_LENGTH : LMKD_NUM_BANDS)

static LMKD_MEMORY(prv_instance);
static LMKD_MEMORY(prv_network);
static float prv_values[PRV_MAX_COUNT * PRV_MAX_WIDTH];

static enum lmkd_status prv_gains(float *band) {
    lmkd_quantize_features(band, lmkd_network_features(prv_network));
    const enum lmkd_status status = lmkd_network_invoke(prv_network);
    lmkd_band_gains(lmkd_network_mask(prv_network), 0.0f, band);
    return status;
}

static enum lmkd_status prv_answer(struct lmkd_state *state, int kind, uint32_t count) {
    const size_t width = kind == 'p' ? LMKD_HOP_LENGTH : LMKD_NUM_BANDS;
    enum lmkd_status status = LMKD_OK;
    if (count > PRV_MAX_COUNT || fread(prv_values, 4, count * width, stdin) != count * width) {
        return LMKD_ERROR_LENGTH;
    }
    for (uint32_t n = 0; status == LMKD_OK && n < count; n++) {
        float *values = prv_values + n * width;
        status = kind == 'p' ? lmkd_process_hop_f32(state, values, values) : prv_gains(values);
    }
    if (status == LMKD_OK &&
        (fwrite(prv_values, 4, count * width, stdout) != count * width || fflush(stdout) != 0)) {
        status = LMKD_ERROR_LENGTH;
    }
    return status;
}

// Requests that change a setting: 'a' and 'b'.
static enum lmkd_status prv_set(struct lmkd_state *state, int kind) {
    float limit_db;
    uint32_t is_bypassed;
    if (kind == 'a' && fread(&limit_db, 4, 1, stdin) == 1) {
        return lmkd_set_attenuation_limit(state, limit_db);
    }
    if (kind == 'b' && fread(&is_bypassed, 4, 1, stdin) == 1) {
        return lmkd_set_bypass(state, is_bypassed != 0u);
    }
    return LMKD_ERROR_LENGTH;
}

static enum lmkd_status prv_serve(struct lmkd_state *state) {
    enum lmkd_status status = LMKD_OK;
    for (int kind = getchar(); status == LMKD_OK && kind != EOF; kind = getchar()) {
        uint32_t count;
        if (kind == 'r') {
            lmkd_network_reset(prv_network);
            status = lmkd_reset(state);
        } else if (kind == 'a' || kind == 'b') {
            status = prv_set(state, kind);
        } else if ((kind != 'p' && kind != 'g') || fread(&count, 4, 1, stdin) != 1) {
            status = LMKD_ERROR_LENGTH;
        } else {
            status = prv_answer(state, kind, count);
        }
        if (status != LMKD_OK) {
            break;
        }
    }
    return status;
}

int main(void) {
    struct lmkd_state *state;
    enum lmkd_status status = lmkd_init(prv_instance, sizeof prv_instance, NULL, &state);
    if (status == LMKD_OK) {
        status = lmkd_network_init(prv_network, NULL, 0);
    }
    if (status == LMKD_OK) {
        status = prv_serve(state);
    }
    if (status != LMKD_OK) {
        fprintf(stderr, "status %d; see lmkd/status.h\n", (int)status);
    }
    return status != LMKD_OK;
}
