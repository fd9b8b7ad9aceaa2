// SPDX-License-Identifier: Apache-2.0
// The public functions: what they refuse, and what they promise.
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "checksum.h"
#include "lmkd/lmkd.h"
#include "model_data.h"

#define NUM_HOPS 40

static LMKD_MEMORY(prv_first);
static LMKD_MEMORY(prv_second);
static int16_t prv_input[NUM_HOPS * LMKD_HOP_LENGTH];
static int16_t prv_output[NUM_HOPS * LMKD_HOP_LENGTH];
static int16_t prv_other[NUM_HOPS * LMKD_HOP_LENGTH];

static struct lmkd_state *prv_start(void *memory, const struct lmkd_config *config) {
    struct lmkd_state *state = NULL;
    CHECK_STATUS(lmkd_init(memory, sizeof prv_first, config, &state), LMKD_OK);
    return state;
}

static void prv_fill_input(int shift) {
    uint32_t seed = 5u;
    for (size_t n = 0; n < NUM_HOPS * LMKD_HOP_LENGTH; n++) {
        prv_input[n] = (int16_t)((int32_t)(prv_noise(&seed) * 32767.0f) >> shift);
    }
}

static void prv_run(struct lmkd_state *state, int16_t *output) {
    CHECK_STATUS(lmkd_process(state, prv_input, output, NUM_HOPS * LMKD_HOP_LENGTH), LMKD_OK);
}

static void prv_test_init_refuses_bad_memory(void) {
    struct lmkd_state *state = NULL;
    CHECK_STATUS(lmkd_init(NULL, sizeof prv_first, NULL, &state), LMKD_ERROR_NULL);
    CHECK_STATUS(lmkd_init(prv_first, sizeof prv_first, NULL, NULL), LMKD_ERROR_NULL);
    CHECK_STATUS(lmkd_init(prv_first + 4, sizeof prv_first - 4, NULL, &state),
                 LMKD_ERROR_ALIGNMENT);
    CHECK_STATUS(lmkd_init(prv_first, lmkd_memory_size() - 1, NULL, &state), LMKD_ERROR_MEMORY);
    CHECK(state == NULL, "a failed init leaves no state");
    CHECK(lmkd_memory_size() == LMKD_MEMORY_BYTES, "LMKD_MEMORY is what an instance needs");
    CHECK_STATUS(lmkd_init(prv_first, lmkd_memory_size(), NULL, &state), LMKD_OK);
}

static void prv_test_init_refuses_bad_settings(void) {
    struct lmkd_state *state = NULL;
    struct lmkd_config config = {.attenuation_limit_db = -1.0f};
    CHECK_STATUS(lmkd_init(prv_first, sizeof prv_first, &config, &state), LMKD_ERROR_ATTENUATION);
    config.attenuation_limit_db = NAN;
    CHECK_STATUS(lmkd_init(prv_first, sizeof prv_first, &config, &state), LMKD_ERROR_ATTENUATION);
    CHECK_STATUS(lmkd_process_hop((struct lmkd_state *)(void *)prv_first, prv_input, prv_output),
                 LMKD_ERROR_STATE);
}

static void prv_test_functions_refuse_what_is_no_state(void) {
    float hop[LMKD_HOP_LENGTH] = {0};
    memset(prv_first, 0, sizeof prv_first);
    struct lmkd_state *state = (struct lmkd_state *)(void *)prv_first;
    CHECK_STATUS(lmkd_process_hop(state, prv_input, prv_output), LMKD_ERROR_STATE);
    CHECK_STATUS(lmkd_process_hop_f32(state, hop, hop), LMKD_ERROR_STATE);
    CHECK_STATUS(lmkd_process(state, prv_input, prv_output, 256), LMKD_ERROR_STATE);
    CHECK_STATUS(lmkd_reset(state), LMKD_ERROR_STATE);
    CHECK_STATUS(lmkd_set_bypass(state, 1), LMKD_ERROR_STATE);
    CHECK_STATUS(lmkd_set_attenuation_limit(state, 6.0f), LMKD_ERROR_STATE);
    CHECK_STATUS(lmkd_process_hop(NULL, prv_input, prv_output), LMKD_ERROR_NULL);
    CHECK_STATUS(lmkd_reset(NULL), LMKD_ERROR_NULL);
    CHECK_STATUS(lmkd_set_bypass(NULL, 1), LMKD_ERROR_NULL);
    CHECK_STATUS(lmkd_set_attenuation_limit(NULL, 6.0f), LMKD_ERROR_NULL);
}

