// SPDX-License-Identifier: Apache-2.0
#ifndef LMKD_TESTS_TFLM_SCHEMA_H
#define LMKD_TESTS_TFLM_SCHEMA_H

#include <stdint.h>

namespace tflite {

class Model {
   public:
    uint32_t version() const;
};

const Model *GetModel(const void *buffer);

}  // namespace tflite

#endif  // LMKD_TESTS_TFLM_SCHEMA_H
