// SPDX-License-Identifier: Apache-2.0
// Hours of difficult audio: soak [SECONDS]. Bounded output, the same after a reset, no drift.
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "lmkd/lmkd.h"

#define DEFAULT_SECONDS 3600
#define NUM_KINDS 8
#define VOICE_HOPS 750  // twelve seconds
#define TWO_PI 6.2831853f

static LMKD_MEMORY(prv_float_memory);
static LMKD_MEMORY(prv_int_memory);

// Sample `n` of a hop; the kind changes every second.
static float prv_sample(int kind, int n, uint32_t *seed) {
    const float noise = prv_noise(seed);
    switch (kind) {
        case 0:
            return 0.0f;
        case 1:
            return noise;
        case 2:
            return n % 2 ? 1.0f : -1.0f;  // full scale at half of the sampling rate
        case 3:
            return 0.999f;  // DC
        case 4:
            return n == 0 ? 1.0f : 0.0f;  // impulses
        case 5:
            return noise * 1e-5f;  // below one 16-bit step
        case 6:
            return noise > 0.99f ? NAN : noise < -0.99f ? INFINITY : 0.1f * noise;
        default:
            return (n / 40) % 2 ? 0.7f : -0.7f;  // square wave
    }
}

static int16_t prv_to_int16(float sample) {
    return sample == sample && fabsf(sample) <= 1.0f ? (int16_t)(sample * 32767.0f) : 0;
}

static void prv_run_hop(struct lmkd_state *first, struct lmkd_state *second, int kind,
                        uint32_t *seed, int *num_wrong) {
    float hop[LMKD_HOP_LENGTH];
    int16_t samples[LMKD_HOP_LENGTH];
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        hop[n] = prv_sample(kind, n, seed);
        samples[n] = prv_to_int16(hop[n]);
    }
    const enum lmkd_status status = lmkd_process_hop_f32(first, hop, hop);
    *num_wrong += status != LMKD_OK && status != LMKD_ERROR_NOT_FINITE;
    *num_wrong += lmkd_process_hop(second, samples, samples) != LMKD_OK;
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        *num_wrong += !(fabsf(hop[n]) <= 4.0f);
    }
}

// Sample `n` of a voice without words: eleven harmonics, two and a half syllables a second.
static float prv_voice(long n) {
    const float time_s = (float)(n % (2L * LMKD_SAMPLE_RATE_HZ)) / LMKD_SAMPLE_RATE_HZ;
    const float syllable = sinf(2.5f * TWO_PI * time_s);
    float sum = 0.0f;
    for (int k = 1; k < 12; k++) {
        sum += sinf(140.0f * (float)k * TWO_PI * time_s) / (float)k;
    }
    return syllable > 0.0f ? 3000.0f * syllable * sum : 0.0f;
}

// Power of what is wrong in the last four of twelve seconds of that voice in hiss, enhanced; the
// last of its hops goes to `hop`.
static double prv_error_of_voice(struct lmkd_state *state, int16_t *hop) {
    uint32_t seed = 9u;
    double power = 0.0;
    for (long t = 0; t < VOICE_HOPS; t++) {
        for (long n = 0; n < LMKD_HOP_LENGTH; n++) {
            const float voice = prv_voice(t * LMKD_HOP_LENGTH + n);
            hop[n] = (int16_t)(voice + 2500.0f * prv_noise(&seed));
        }
        CHECK_STATUS(lmkd_process_hop(state, hop, hop), LMKD_OK);
        for (long n = 0; n < LMKD_HOP_LENGTH && t >= VOICE_HOPS * 2 / 3; n++) {
            const float voice = prv_voice((t - 1) * LMKD_HOP_LENGTH + n);
            const double error = (double)hop[n] - (double)voice;
            power += error * error;
        }
    }
    return power;
}

int main(int argc, char **argv) {
    const long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : DEFAULT_SECONDS;
    const long num_hops = seconds * LMKD_SAMPLE_RATE_HZ / LMKD_HOP_LENGTH;
    const long hops_per_kind = LMKD_SAMPLE_RATE_HZ / LMKD_HOP_LENGTH;
    struct lmkd_state *first, *second;
    int16_t before[LMKD_HOP_LENGTH], after[LMKD_HOP_LENGTH];
    uint32_t seed = 1u;
    int num_wrong = 0;
    CHECK_STATUS(lmkd_init(prv_float_memory, sizeof prv_float_memory, NULL, &first), LMKD_OK);
    CHECK_STATUS(lmkd_init(prv_int_memory, sizeof prv_int_memory, NULL, &second), LMKD_OK);
    const double error_before = prv_error_of_voice(second, before);
    for (long t = 0; t < num_hops; t++) {
        prv_run_hop(first, second, (int)(t / hops_per_kind % NUM_KINDS), &seed, &num_wrong);
    }
    CHECK(num_wrong == 0, "every output is finite and bounded");
    // A recurrence holds on to what it heard, until it hears speech.
    const double error_after = prv_error_of_voice(second, after);
    CHECK(error_after <= 1.12 * error_before, "a voice is as clean as before, within 0.5 dB");
    CHECK_STATUS(lmkd_reset(second), LMKD_OK);
    CHECK(prv_error_of_voice(second, after) == error_before, "a reset gives a fresh run");
    CHECK(memcmp(before, after, sizeof before) == 0, "to the bit");
    printf("%ld hops\n", num_hops);
    return prv_report("soak");
}
