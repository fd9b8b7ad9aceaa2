// SPDX-License-Identifier: Apache-2.0
// Runtime of TFLite Micro: the only C++ file, and the only one that includes it. TFLite Micro comes
// from a build of its own, with the kernels (reference, CMSIS-NN, Ethos-U) that it was made with.
#include <stddef.h>
#include <string.h>

#include <new>

#include "checksum.h"
#include "lmkd/lmkd.h"
#include "model_data.h"
#include "network.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {
namespace micro {}
}  // namespace tflite

namespace {

// The classes are in tflite up to August 2026 and in tflite::micro after it.
namespace tflm {
using namespace ::tflite;
using namespace ::tflite::micro;
}  // namespace tflm

constexpr uint32_t kSchemaVersion = 3u;

using Resolver = tflm::MicroMutableOpResolver<LMKD_NUM_OPERATORS>;

// Inputs share memory with what is computed later, so everything that outlives an invocation is
// kept beside the arena.
struct Network {
    tflm::MicroInterpreter *interpreter;
    int8_t features[LMKD_NUM_BANDS];
    int8_t mask[LMKD_NUM_BANDS];
    int8_t states[LMKD_STATE_BYTES];
    alignas(16) unsigned char resolver_memory[sizeof(Resolver)];
    alignas(16) unsigned char interpreter_memory[sizeof(tflm::MicroInterpreter)];
    alignas(16) uint8_t arena[LMKD_ARENA_BYTES];
};

static_assert(sizeof(Network) <= LMKD_NETWORK_BYTES, "raise LMKD_INTERPRETER_BYTES");

// How a state moves: from an output of one hop to an input of the next.
struct State {
    size_t input;
    size_t output;
    size_t bytes;
    int8_t zero_point;
};

#define LMKD_STATE_ROW(input, output, bytes, zero_point) {input, output, bytes, zero_point},
constexpr State kStates[LMKD_NUM_STATES] = {LMKD_STATES(LMKD_STATE_ROW)};

Network *At(void *memory) {
    return static_cast<Network *>(memory);
}

lmkd_status CheckModel(const void *model, size_t model_bytes) {
    if (reinterpret_cast<uintptr_t>(model) % LMKD_MEMORY_ALIGNMENT != 0u) {
        return LMKD_ERROR_MODEL_ALIGNMENT;
    }
    if (model_bytes < LMKD_MODEL_BYTES ||
        memcmp(static_cast<const char *>(model) + 4, "TFL3", 4) != 0) {
        return LMKD_ERROR_MODEL_FORMAT;
    }
    if (lmkd_crc32(model, LMKD_MODEL_BYTES) != LMKD_MODEL_CRC32) {
        return LMKD_ERROR_MODEL_CORRUPT;
    }
    return tflite::GetModel(model)->version() == kSchemaVersion ? LMKD_OK
                                                                : LMKD_ERROR_MODEL_VERSION;
}

bool RegisterOperators(Resolver *resolver) {
    bool is_complete = true;
#define LMKD_REGISTER(name) is_complete = is_complete && resolver->Add##name() == kTfLiteOk;
    LMKD_OPERATORS(LMKD_REGISTER)
    return is_complete;
}

bool HasBytes(const TfLiteTensor *tensor, size_t bytes) {
    return tensor != nullptr && tensor->type == kTfLiteInt8 && tensor->bytes == bytes;
}

// Whether the tensors are the ones that the configuration was generated from.
bool FitsConfiguration(tflm::MicroInterpreter *interpreter) {
    bool fits = interpreter->inputs_size() == LMKD_NUM_INPUTS &&
                interpreter->outputs_size() == LMKD_NUM_OUTPUTS &&
                HasBytes(interpreter->input(LMKD_INPUT_FEATURES_INDEX), LMKD_NUM_BANDS) &&
                HasBytes(interpreter->output(LMKD_OUTPUT_MASK_INDEX), LMKD_NUM_BANDS);
    for (const State &state : kStates) {
        fits = fits && HasBytes(interpreter->input(state.input), state.bytes) &&
               HasBytes(interpreter->output(state.output), state.bytes);
    }
    return fits;
}

}  // namespace

extern "C" size_t lmkd_network_memory_size(void) {
    return LMKD_NETWORK_BYTES;
}

extern "C" lmkd_status lmkd_network_init(void *memory, const void *model, size_t model_bytes) {
    const void *image = model != nullptr ? model : lmkd_model_data;
    const lmkd_status status = CheckModel(image, model != nullptr ? model_bytes : LMKD_MODEL_BYTES);
    if (status != LMKD_OK) {
        return status;
    }
    Network *network = At(memory);
    Resolver *resolver = new (network->resolver_memory) Resolver();
    if (!RegisterOperators(resolver)) {
        return LMKD_ERROR_RUNTIME;
    }
    network->interpreter = new (network->interpreter_memory) tflm::MicroInterpreter(
        tflite::GetModel(image), *resolver, network->arena, LMKD_ARENA_BYTES);
    if (network->interpreter->AllocateTensors() != kTfLiteOk) {
        return LMKD_ERROR_RUNTIME;
    }
    if (!FitsConfiguration(network->interpreter)) {
        return LMKD_ERROR_TABLES;
    }
    lmkd_network_reset(memory);
    return LMKD_OK;
}

extern "C" void lmkd_network_reset(void *memory) {
    int8_t *place = At(memory)->states;
    for (const State &state : kStates) {
        memset(place, state.zero_point, state.bytes);
        place += state.bytes;
    }
}

extern "C" int8_t *lmkd_network_features(void *memory) {
    return At(memory)->features;
}

extern "C" lmkd_status lmkd_network_invoke(void *memory) {
    Network *network = At(memory);
    tflm::MicroInterpreter *interpreter = network->interpreter;
    memcpy(interpreter->input(LMKD_INPUT_FEATURES_INDEX)->data.int8, network->features,
           LMKD_NUM_BANDS);
    int8_t *place = network->states;
    for (const State &state : kStates) {
        memcpy(interpreter->input(state.input)->data.int8, place, state.bytes);
        place += state.bytes;
    }
    if (interpreter->Invoke() != kTfLiteOk) {
        return LMKD_ERROR_RUNTIME;
    }
    place = network->states;
    for (const State &state : kStates) {
        memcpy(place, interpreter->output(state.output)->data.int8, state.bytes);
        place += state.bytes;
    }
    memcpy(network->mask, interpreter->output(LMKD_OUTPUT_MASK_INDEX)->data.int8, LMKD_NUM_BANDS);
    return LMKD_OK;
}

extern "C" const int8_t *lmkd_network_mask(const void *memory) {
    return static_cast<const Network *>(memory)->mask;
}
