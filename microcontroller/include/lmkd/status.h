// SPDX-License-Identifier: Apache-2.0
// What the functions of lmkd.h return: 0, or a negative number with its remedy.
#ifndef LMKD_STATUS_H
#define LMKD_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

enum lmkd_status {
    LMKD_OK = 0,
    // A pointer is null. Pass memory, buffers and a place for the state.
    LMKD_ERROR_NULL = -1,
    // The memory is not aligned to LMKD_MEMORY_ALIGNMENT bytes. Declare it with alignas.
    LMKD_ERROR_ALIGNMENT = -2,
    // The memory is smaller than lmkd_memory_size(). Pass at least that many bytes.
    LMKD_ERROR_MEMORY = -3,
    // The state was not made by lmkd_init, or was overwritten. Call lmkd_init first, and look
    // for a buffer or a stack that runs into the memory of the state.
    LMKD_ERROR_STATE = -4,
    // The number of samples is not a positive multiple of LMKD_HOP_LENGTH. Collect whole hops.
    LMKD_ERROR_LENGTH = -5,
    // The attenuation limit is negative or not finite. Use dB above 0, or 0 for no limit.
    LMKD_ERROR_ATTENUATION = -6,
    // A sample was NaN or infinite and was taken as 0; the output is valid. Repair the source.
    LMKD_ERROR_NOT_FINITE = -7,
    // The model does not begin as one, or is cut short. Pass the whole image, or none to use
    // the one that is built in.
    LMKD_ERROR_MODEL_FORMAT = -8,
    // The model has a format of another version. Generate it with the generator of this library.
    LMKD_ERROR_MODEL_VERSION = -9,
    // The model is intact but is not the one this build was generated for. Generate the sources
    // anew and build again, or pass the image that came with them.
    LMKD_ERROR_MODEL_HASH = -10,
    // The checksum of the model is wrong. Write the flash again.
    LMKD_ERROR_MODEL_CORRUPT = -11,
    // The model was made for another frame or number of bands than the tables. Generate both
    // with one command.
    LMKD_ERROR_TABLES = -12,
    // The runtime lacks an operator of the model, or cannot place its tensors in the arena.
    // Register the operator, or raise LMKD_ARENA_BYTES.
    LMKD_ERROR_RUNTIME = -13,
    // The model must be aligned to 16 bytes. Declare its array with alignas(16).
    LMKD_ERROR_MODEL_ALIGNMENT = -14,
};

#ifdef __cplusplus
}
#endif

#endif  // LMKD_STATUS_H