static void prv_test_processing_refuses_bad_buffers(void) {
    struct lmkd_state *state = prv_start(prv_first, NULL);
    CHECK_STATUS(lmkd_process_hop(state, NULL, prv_output), LMKD_ERROR_NULL);
    CHECK_STATUS(lmkd_process_hop(state, prv_input, NULL), LMKD_ERROR_NULL);
    CHECK_STATUS(lmkd_process(state, prv_input, prv_output, 0), LMKD_ERROR_LENGTH);
    CHECK_STATUS(lmkd_process(state, prv_input, prv_output, LMKD_HOP_LENGTH - 1),
                 LMKD_ERROR_LENGTH);
    CHECK_STATUS(lmkd_process(state, prv_input, prv_output, LMKD_HOP_LENGTH + 1),
                 LMKD_ERROR_LENGTH);
    CHECK_STATUS(lmkd_process(state, prv_input, prv_output, LMKD_HOP_LENGTH / 2),
                 LMKD_ERROR_LENGTH);
}

static void prv_test_instances_are_independent(void) {
    struct lmkd_state *first = prv_start(prv_first, NULL);
    struct lmkd_state *second = prv_start(prv_second, NULL);
    prv_fill_input(2);
    prv_run(first, prv_output);
    CHECK_STATUS(lmkd_reset(first), LMKD_OK);
    for (size_t n = 0; n < NUM_HOPS * LMKD_HOP_LENGTH; n += LMKD_HOP_LENGTH) {
        int16_t silence[LMKD_HOP_LENGTH] = {0};
        CHECK_STATUS(lmkd_process_hop(second, prv_input + n, prv_other + n), LMKD_OK);
        CHECK_STATUS(lmkd_process_hop(first, silence, silence), LMKD_OK);
    }
    CHECK(memcmp(prv_output, prv_other, sizeof prv_output) == 0,
          "another instance in between changes nothing");
}

static void prv_test_reset_forgets_the_past(void) {
    struct lmkd_state *state = prv_start(prv_first, NULL);
    prv_fill_input(1);
    prv_run(state, prv_output);
    prv_run(state, prv_other);
    CHECK(memcmp(prv_output, prv_other, sizeof prv_output) != 0, "the past matters");
    CHECK_STATUS(lmkd_reset(state), LMKD_OK);
    prv_run(state, prv_other);
    CHECK(memcmp(prv_output, prv_other, sizeof prv_output) == 0, "a reset forgets it");
}

static void prv_test_buffers_may_be_the_same(void) {
    struct lmkd_state *state = prv_start(prv_first, NULL);
    prv_fill_input(2);
    prv_run(state, prv_output);
    memcpy(prv_other, prv_input, sizeof prv_other);
    CHECK_STATUS(lmkd_reset(state), LMKD_OK);
    CHECK_STATUS(lmkd_process(state, prv_other, prv_other, NUM_HOPS * LMKD_HOP_LENGTH), LMKD_OK);
    CHECK(memcmp(prv_output, prv_other, sizeof prv_output) == 0, "in place is the same");
}

static void prv_test_bypass_is_the_delayed_input(void) {
    const struct lmkd_config config = {.is_bypassed = 1};
    struct lmkd_state *state = prv_start(prv_first, &config);
    int num_wrong = 0;
    prv_fill_input(0);
    prv_run(state, prv_output);
    for (size_t n = LMKD_LATENCY_SAMPLES; n < NUM_HOPS * LMKD_HOP_LENGTH; n++) {
        num_wrong += prv_output[n] != prv_input[n - LMKD_LATENCY_SAMPLES];
    }
    CHECK(num_wrong == 0, "the bypass gives the input, LMKD_LATENCY_SAMPLES later");
    CHECK(lmkd_latency() == LMKD_LATENCY_SAMPLES, "the latency is what the header says");
}

