// SPDX-License-Identifier: Apache-2.0
#ifndef LMKD_TESTS_TFLM_COMMON_H
#define LMKD_TESTS_TFLM_COMMON_H

#include <stddef.h>
#include <stdint.h>

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
enum TfLiteType { kTfLiteInt8 = 9 };

struct TfLiteQuantizationParams {
    float scale;
    int32_t zero_point;
};

union TfLitePtrUnion {
    int8_t *int8;
    void *data;
};

struct TfLiteTensor {
    TfLiteType type;
    TfLitePtrUnion data;
    TfLiteQuantizationParams params;
    size_t bytes;
};

#endif  // LMKD_TESTS_TFLM_COMMON_H
