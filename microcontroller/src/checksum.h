// SPDX-License-Identifier: Apache-2.0
#ifndef LMKD_CHECKSUM_H
#define LMKD_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// CRC-32 (polynomial 0xEDB88320, as in zip and Ethernet) of `num_bytes` bytes.
uint32_t lmkd_crc32(const void *content, size_t num_bytes);

#ifdef __cplusplus
}
#endif

#endif  // LMKD_CHECKSUM_H