static void prv_test_bypass_keeps_the_network_up_to_date(void) {
    struct lmkd_state *first = prv_start(prv_first, NULL);
    struct lmkd_state *second = prv_start(prv_second, NULL);
    prv_fill_input(2);
    prv_run(first, prv_output);
    CHECK_STATUS(lmkd_set_bypass(second, 1), LMKD_OK);
    prv_run(second, prv_other);
    CHECK(memcmp(prv_output, prv_other, sizeof prv_output) != 0, "the bypass changes the output");
    CHECK_STATUS(lmkd_set_bypass(second, 0), LMKD_OK);
    prv_run(first, prv_output);
    prv_run(second, prv_other);
    CHECK(memcmp(prv_output + LMKD_HOP_LENGTH, prv_other + LMKD_HOP_LENGTH,
                 sizeof prv_output - LMKD_HOP_LENGTH * sizeof *prv_output) == 0,
          "one hop after the bypass the output is as if it had never been on");
}

static double prv_level(const int16_t *samples) {
    double energy = 0.0;
    for (size_t n = LMKD_HOP_LENGTH; n < NUM_HOPS * LMKD_HOP_LENGTH; n++) {
        energy += (double)samples[n] * (double)samples[n];
    }
    return 10.0 * log10(energy + 1e-9);
}

static void prv_test_attenuation_is_limited(void) {
    struct lmkd_state *state = prv_start(prv_first, NULL);
    prv_fill_input(3);
    prv_run(state, prv_output);
    const double unlimited_db = prv_level(prv_input) - prv_level(prv_output);
    CHECK_STATUS(lmkd_reset(state), LMKD_OK);
    CHECK_STATUS(lmkd_set_attenuation_limit(state, 6.0f), LMKD_OK);
    prv_run(state, prv_output);
    const double limited_db = prv_level(prv_input) - prv_level(prv_output);
    CHECK(unlimited_db > 8.0, "white noise is attenuated");
    CHECK(limited_db <= 6.3, "the limit holds");
    CHECK(limited_db > 4.0, "up to the limit noise is attenuated");
}

static void prv_test_float_and_int16_agree(void) {
    struct lmkd_state *first = prv_start(prv_first, NULL);
    struct lmkd_state *second = prv_start(prv_second, NULL);
    float hop[LMKD_HOP_LENGTH];
    int num_wrong = 0;
    prv_fill_input(2);
    prv_run(first, prv_output);
    for (size_t t = 0; t < NUM_HOPS; t++) {
        for (size_t n = 0; n < LMKD_HOP_LENGTH; n++) {
            hop[n] = (float)prv_input[t * LMKD_HOP_LENGTH + n] / 32768.0f;
        }
        CHECK_STATUS(lmkd_process_hop_f32(second, hop, hop), LMKD_OK);
        for (size_t n = 0; n < LMKD_HOP_LENGTH; n++) {
            const float difference = hop[n] * 32768.0f - (float)prv_output[t * LMKD_HOP_LENGTH + n];
            num_wrong += difference < -0.5f || difference > 0.5f;
        }
    }
    CHECK(num_wrong == 0, "the float output rounds to the 16-bit output");
}

static void prv_test_what_is_not_finite_is_taken_as_zero(void) {
    struct lmkd_state *first = prv_start(prv_first, NULL);
    struct lmkd_state *second = prv_start(prv_second, NULL);
    float bad[LMKD_HOP_LENGTH] = {[3] = NAN, [7] = INFINITY, [9] = -INFINITY, [20] = 0.5f};
    float good[LMKD_HOP_LENGTH] = {[20] = 0.5f};
    for (int t = 0; t < 5; t++) {
        float out[LMKD_HOP_LENGTH], wanted[LMKD_HOP_LENGTH];
        CHECK_STATUS(lmkd_process_hop_f32(first, bad, out), LMKD_ERROR_NOT_FINITE);
        CHECK_STATUS(lmkd_process_hop_f32(second, good, wanted), LMKD_OK);
        CHECK(memcmp(out, wanted, sizeof out) == 0, "NaN and infinity count as zero");
    }
}

