// SPDX-License-Identifier: Apache-2.0
// Corrupted images, cut short or with changed bytes: lmkd_init refuses every one but the right one.
#include <stdlib.h>
#include <string.h>

#include "lmkd/lmkd.h"

int LLVMFuzzerTestOneInput(const uint8_t *content, size_t num_bytes);

static LMKD_MEMORY(prv_memory);
static _Alignas(16) uint8_t prv_image[LMKD_IMAGE_BYTES];

// Bytes of the fuzzer: a length, then triples of a position (32 bits) and a new byte.
static size_t prv_corrupt(const uint8_t *content, size_t num_bytes) {
    uint32_t length = 0u;
    memcpy(prv_image, lmkd_model_image, sizeof prv_image);
    if (num_bytes >= 4) {
        memcpy(&length, content, sizeof length);
    }
    for (size_t n = 4; n + 5 <= num_bytes; n += 5) {
        uint32_t position;
        memcpy(&position, content + n, sizeof position);
        // The header half of the time, the constants otherwise.
        prv_image[position % (n % 2 ? LMKD_IMAGE_HEADER_BYTES : LMKD_IMAGE_BYTES)] = content[n + 4];
    }
    return length % 4u == 0u ? length % (LMKD_IMAGE_BYTES + 1u) : LMKD_IMAGE_BYTES;
}

int LLVMFuzzerTestOneInput(const uint8_t *content, size_t num_bytes) {
    const size_t length = prv_corrupt(content, num_bytes);
    const struct lmkd_config config = {.model = prv_image, .model_bytes = length};
    struct lmkd_state *state;
    int16_t hop[LMKD_HOP_LENGTH] = {0};
    const enum lmkd_status status = lmkd_init(prv_memory, sizeof prv_memory, &config, &state);
    const int is_right =
        length == LMKD_IMAGE_BYTES && memcmp(prv_image, lmkd_model_image, sizeof prv_image) == 0;
    if ((status == LMKD_OK) != is_right || (state == NULL) == is_right) {
        abort();
    }
    if (lmkd_process_hop(state, hop, hop) != (is_right ? LMKD_OK : LMKD_ERROR_NULL)) {
        abort();
    }
    return 0;
}
