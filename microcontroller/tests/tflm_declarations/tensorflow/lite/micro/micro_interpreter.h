// SPDX-License-Identifier: Apache-2.0
#ifndef LMKD_TESTS_TFLM_INTERPRETER_H
#define LMKD_TESTS_TFLM_INTERPRETER_H

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {
#if defined(LMKD_DECLARE_MICRO_NAMESPACE)
namespace micro {
#endif

class MicroInterpreter {
   public:
    MicroInterpreter(const Model *model, const MicroOpResolver &op_resolver, uint8_t *tensor_arena,
                     size_t tensor_arena_size);
    ~MicroInterpreter();
    TfLiteStatus AllocateTensors();
    TfLiteStatus Invoke();
    TfLiteTensor *input(size_t index);
    TfLiteTensor *output(size_t index);
    size_t inputs_size() const;
    size_t outputs_size() const;
};

#if defined(LMKD_DECLARE_MICRO_NAMESPACE)
}  // namespace micro
#endif
}  // namespace tflite

#endif  // LMKD_TESTS_TFLM_INTERPRETER_H