static void prv_test_huge_samples_stay_finite(void) {
    struct lmkd_state *state = prv_start(prv_first, NULL);
    float hop[LMKD_HOP_LENGTH];
    int num_wrong = 0;
    for (int t = 0; t < 8; t++) {
        for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
            hop[n] = n % 2 ? 3e38f : -3e38f;
        }
        CHECK_STATUS(lmkd_process_hop_f32(state, hop, hop), LMKD_OK);
        for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
            num_wrong += !(fabsf(hop[n]) <= 32.0f * LMKD_FLOAT_LIMIT);
        }
    }
    CHECK(num_wrong == 0, "samples beyond the limit saturate");
}

// A loud float hop comes out with the 16-bit one behind it. Gains of one make that so whatever the
// model does.
static void prv_test_output_saturates(void) {
    const struct lmkd_config config = {.is_bypassed = 1};
    struct lmkd_state *first = prv_start(prv_first, &config);
    struct lmkd_state *second = prv_start(prv_second, &config);
    int num_above = 0, num_below = 0, num_wrong = 0;
    uint32_t seed = 6u;
    for (int t = 0; t < NUM_HOPS; t++) {
        int16_t samples[LMKD_HOP_LENGTH] = {0};
        float loud[LMKD_HOP_LENGTH], hop[LMKD_HOP_LENGTH];
        for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
            loud[n] = LMKD_FLOAT_LIMIT * prv_noise(&seed);
        }
        CHECK_STATUS(lmkd_process_hop_f32(first, loud, hop), LMKD_OK);
        CHECK_STATUS(lmkd_process_hop_f32(second, loud, hop), LMKD_OK);
        memset(hop, 0, sizeof hop);
        CHECK_STATUS(lmkd_process_hop(first, samples, samples), LMKD_OK);
        CHECK_STATUS(lmkd_process_hop_f32(second, hop, hop), LMKD_OK);
        for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
            const bool is_above = hop[n] > 1.0f, is_below = hop[n] < -1.0f;
            num_above += is_above;
            num_below += is_below;
            num_wrong += is_above && samples[n] != INT16_MAX;
            num_wrong += is_below && samples[n] != INT16_MIN;
        }
    }
    CHECK(num_above > 0 && num_below > 0, "the float output goes beyond full scale");
    CHECK(num_wrong == 0, "there the 16-bit output saturates");
}

static void prv_test_silence_stays_silent(void) {
    struct lmkd_state *state = prv_start(prv_first, NULL);
    int num_wrong = 0;
    memset(prv_input, 0, sizeof prv_input);
    prv_run(state, prv_output);
    for (size_t n = 0; n < NUM_HOPS * LMKD_HOP_LENGTH; n++) {
        num_wrong += prv_output[n] != 0;
    }
    CHECK(num_wrong == 0, "silence gives silence");
}

#if !defined(LMKD_RUNTIME_TFLM)
static _Alignas(16) uint32_t prv_image[LMKD_IMAGE_BYTES / 4u];

static enum lmkd_status prv_init_with_image(size_t num_bytes) {
    const struct lmkd_config config = {.model = prv_image, .model_bytes = num_bytes};
    struct lmkd_state *state;
    return lmkd_init(prv_first, sizeof prv_first, &config, &state);
}

static enum lmkd_status prv_init_with_word(size_t index, uint32_t value, bool is_signed_anew) {
    memcpy(prv_image, lmkd_model_image, sizeof prv_image);
    prv_image[index] = value;
    if (is_signed_anew) {
        prv_image[3] = lmkd_crc32(prv_image + 4, sizeof prv_image - 16);
    }
    return prv_init_with_image(sizeof prv_image);
}

