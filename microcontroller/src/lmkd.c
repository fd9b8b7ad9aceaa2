// SPDX-License-Identifier: Apache-2.0
// Frame loop: analysis, network, mask, synthesis.
#include "lmkd/lmkd.h"

#include <stdbool.h>
#include <string.h>

#include "fft.h"
#include "front_end.h"
#include "model_data.h"
#include "network.h"

#define PRV_MAGIC 0x6C6D6B64u
#define PRV_FULL_SCALE 32768.0f

// The network's memory follows; the size of the struct keeps its alignment.
struct lmkd_state {
    _Alignas(LMKD_MEMORY_ALIGNMENT) uint32_t magic;
    int32_t is_bypassed;
    float lowest_gain;
    float previous_hop[LMKD_HOP_LENGTH];
    float overlap[LMKD_HOP_LENGTH];
    float first[LMKD_FFT_LENGTH];   // frame and spectrum in turns
    float second[LMKD_FFT_LENGTH];  // and the other of the two; bands in between
};

_Static_assert(sizeof(struct lmkd_state) == LMKD_FRONT_END_BYTES, "lmkd.h states the size");
_Static_assert(LMKD_WINDOW_LENGTH == 2 * LMKD_HOP_LENGTH, "frames overlap by half");
_Static_assert(LMKD_FFT_LENGTH >= LMKD_WINDOW_LENGTH, "the transform covers the window");
_Static_assert(LMKD_INPUT_FEATURES_BYTES == LMKD_NUM_BANDS, "the features are int8");
_Static_assert(LMKD_OUTPUT_MASK_BYTES == LMKD_NUM_BANDS, "the mask is int8");

static void *prv_network(struct lmkd_state *state) {
    return state + 1;
}

static bool prv_is_valid(const struct lmkd_state *state) {
    return (uintptr_t)state % LMKD_MEMORY_ALIGNMENT == 0u && state->magic == PRV_MAGIC;
}

static bool prv_is_finite(float value) {
    return value - value == 0.0f;
}

size_t lmkd_memory_size(void) {
    return sizeof(struct lmkd_state) + lmkd_network_memory_size();
}

static enum lmkd_status prv_check_memory(const void *memory, size_t memory_bytes) {
    if (memory == NULL) {
        return LMKD_ERROR_NULL;
    }
    if ((uintptr_t)memory % LMKD_MEMORY_ALIGNMENT != 0u) {
        return LMKD_ERROR_ALIGNMENT;
    }
    return memory_bytes < lmkd_memory_size() ? LMKD_ERROR_MEMORY : LMKD_OK;
}

static void prv_clear(struct lmkd_state *made) {
    memset(made->previous_hop, 0, sizeof made->previous_hop);
    memset(made->overlap, 0, sizeof made->overlap);
}

enum lmkd_status lmkd_init(void *memory, size_t memory_bytes, const struct lmkd_config *config,
                           struct lmkd_state **state) {
    static const struct lmkd_config defaults;
    if (state == NULL) {
        return LMKD_ERROR_NULL;
    }
    *state = NULL;
    enum lmkd_status status = prv_check_memory(memory, memory_bytes);
    if (status != LMKD_OK) {
        return status;
    }
    const struct lmkd_config *settings = config != NULL ? config : &defaults;
    struct lmkd_state *made = (struct lmkd_state *)memory;
    memset(made, 0, sizeof *made);
    made->magic = PRV_MAGIC;
    made->is_bypassed = settings->is_bypassed != 0;
    status = lmkd_set_attenuation_limit(made, settings->attenuation_limit_db);
    if (status == LMKD_OK) {
        status = lmkd_network_init(prv_network(made), settings->model, settings->model_bytes);
    }
    if (status != LMKD_OK) {
        made->magic = 0u;
        return status;
    }
    *state = made;
    return LMKD_OK;
}

enum lmkd_status lmkd_reset(struct lmkd_state *state) {
    if (state == NULL) {
        return LMKD_ERROR_NULL;
    }
    if (!prv_is_valid(state)) {
        return LMKD_ERROR_STATE;
    }
    prv_clear(state);
    lmkd_network_reset(prv_network(state));
    return LMKD_OK;
}

enum lmkd_status lmkd_set_attenuation_limit(struct lmkd_state *state, float attenuation_limit_db) {
    if (state == NULL) {
        return LMKD_ERROR_NULL;
    }
    if (!prv_is_valid(state)) {
        return LMKD_ERROR_STATE;
    }
    if (!prv_is_finite(attenuation_limit_db) || attenuation_limit_db < 0.0f) {
        return LMKD_ERROR_ATTENUATION;
    }
    const bool is_limited = attenuation_limit_db > 0.0f;
    state->lowest_gain = is_limited ? lmkd_amplitude(-attenuation_limit_db) : 0.0f;
    return LMKD_OK;
}

