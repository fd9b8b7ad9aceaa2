// SPDX-License-Identifier: Apache-2.0
#ifndef LMKD_TESTS_TFLM_RESOLVER_H
#define LMKD_TESTS_TFLM_RESOLVER_H

#include "tensorflow/lite/c/common.h"

namespace tflite {
#if defined(LMKD_DECLARE_MICRO_NAMESPACE)
namespace micro {
#endif

class MicroOpResolver {
   public:
    virtual ~MicroOpResolver() = default;
};

template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
   public:
    TfLiteStatus AddAdd();
    TfLiteStatus AddConcatenation();
    TfLiteStatus AddConv2D();
    TfLiteStatus AddDepthwiseConv2D();
    TfLiteStatus AddFullyConnected();
    TfLiteStatus AddLogistic();
    TfLiteStatus AddMul();
    TfLiteStatus AddPad();
    TfLiteStatus AddQuantize();
    TfLiteStatus AddReshape();
    TfLiteStatus AddSplit();
    TfLiteStatus AddStridedSlice();
    TfLiteStatus AddSub();
    TfLiteStatus AddTanh();
    TfLiteStatus AddTranspose();
};

#if defined(LMKD_DECLARE_MICRO_NAMESPACE)
}  // namespace micro
#endif
}  // namespace tflite

#endif  // LMKD_TESTS_TFLM_RESOLVER_H
