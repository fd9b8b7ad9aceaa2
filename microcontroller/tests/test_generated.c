// SPDX-License-Identifier: Apache-2.0
// Checks that the generated model, configuration and tables fit together.
#include <string.h>

#include "check.h"
#include "lmkd_config.h"
#include "model_data.h"
#include "tables.h"

static int prv_is_near_one(float value) {
    return value > 1.0f - 1e-6f && value < 1.0f + 1e-6f;
}

static void prv_test_model(void) {
    CHECK((uintptr_t)lmkd_model_data % 16u == 0u, "the model is aligned to 16 bytes");
    CHECK(lmkd_model_data_bytes == sizeof lmkd_model_data, "the size is that of the array");
    CHECK(memcmp(lmkd_model_data + 4, "TFL3", 4) == 0, "the model is a .tflite file");
    CHECK(strlen(LMKD_MODEL_SHA256) == 64u, "the SHA-256 has 64 digits");
}

static void prv_test_frame(void) {
    CHECK(2 * LMKD_HOP_LENGTH == LMKD_WINDOW_LENGTH, "frames overlap by half");
    CHECK(LMKD_NUM_BINS == LMKD_FFT_LENGTH / 2 + 1, "bins follow from the FFT");
    CHECK(LMKD_NUM_BANDS <= LMKD_NUM_BINS, "there are no more bands than bins");
    CHECK(LMKD_STATE_BYTES < LMKD_ARENA_BYTES, "the arena holds the states");
    CHECK(LMKD_NUM_INPUTS == LMKD_NUM_STATES + 1, "one input is not a state");
    CHECK(LMKD_NUM_OUTPUTS == LMKD_NUM_STATES + 1, "one output is not a state");
}

static void prv_test_window(void) {
    int num_wrong = 0;
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        const float first = lmkd_window[n];
        const float second = lmkd_window[n + LMKD_HOP_LENGTH];
        num_wrong += !prv_is_near_one(first * first + second * second);
    }
    CHECK(num_wrong == 0, "overlap-add of the squared window is one");
}

static void prv_test_bands(void) {
    int num_wrong = 0;
    for (int f = 0; f < LMKD_NUM_BINS; f++) {
        float sum = 0.0f;
        for (int k = 0; k < LMKD_BANDS_PER_BIN; k++) {
            sum += lmkd_band_weights[f][k];
        }
        num_wrong += !prv_is_near_one(sum);
        num_wrong += lmkd_band_start[f] + LMKD_BANDS_PER_BIN > LMKD_NUM_BANDS;
    }
    CHECK(num_wrong == 0, "every bin takes its gain from bands that exist, with total weight 1");
}

int main(void) {
    prv_test_model();
    prv_test_frame();
    prv_test_window();
    prv_test_bands();
    return prv_report("test_generated");
}
