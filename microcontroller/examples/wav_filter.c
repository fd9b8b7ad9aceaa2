// SPDX-License-Identifier: Apache-2.0
// Enhances a wav file: wav_filter IN.wav OUT.wav [LIMIT_DB]
//
// Mono, 16 kHz, 16 bits. The output has the length of the input and is aligned with it. Runs on
// a PC, and on an emulated or debugged board by semihosting.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lmkd/lmkd.h"

#define PRV_HEADER_BYTES 44

static LMKD_MEMORY(prv_memory);

static uint32_t prv_read_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static void prv_write_u32(uint8_t *bytes, uint32_t value) {
    for (int n = 0; n < 4; n++) {
        bytes[n] = (uint8_t)(value >> (8 * n));
    }
}

// Moves to the samples of a wav file; returns their bytes, or 0 where the format is another one.
static uint32_t prv_open_wav(FILE *file) {
    uint8_t chunk[16];
    bool is_known = false;
    if (fread(chunk, 1, 12, file) != 12 || memcmp(chunk, "RIFF", 4) != 0 ||
        memcmp(chunk + 8, "WAVE", 4) != 0) {
        return 0;
    }
    while (fread(chunk, 1, 8, file) == 8) {
        uint32_t size = prv_read_u32(chunk + 4);
        if (memcmp(chunk, "data", 4) == 0) {
            return is_known ? size : 0;
        }
        if (memcmp(chunk, "fmt ", 4) == 0 && size >= 16 && fread(chunk, 1, 16, file) == 16) {
            is_known = prv_read_u32(chunk) == (1u | 1u << 16) &&  // PCM, one channel
                       prv_read_u32(chunk + 4) == LMKD_SAMPLE_RATE_HZ && chunk[14] == 16;
            size -= 16;
        }
        if (fseek(file, (long)(size + size % 2), SEEK_CUR) != 0) {
            return 0;
        }
    }
    return 0;
}

static bool prv_write_header(FILE *file, uint32_t data_bytes) {
    uint8_t header[PRV_HEADER_BYTES] = "RIFF....WAVEfmt ";
    prv_write_u32(header + 4, PRV_HEADER_BYTES - 8 + data_bytes);
    prv_write_u32(header + 16, 16);
    prv_write_u32(header + 20, 1u | 1u << 16);
    prv_write_u32(header + 24, LMKD_SAMPLE_RATE_HZ);
    prv_write_u32(header + 28, 2 * LMKD_SAMPLE_RATE_HZ);
    prv_write_u32(header + 32, 2u | 16u << 16);
    memcpy(header + 36, "data", 4);
    prv_write_u32(header + 40, data_bytes);
    return fwrite(header, 1, sizeof header, file) == sizeof header;
}

// Filters `num_samples`; zeros follow the end until the delayed output is complete.
static enum lmkd_status prv_filter(struct lmkd_state *state, FILE *in, FILE *out,
                                   uint32_t num_samples) {
    static int16_t hop[LMKD_HOP_LENGTH];
    const uint32_t end = num_samples + LMKD_LATENCY_SAMPLES;
    for (uint32_t done = 0; done < end; done += LMKD_HOP_LENGTH) {
        const uint32_t left = done < num_samples ? num_samples - done : 0u;
        const uint32_t wanted = left < LMKD_HOP_LENGTH ? left : LMKD_HOP_LENGTH;
        memset(hop, 0, sizeof hop);
        if (fread(hop, sizeof *hop, wanted, in) != wanted) {
            return LMKD_ERROR_LENGTH;
        }
        const enum lmkd_status status = lmkd_process_hop(state, hop, hop);
        if (status != LMKD_OK) {
            return status;
        }
        if (done >= LMKD_LATENCY_SAMPLES) {
            const uint32_t rest = end - done;
            const uint32_t count = rest < LMKD_HOP_LENGTH ? rest : LMKD_HOP_LENGTH;
            if (fwrite(hop, sizeof *hop, count, out) != count) {
                return LMKD_ERROR_LENGTH;
            }
        }
    }
    return LMKD_OK;
}

static int prv_fail(const char *message) {
    fprintf(stderr, "wav_filter: %s\n", message);
    return 1;
}

static int prv_run(FILE *in, FILE *out, float limit_db) {
    const struct lmkd_config config = {.attenuation_limit_db = limit_db};
    struct lmkd_state *state;
    const uint32_t data_bytes = prv_open_wav(in);
    if (data_bytes == 0) {
        return prv_fail(
            "The input must be a wav file with samples: mono, 16 kHz, 16-bit PCM. "
            "Received another format. Convert it first.");
    }
    enum lmkd_status status = lmkd_init(prv_memory, sizeof prv_memory, &config, &state);
    if (status == LMKD_OK && !prv_write_header(out, data_bytes / 2 * 2)) {
        return prv_fail("The output must be writable. Received an error. Free some space.");
    }
    if (status == LMKD_OK) {
        status = prv_filter(state, in, out, data_bytes / 2);
    }
    if (status != LMKD_OK) {
        fprintf(stderr, "wav_filter: status %d; see lmkd/status.h\n", (int)status);
    }
    return status != LMKD_OK;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) {
        return prv_fail("Two files are needed: wav_filter IN.wav OUT.wav [LIMIT_DB]");
    }
    FILE *in = fopen(argv[1], "rb");
    if (in == NULL) {
        return prv_fail("The input must exist. Received a name without a file. Check the path.");
    }
    FILE *out = fopen(argv[2], "wb");
    if (out == NULL) {
        fclose(in);
        return prv_fail("The output must be writable. Received an error. Check the path.");
    }
    int result = prv_run(in, out, argc == 4 ? strtof(argv[3], NULL) : 0.0f);
    fclose(in);
    if (fclose(out) != 0) {
        result = prv_fail("The output must fit on the disk. Received an error. Free some space.");
    }
    if (result != 0) {
        remove(argv[2]);
    }
    return result;
}