enum lmkd_status lmkd_set_bypass(struct lmkd_state *state, int is_bypassed) {
    if (state == NULL) {
        return LMKD_ERROR_NULL;
    }
    if (!prv_is_valid(state)) {
        return LMKD_ERROR_STATE;
    }
    state->is_bypassed = is_bypassed != 0;
    return LMKD_OK;
}

// One hop: the newest samples lie in `hop`, which receives the enhanced ones.
static enum lmkd_status prv_process(struct lmkd_state *state, float *hop) {
    void *network = prv_network(state);
    float *frame = state->first;
    float *spectrum = state->second;
    float *bands = state->first;  // the frame is used up by the transform
    lmkd_window_frame(hop, state->previous_hop, frame);
    lmkd_fft_forward(frame, spectrum);
    lmkd_band_features(spectrum, bands);
    lmkd_quantize_features(bands, lmkd_network_features(network));
    const enum lmkd_status status = lmkd_network_invoke(network);
    if (status == LMKD_OK && !state->is_bypassed) {
        lmkd_band_gains(lmkd_network_mask(network), state->lowest_gain, bands);
        lmkd_apply_gains(bands, spectrum);
    }
    lmkd_fft_inverse(spectrum, frame);
    lmkd_overlap_add(frame, state->overlap, hop);
    return status;
}

static enum lmkd_status prv_check_hop(const struct lmkd_state *state, const void *in,
                                      const void *out) {
    if (state == NULL || in == NULL || out == NULL) {
        return LMKD_ERROR_NULL;
    }
    return prv_is_valid(state) ? LMKD_OK : LMKD_ERROR_STATE;
}

// Nearest 16-bit sample, ties to even, saturating. A hop of input within full scale gives less
// than sqrt(LMKD_FFT_LENGTH), so the product stays in the range of lmkd_round.
static int16_t prv_to_int16(float sample) {
    const int32_t rounded = (int32_t)lmkd_round(sample * PRV_FULL_SCALE);
    const int32_t raised = rounded < INT16_MIN ? INT16_MIN : rounded;
    return (int16_t)(raised > INT16_MAX ? INT16_MAX : raised);
}

enum lmkd_status lmkd_process_hop(struct lmkd_state *state, const int16_t *in, int16_t *out) {
    enum lmkd_status status = prv_check_hop(state, in, out);
    if (status != LMKD_OK) {
        return status;
    }
    float *hop = state->second;  // free until the transform
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        hop[n] = (float)in[n] * (1.0f / PRV_FULL_SCALE);
    }
    status = prv_process(state, hop);
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        out[n] = prv_to_int16(hop[n]);
    }
    return status;
}

enum lmkd_status lmkd_process_hop_f32(struct lmkd_state *state, const float *in, float *out) {
    enum lmkd_status status = prv_check_hop(state, in, out);
    if (status != LMKD_OK) {
        return status;
    }
    bool is_finite = true;
    float *hop = state->second;
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        const bool is_good = prv_is_finite(in[n]);
        is_finite = is_finite && is_good;
        hop[n] = is_good ? lmkd_clamp(in[n], -LMKD_FLOAT_LIMIT, LMKD_FLOAT_LIMIT) : 0.0f;
    }
    status = prv_process(state, hop);
    memcpy(out, hop, (size_t)LMKD_HOP_LENGTH * sizeof *out);
    return status == LMKD_OK && !is_finite ? LMKD_ERROR_NOT_FINITE : status;
}

enum lmkd_status lmkd_process(struct lmkd_state *state, const int16_t *in, int16_t *out,
                              size_t num_samples) {
    enum lmkd_status status = prv_check_hop(state, in, out);
    if (status == LMKD_OK && (num_samples == 0u || num_samples % LMKD_HOP_LENGTH != 0u)) {
        status = LMKD_ERROR_LENGTH;
    }
    for (size_t n = 0; status == LMKD_OK && n < num_samples; n += LMKD_HOP_LENGTH) {
        status = lmkd_process_hop(state, in + n, out + n);
    }
    return status;
}

int32_t lmkd_latency(void) {
    return LMKD_LATENCY_SAMPLES;
}

const char *lmkd_version(void) {
    return LMKD_VERSION;
}

const char *lmkd_model_hash(void) {
    return LMKD_MODEL_SHA256;
}