static void prv_test_init_checks_the_image(void) {
    memcpy(prv_image, lmkd_model_image, sizeof prv_image);
    CHECK_STATUS(prv_init_with_image(sizeof prv_image), LMKD_OK);
    CHECK_STATUS(prv_init_with_image(sizeof prv_image - 4), LMKD_ERROR_MODEL_FORMAT);
    CHECK_STATUS(prv_init_with_image(12), LMKD_ERROR_MODEL_FORMAT);
    CHECK_STATUS(prv_init_with_word(0, 0x12345678u, true), LMKD_ERROR_MODEL_FORMAT);
    CHECK_STATUS(prv_init_with_word(1, 99u, true), LMKD_ERROR_MODEL_VERSION);
    CHECK_STATUS(prv_init_with_word(2, 8u, true), LMKD_ERROR_MODEL_FORMAT);
    CHECK_STATUS(prv_init_with_word(3, 1u, false), LMKD_ERROR_MODEL_CORRUPT);
    CHECK_STATUS(prv_init_with_word(5, 1u, true), LMKD_ERROR_MODEL_HASH);
    CHECK_STATUS(prv_init_with_word(12, 1u, true), LMKD_ERROR_MODEL_HASH);
    CHECK_STATUS(prv_init_with_word(13, 128u, true), LMKD_ERROR_TABLES);
    CHECK_STATUS(prv_init_with_word(14, 17u, true), LMKD_ERROR_TABLES);
    CHECK_STATUS(prv_init_with_word(15, 129u, true), LMKD_ERROR_TABLES);
    const size_t last = LMKD_IMAGE_BYTES / 4u - 1u;
    CHECK_STATUS(prv_init_with_word(last, ~lmkd_model_image[last], false),
                 LMKD_ERROR_MODEL_CORRUPT);
}

static void prv_test_init_refuses_a_misaligned_image(void) {
    const struct lmkd_config config = {.model = (const char *)prv_image + 4,
                                       .model_bytes = sizeof prv_image - 4};
    struct lmkd_state *state;
    CHECK_STATUS(lmkd_init(prv_first, sizeof prv_first, &config, &state),
                 LMKD_ERROR_MODEL_ALIGNMENT);
}

static void prv_test_image_elsewhere_gives_the_same_output(void) {
    struct lmkd_state *first = prv_start(prv_first, NULL);
    memcpy(prv_image, lmkd_model_image, sizeof prv_image);
    const struct lmkd_config config = {.model = prv_image, .model_bytes = sizeof prv_image};
    struct lmkd_state *second = prv_start(prv_second, &config);
    prv_fill_input(2);
    prv_run(first, prv_output);
    prv_run(second, prv_other);
    CHECK(memcmp(prv_output, prv_other, sizeof prv_output) == 0, "the image may lie elsewhere");
}
#endif

static void prv_test_checksum_is_that_of_zip(void) {
    // The check value that every catalog of CRCs lists for these nine bytes.
    CHECK(lmkd_crc32("123456789", 9) == 0xCBF43926u, "CRC-32 of 123456789");
}

static void prv_test_library_names_itself(void) {
    CHECK(strcmp(lmkd_version(), LMKD_VERSION) == 0, "the version is that of the header");
    CHECK(strcmp(lmkd_model_hash(), LMKD_MODEL_SHA256) == 0, "the hash is that of the model");
}

int main(void) {
    prv_test_init_refuses_bad_memory();
    prv_test_init_refuses_bad_settings();
    prv_test_functions_refuse_what_is_no_state();
    prv_test_processing_refuses_bad_buffers();
    prv_test_instances_are_independent();
    prv_test_reset_forgets_the_past();
    prv_test_buffers_may_be_the_same();
    prv_test_bypass_is_the_delayed_input();
    prv_test_bypass_keeps_the_network_up_to_date();
    prv_test_attenuation_is_limited();
    prv_test_float_and_int16_agree();
    prv_test_what_is_not_finite_is_taken_as_zero();
    prv_test_huge_samples_stay_finite();
    prv_test_output_saturates();
    prv_test_silence_stays_silent();
#if !defined(LMKD_RUNTIME_TFLM)
    prv_test_init_checks_the_image();
    prv_test_init_refuses_a_misaligned_image();
    prv_test_image_elsewhere_gives_the_same_output();
#endif
    prv_test_checksum_is_that_of_zip();
    prv_test_library_names_itself();
    return prv_report("test_lmkd");
}
