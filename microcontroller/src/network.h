// SPDX-License-Identifier: Apache-2.0
// What the frame loop asks of a runtime: one hop of the network, int8 features to an int8 mask.
// network_aot.c runs generated C, backend_tflm.cc an interpreter of TFLite Micro; one is linked.
#ifndef LMKD_NETWORK_H
#define LMKD_NETWORK_H

#include <stddef.h>
#include <stdint.h>

#include "lmkd/status.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of memory that one network needs, aligned to LMKD_MEMORY_ALIGNMENT.
size_t lmkd_network_memory_size(void);

// Checks a model (NULL: the one that is built in) and makes a network in `memory`, reset.
enum lmkd_status lmkd_network_init(void *memory, const void *model, size_t model_bytes);

// Sets every state to its quantized zero.
void lmkd_network_reset(void *memory);

// Where the features of the next hop go: LMKD_NUM_BANDS codes.
int8_t *lmkd_network_features(void *memory);

// Runs one hop and moves the state on.
enum lmkd_status lmkd_network_invoke(void *memory);

// Mask of the last hop: LMKD_NUM_BANDS codes, valid until the next one.
const int8_t *lmkd_network_mask(const void *memory);

#ifdef __cplusplus
}
#endif

#endif  // LMKD_NETWORK_H
