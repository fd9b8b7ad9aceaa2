// SPDX-License-Identifier: Apache-2.0
#include "checksum.h"

// Remainder of each value of four bits: table[n] = n after four steps of the bitwise division.
static const uint32_t prv_table[16] = {
    0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
    0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
    0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
};

uint32_t lmkd_crc32(const void *content, size_t num_bytes) {
    const uint8_t *bytes = (const uint8_t *)content;
    uint32_t remainder = 0xFFFFFFFFu;
    for (size_t n = 0; n < num_bytes; n++) {
        remainder ^= bytes[n];
        remainder = (remainder >> 4) ^ prv_table[remainder & 15u];
        remainder = (remainder >> 4) ^ prv_table[remainder & 15u];
    }
    return ~remainder;
}
