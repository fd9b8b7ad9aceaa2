// SPDX-License-Identifier: Apache-2.0
// The steps around the network against Python's, and the network against TFLite Micro.
#include <string.h>

#include "check.h"
#include "fft.h"
#include "front_end.h"
#include "golden.h"
#include "lmkd/lmkd.h"
#include "network.h"

#define FEATURES_FLOOR_DB 100.0
#define OUTPUT_FLOOR_DB 75.0

static LMKD_MEMORY(prv_memory);

// Hop `number` of the test signal, in float.
static void prv_golden_hop(int32_t number, uint32_t *state, float *hop) {
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        hop[n] = (float)lmkd_golden_sample(state, number) / 32768.0f;
    }
}

static void prv_test_features_are_those_of_python(void) {
    static float previous[LMKD_HOP_LENGTH], hop[LMKD_HOP_LENGTH];
    static float frame[LMKD_FFT_LENGTH], spectrum[LMKD_FFT_LENGTH];
    static float features[LMKD_GOLDEN_NUM_HOPS][LMKD_NUM_BANDS];
    int8_t codes[LMKD_NUM_BANDS];
    uint32_t state = 1u;
    int num_other_codes = 0;
    for (int32_t t = 0; t < LMKD_GOLDEN_NUM_HOPS; t++) {
        prv_golden_hop(t, &state, hop);
        lmkd_window_frame(hop, previous, frame);
        lmkd_fft_forward(frame, spectrum);
        lmkd_band_features(spectrum, features[t]);
        lmkd_quantize_features(features[t], codes);
        for (int band = 0; band < LMKD_NUM_BANDS; band++) {
            num_other_codes += codes[band] != lmkd_golden_codes[t][band];
        }
    }
    CHECK(prv_snr_db(&lmkd_golden_features[0][0], &features[0][0],
                     LMKD_GOLDEN_NUM_HOPS * LMKD_NUM_BANDS) >= FEATURES_FLOOR_DB,
          "the features are those of Python");
    CHECK(num_other_codes == 0, "the codes are those of Python");
}

static void prv_test_masks_are_those_of_tflite_micro(void) {
    int num_wrong = 0;
    CHECK(sizeof prv_memory >= lmkd_network_memory_size(), "a network fits in an instance");
    CHECK_STATUS(lmkd_network_init(prv_memory, NULL, 0), LMKD_OK);
    for (int32_t t = 0; t < LMKD_GOLDEN_NUM_HOPS; t++) {
        memcpy(lmkd_network_features(prv_memory), lmkd_golden_codes[t], LMKD_NUM_BANDS);
        CHECK_STATUS(lmkd_network_invoke(prv_memory), LMKD_OK);
        num_wrong +=
            memcmp(lmkd_network_mask(prv_memory), lmkd_golden_masks[t], LMKD_NUM_BANDS) != 0;
    }
    CHECK(num_wrong == 0, "every mask is that of TFLite Micro, bit by bit");
}

static void prv_test_output_is_that_of_python(void) {
    static float wanted[LMKD_GOLDEN_NUM_HOPS - 1][LMKD_HOP_LENGTH];
    static float found[LMKD_GOLDEN_NUM_HOPS - 1][LMKD_HOP_LENGTH];
    int16_t hop[LMKD_HOP_LENGTH];
    struct lmkd_state *instance;
    uint32_t state = 1u;
    CHECK_STATUS(lmkd_init(prv_memory, sizeof prv_memory, NULL, &instance), LMKD_OK);
    for (int32_t t = 0; t < LMKD_GOLDEN_NUM_HOPS; t++) {
        for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
            hop[n] = lmkd_golden_sample(&state, t);
        }
        CHECK_STATUS(lmkd_process_hop(instance, hop, hop), LMKD_OK);
        for (int n = 0; t > 0 && n < LMKD_HOP_LENGTH; n++) {
            wanted[t - 1][n] = (float)lmkd_golden_output[t - 1][n];
            found[t - 1][n] = (float)hop[n];
        }
    }
    CHECK(prv_snr_db(&wanted[0][0], &found[0][0], (LMKD_GOLDEN_NUM_HOPS - 1) * LMKD_HOP_LENGTH) >=
              OUTPUT_FLOOR_DB,
          "the output is that of Python");
}

static void prv_test_gains_of_one_change_nothing(void) {
    static float hop[LMKD_HOP_LENGTH], before[2 * LMKD_HOP_LENGTH], overlap[LMKD_HOP_LENGTH];
    static float frame[LMKD_FFT_LENGTH], spectrum[LMKD_FFT_LENGTH], previous[LMKD_HOP_LENGTH];
    float gains[LMKD_NUM_BANDS];
    uint32_t state = 3u;
    for (int band = 0; band < LMKD_NUM_BANDS; band++) {
        gains[band] = 1.0f;
    }
    for (int t = 0; t < 2; t++) {
        for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
            before[t * LMKD_HOP_LENGTH + n] = hop[n] = prv_noise(&state);
        }
        lmkd_window_frame(hop, previous, frame);
        lmkd_fft_forward(frame, spectrum);
        lmkd_apply_gains(gains, spectrum);
        lmkd_fft_inverse(spectrum, frame);
        lmkd_overlap_add(frame, overlap, hop);
    }
    CHECK(prv_snr_db(before, hop, LMKD_HOP_LENGTH) >= 115.0,
          "analysis and synthesis give the signal, one hop later");
}

static void prv_test_steps_saturate(void) {
    float features[LMKD_NUM_BANDS] = {1000.0f, -1000.0f};
    int8_t codes[LMKD_NUM_BANDS];
    lmkd_quantize_features(features, codes);
    CHECK(codes[0] == 127 && codes[1] == -128, "features beyond the codes saturate");
}

static void prv_test_gains_respect_their_lowest(void) {
    int8_t mask[LMKD_NUM_BANDS] = {LMKD_OUTPUT_MASK_ZERO_POINT, LMKD_OUTPUT_MASK_ZERO_POINT + 128};
    float gains[LMKD_NUM_BANDS];
    lmkd_band_gains(mask, 0.25f, gains);
    CHECK(gains[0] == 0.25f, "a gain of zero is raised to the lowest");
    CHECK(gains[1] == 128.0f * LMKD_OUTPUT_MASK_SCALE, "a gain above stays");
}

static void prv_test_amplitude_is_the_power_of_ten(void) {
    double largest = 0.0;
    for (float level_db = -120.0f; level_db <= 0.0f; level_db += 0.37f) {
        const double wanted = pow(10.0, (double)level_db / 20.0);
        const double error = fabs((double)lmkd_amplitude(level_db) / wanted - 1.0);
        largest = error > largest ? error : largest;
    }
    CHECK(largest < 1e-5, "amplitudes are 10^(dB / 20)");
}

int main(void) {
    prv_test_features_are_those_of_python();
    prv_test_masks_are_those_of_tflite_micro();
    prv_test_output_is_that_of_python();
    prv_test_gains_of_one_change_nothing();
    prv_test_steps_saturate();
    prv_test_gains_respect_their_lowest();
    prv_test_amplitude_is_the_power_of_ten();
    return prv_report("test_front_end");
}
