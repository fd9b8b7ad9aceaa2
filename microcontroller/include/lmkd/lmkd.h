// SPDX-License-Identifier: Apache-2.0
// lmkd: takes noise out of 16 kHz speech on a microcontroller, one hop of samples at a time.
//
//     static LMKD_MEMORY(memory);                    // all the memory there is; no malloc
//     struct lmkd_state *state;
//     enum lmkd_status status = lmkd_init(memory, sizeof memory, NULL, &state);
//     ...
//     status = lmkd_process_hop(state, in, out);     // every 16 ms: 256 samples in, 256 out
//
// Signals are mono at LMKD_SAMPLE_RATE_HZ. A 16-bit sample of 32768 and a float sample of 1.0
// are full scale. The output is LMKD_LATENCY_SAMPLES later than the input.
//
// An instance is the memory that its owner passes; there are no globals that change, so any
// number of instances may run, one thread at a time in each. lmkd_init may take milliseconds (it
// reads the whole model to check it); call it outside of the audio thread. The other functions
// are bounded in time, block on nothing and allocate nothing.
//
// Compile with -ffp-contract=off for results that are the same bits on every core.
#ifndef LMKD_LMKD_H
#define LMKD_LMKD_H

#include <stddef.h>
#include <stdint.h>

#include "lmkd/status.h"
#include "lmkd_config.h"
#if !defined(LMKD_RUNTIME_TFLM)
#include "model_aot.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define LMKD_VERSION "0.1.0"

// Samples that the output is later than the input: in a whole number of hops it is one hop.
// Together with the time to collect a hop, sound leaves at most 2 * LMKD_HOP_LENGTH later.
#define LMKD_LATENCY_SAMPLES (LMKD_WINDOW_LENGTH - LMKD_HOP_LENGTH)

#define LMKD_MEMORY_ALIGNMENT 16u

// Bytes of one instance: front end (arrays and three words), then network (its size depends on the
// runtime).
#define LMKD_FRONT_END_BYTES ((8u * LMKD_FFT_LENGTH + 8u * LMKD_HOP_LENGTH + 12u + 15u) / 16u * 16u)
#if defined(LMKD_RUNTIME_TFLM)
#if !defined(LMKD_INTERPRETER_BYTES)
#define LMKD_INTERPRETER_BYTES 2048u  // interpreter, operators, features and mask
#endif
#define LMKD_NETWORK_BYTES \
    ((LMKD_ARENA_BYTES + LMKD_STATE_BYTES + LMKD_INTERPRETER_BYTES + 15u) / 16u * 16u)
#else
#define LMKD_NETWORK_BYTES (LMKD_AOT_MEMORY_BYTES + LMKD_MEMORY_ALIGNMENT)
#endif
#define LMKD_MEMORY_BYTES (LMKD_FRONT_END_BYTES + LMKD_NETWORK_BYTES)

// Declares an array that holds one instance; `static` may stand before it, in C++ too, where the
// alignment must not follow `static` and so follows the name.
#if defined(__cplusplus)
#define LMKD_MEMORY(name) unsigned char name alignas(LMKD_MEMORY_ALIGNMENT)[LMKD_MEMORY_BYTES]
#else
#define LMKD_MEMORY(name) _Alignas(LMKD_MEMORY_ALIGNMENT) unsigned char name[LMKD_MEMORY_BYTES]
#endif

#if defined(__GNUC__)
#define LMKD_MUST_CHECK __attribute__((warn_unused_result))
#else
#define LMKD_MUST_CHECK
#endif

// One instance; its contents are private.
struct lmkd_state;

// Settings of an instance; all zero is the default.
struct lmkd_config {
    // Most that any band is attenuated, in dB, above 0 (6 = half the amplitude, 12 and 20 are
    // usual); 0 leaves it to the network, which may silence a band.
    float attenuation_limit_db;
    // 1 passes the signal through, delayed as the enhanced one; 0 enhances it.
    int is_bypassed;
    // Image of the model, aligned to 16 bytes and kept by the caller while the instance lives,
    // and its length in bytes; NULL and 0 use the image that is built in. It must be the model
    // that this build was generated for: this is for an image in another flash.
    const void *model;
    size_t model_bytes;
};

// Returns the bytes of memory that one instance needs: LMKD_MEMORY_BYTES of the compiled library.
size_t lmkd_memory_size(void);

// Makes an instance in memory of the caller, and checks the model.
//
// memory        At least lmkd_memory_size() bytes, aligned to LMKD_MEMORY_ALIGNMENT; it belongs
//               to the instance as long as that is used. There is nothing to free.
// memory_bytes  Its length.
// config        Settings, copied; NULL for the default.
// state         Receives the instance; set to NULL where something is wrong.
LMKD_MUST_CHECK enum lmkd_status lmkd_init(void *memory, size_t memory_bytes,
                                           const struct lmkd_config *config,
                                           struct lmkd_state **state);

// Takes the next LMKD_HOP_LENGTH samples and returns as many, enhanced. The buffers may be the
// same one. Samples beyond full scale saturate.
LMKD_MUST_CHECK enum lmkd_status lmkd_process_hop(struct lmkd_state *state, const int16_t *in,
                                                  int16_t *out);

// The same in float, full scale 1.0. What is NaN or infinite is taken as 0 and reported by
// LMKD_ERROR_NOT_FINITE after the hop was processed; what is beyond +-LMKD_FLOAT_LIMIT
// saturates there. The output is not limited to full scale.
LMKD_MUST_CHECK enum lmkd_status lmkd_process_hop_f32(struct lmkd_state *state, const float *in,
                                                      float *out);
#define LMKD_FLOAT_LIMIT 16.0f

// Processes a buffer of several hops: `num_samples` must be a multiple of LMKD_HOP_LENGTH.
LMKD_MUST_CHECK enum lmkd_status lmkd_process(struct lmkd_state *state, const int16_t *in,
                                              int16_t *out, size_t num_samples);

// Forgets the past; the settings stay. Call it when a new stream begins.
LMKD_MUST_CHECK enum lmkd_status lmkd_reset(struct lmkd_state *state);

// Changes the attenuation limit, in dB, from the next hop on; 0 is no limit.
LMKD_MUST_CHECK enum lmkd_status lmkd_set_attenuation_limit(struct lmkd_state *state,
                                                            float attenuation_limit_db);

// Turns the bypass on (1) or off (0) from the next hop on, without a click. The network goes on
// hearing the signal, so that it is up to date when the bypass ends.
LMKD_MUST_CHECK enum lmkd_status lmkd_set_bypass(struct lmkd_state *state, int is_bypassed);

// Returns LMKD_LATENCY_SAMPLES, LMKD_VERSION and the SHA-256 of the .tflite that this build was
// generated from, in hexadecimal, of the compiled library.
int32_t lmkd_latency(void);
const char *lmkd_version(void);
const char *lmkd_model_hash(void);

#ifdef __cplusplus
}
#endif

#endif  // LMKD_LMKD_H
