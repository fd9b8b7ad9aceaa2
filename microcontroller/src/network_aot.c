// SPDX-License-Identifier: Apache-2.0
// Runtime of generated C: no interpreter.
#include <stddef.h>

#include "checksum.h"
#include "lmkd/lmkd.h"
#include "model_aot.h"
#include "network.h"

// Front of an image; the checksum covers what stands after it.
struct prv_header {
    uint32_t magic;
    uint32_t version;
    uint32_t num_bytes;
    uint32_t crc32;
    uint8_t sha256[32];
    uint32_t plan;
    uint32_t hop_length;
    uint32_t num_bands;
    uint32_t num_bins;
};

_Static_assert(sizeof(struct prv_header) == LMKD_IMAGE_HEADER_BYTES, "the header is packed");

struct prv_network {
    _Alignas(16) int8_t memory[LMKD_AOT_MEMORY_BYTES];
    const int8_t *image;  // behind its header
};

_Static_assert(sizeof(struct prv_network) == LMKD_NETWORK_BYTES, "lmkd.h states the size");

static enum lmkd_status prv_check_model(const struct prv_header *header, size_t model_bytes) {
    const uint8_t *checked = (const uint8_t *)header + offsetof(struct prv_header, sha256);
    if (model_bytes < LMKD_IMAGE_HEADER_BYTES || header->magic != LMKD_IMAGE_MAGIC) {
        return LMKD_ERROR_MODEL_FORMAT;
    }
    if (header->version != LMKD_IMAGE_VERSION) {
        return LMKD_ERROR_MODEL_VERSION;
    }
    if (header->num_bytes > model_bytes || header->num_bytes < LMKD_IMAGE_HEADER_BYTES) {
        return LMKD_ERROR_MODEL_FORMAT;
    }
    if (lmkd_crc32(checked, header->num_bytes - offsetof(struct prv_header, sha256)) !=
        header->crc32) {
        return LMKD_ERROR_MODEL_CORRUPT;
    }
    if (header->hop_length != LMKD_HOP_LENGTH || header->num_bands != LMKD_NUM_BANDS ||
        header->num_bins != LMKD_NUM_BINS) {
        return LMKD_ERROR_TABLES;
    }
    const struct prv_header *own = (const struct prv_header *)(const void *)lmkd_model_image;
    for (size_t n = 0; n < sizeof header->sha256; n++) {
        if (header->sha256[n] != own->sha256[n]) {
            return LMKD_ERROR_MODEL_HASH;
        }
    }
    return header->plan == LMKD_AOT_PLAN && header->num_bytes == LMKD_IMAGE_BYTES
               ? LMKD_OK
               : LMKD_ERROR_MODEL_HASH;
}

size_t lmkd_network_memory_size(void) {
    return sizeof(struct prv_network);
}

enum lmkd_status lmkd_network_init(void *memory, const void *model, size_t model_bytes) {
    struct prv_network *network = (struct prv_network *)memory;
    const void *image = model != NULL ? model : lmkd_model_image;
    if ((uintptr_t)image % LMKD_MEMORY_ALIGNMENT != 0u) {
        return LMKD_ERROR_MODEL_ALIGNMENT;
    }
    const enum lmkd_status status = prv_check_model((const struct prv_header *)image,
                                                    model != NULL ? model_bytes : LMKD_IMAGE_BYTES);
    network->image = (const int8_t *)image + LMKD_IMAGE_HEADER_BYTES;
    lmkd_network_reset(memory);
    return status;
}

void lmkd_network_reset(void *memory) {
    lmkd_aot_reset(((struct prv_network *)memory)->memory);
}

int8_t *lmkd_network_features(void *memory) {
    return ((struct prv_network *)memory)->memory + LMKD_AOT_FEATURES_OFFSET;
}

enum lmkd_status lmkd_network_invoke(void *memory) {
    struct prv_network *network = (struct prv_network *)memory;
    lmkd_aot_invoke(network->memory, network->image);
    return LMKD_OK;
}

const int8_t *lmkd_network_mask(const void *memory) {
    return ((const struct prv_network *)memory)->memory + LMKD_AOT_MASK_OFFSET;
}
