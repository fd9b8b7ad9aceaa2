// SPDX-License-Identifier: Apache-2.0
// Enhances a wav file: wav_filter IN.wav OUT.wav [LIMIT_DB]
//
// Mono, 16 kHz, 16 bits. The output has the length of the input and is aligned with it. Runs on
// a PC, and on an emulated or debugged board by semihosting.
//
// An older OUT.wav is replaced only once the input and the limit are found good. One name for
// both files is refused; C cannot tell that two names (a link, or ./IN.wav) are one file.
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

static bool prv_has_bytes_left(FILE *file, uint32_t num_bytes) {
    const long start = ftell(file);
    if (start < 0 || fseek(file, 0, SEEK_END) != 0) {
        return false;
    }
    const long end = ftell(file);
    return end >= start && (unsigned long)(end - start) >= num_bytes &&
           fseek(file, start, SEEK_SET) == 0;
}

// Moves to the samples of a wav file; returns their bytes, or 0 where the format is another one
// or samples are missing.
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
            return is_known && prv_has_bytes_left(file, size) ? size : 0;
        }
        if (memcmp(chunk, "fmt ", 4) == 0 && size >= 16 && fread(chunk, 1, 16, file) == 16) {
            is_known = prv_read_u32(chunk) == (1u | 1u << 16) &&  // PCM, one channel
                       prv_read_u32(chunk + 4) == LMKD_SAMPLE_RATE_HZ && chunk[14] == 16;
            size -= 16;
        }
        // A larger size is negative as a long of 32 bits, and would lead back.
        if (size >= INT32_MAX || fseek(file, (long)(size + size % 2), SEEK_CUR) != 0) {
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

static int prv_fail_with(enum lmkd_status status) {
    fprintf(stderr, "wav_filter: status %d; see lmkd/status.h\n", (int)status);
    return 1;
}

// Writes the output; an incomplete one is removed.
static int prv_write(const char *name, struct lmkd_state *state, FILE *in, uint32_t num_samples) {
    FILE *out = fopen(name, "wb");
    if (out == NULL) {
        return prv_fail("The output must be writable. Received an error. Check the path.");
    }
    enum lmkd_status status = LMKD_OK;
    bool is_written = prv_write_header(out, 2 * num_samples);
    if (is_written) {
        status = prv_filter(state, in, out, num_samples);
        is_written = ferror(out) == 0;
    }
    is_written = fclose(out) == 0 && is_written;
    if (is_written && status == LMKD_OK) {
        return 0;
    }
    remove(name);
    if (!is_written) {
        return prv_fail("The output must fit on the disk. Received an error. Free some space.");
    }
    return prv_fail_with(status);
}

static int prv_run(FILE *in, const char *out_name, float limit_db) {
    const struct lmkd_config config = {.attenuation_limit_db = limit_db};
    struct lmkd_state *state;
    const uint32_t data_bytes = prv_open_wav(in);
    if (data_bytes < 2) {
        return prv_fail(
            "The input must be a whole wav file with samples: mono, 16 kHz, 16-bit PCM. "
            "Received another format, or less than its header says. Convert it first.");
    }
    const enum lmkd_status status = lmkd_init(prv_memory, sizeof prv_memory, &config, &state);
    return status != LMKD_OK ? prv_fail_with(status)
                             : prv_write(out_name, state, in, data_bytes / 2);
}

// Whether a word is a number, all of it.
static bool prv_read_limit(const char *word, float *limit_db) {
    char *end;
    *limit_db = strtof(word, &end);
    return end != word && *end == '\0';
}

int main(int argc, char **argv) {
    float limit_db = 0.0f;
    if (argc < 3 || argc > 4) {
        return prv_fail("Two files are needed: wav_filter IN.wav OUT.wav [LIMIT_DB]");
    }
    if (strcmp(argv[1], argv[2]) == 0) {
        return prv_fail(
            "The output must be another file than the input. Received one name for both. "
            "Give the output another name.");
    }
    if (argc == 4 && !prv_read_limit(argv[3], &limit_db)) {
        return prv_fail("The limit must be a number of dB. Received another word. Give 12, say.");
    }
    FILE *in = fopen(argv[1], "rb");
    if (in == NULL) {
        return prv_fail("The input must exist. Received a name without a file. Check the path.");
    }
    const int result = prv_run(in, argv[2], limit_db);
    fclose(in);
    return result;
}
