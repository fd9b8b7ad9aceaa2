// SPDX-License-Identifier: Apache-2.0
// Dense and convolution kernels: patches of the input times blocks of four weight rows.
#include <stdbool.h>
#include <stddef.h>

#include "nn.h"
#include "nn_arithmetic.h"

// Constants of the outputs of one operator.
struct prv_outputs {
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *left_shift;
    const int8_t *right_shift;
    const int8_t *weights;
    int32_t count;
    int32_t is_plain;  // no left shift, a right shift everywhere, and the full range of codes
};

static int32_t prv_round_up(int32_t count) {
    return (count + LMKD_NN_BLOCK - 1) & ~(LMKD_NN_BLOCK - 1);
}

static struct prv_outputs prv_outputs_at(const int8_t *constants, int32_t num_outputs,
                                         int32_t is_plain) {
    const int32_t rows = prv_round_up(num_outputs);
    const int8_t *shifts = constants + (size_t)rows * 2u * sizeof(int32_t);
    const struct prv_outputs outputs = {
        .bias = (const int32_t *)(const void *)constants,
        .multiplier = (const int32_t *)(const void *)constants + rows,
        .left_shift = shifts,
        .right_shift = shifts + rows,
        .weights = shifts + 2 * rows,
        .count = num_outputs,
        .is_plain = is_plain,
    };
    return outputs;
}

// Each of the two prv_add_products adds the products of four rows to `sums`, on inputs that
// prv_prepare has seen.
#if defined(LMKD_NN_DSP)
// Four inputs times one word of each row. The compiler would load many words ahead and spill.
// clang-format off
#define PRV_ADD_ROW(word, sum)                              \
    "sxtb16 %[byte], " word "\n\t"                          \
    "smlad %[" sum "], %[even], %[byte], %[" sum "]\n\t"    \
    "sxtb16 " word ", " word ", ror #8\n\t"                 \
    "smlad %[" sum "], %[odd], " word ", %[" sum "]\n\t"
#define PRV_ADD_WORD                                        \
    "ldrd %[even], %[odd], [%[pairs]], #8\n\t"              \
    "ldmia %[rows]!, {r4, r5, r6, r8}\n\t"                  \
    PRV_ADD_ROW("r4", "sum0")                               \
    PRV_ADD_ROW("r5", "sum1")                               \
    PRV_ADD_ROW("r6", "sum2")                               \
    PRV_ADD_ROW("r8", "sum3")
// clang-format on
#define PRV_ADD_WORDS(words)                                                                       \
    __asm volatile(words                                                                           \
                   : [pairs] "+r"(pairs), [rows] "+r"(rows), [sum0] "+r"(sum0), [sum1] "+r"(sum1), \
                     [sum2] "+r"(sum2), [sum3] "+r"(sum3), [even] "=&r"(even), [odd] "=&r"(odd),   \
                     [byte] "=&r"(byte)                                                            \
                   :                                                                               \
                   : "r4", "r5", "r6", "r8", "memory")

static inline void prv_add_products(const int8_t *input, const int8_t *weights, int32_t num_inputs,
                                    int32_t sums[LMKD_NN_BLOCK]) {
    const int8_t *pairs = input;
    const int8_t *rows = weights;
    const int8_t *end = weights + LMKD_NN_BLOCK * prv_round_up(num_inputs);
    const int8_t *end_of_fours = weights + LMKD_NN_BLOCK * (num_inputs & ~15);
    int32_t sum0 = sums[0], sum1 = sums[1], sum2 = sums[2], sum3 = sums[3];
    uint32_t even, odd, byte;
    while (rows != end_of_fours) {
        PRV_ADD_WORDS(PRV_ADD_WORD PRV_ADD_WORD PRV_ADD_WORD PRV_ADD_WORD);
    }
    while (rows != end) {
        PRV_ADD_WORDS(PRV_ADD_WORD);
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}

// Writes the inputs as pairs of 16 bits, bytes 0 and 2 of each word before bytes 1 and 3.
static const int8_t *prv_prepare(const int8_t *input, int32_t num_inputs, int8_t *scratch) {
    uint32_t *pairs = (uint32_t *)(void *)(scratch + prv_round_up(num_inputs));
    int32_t index = 0;
    uint32_t word;
    for (; index + LMKD_NN_BLOCK <= num_inputs; index += LMKD_NN_BLOCK) {
        memcpy(&word, input + index, sizeof word);
        *pairs++ = prv_even_bytes(word);
        *pairs++ = prv_odd_bytes(word);
    }
    if (index < num_inputs) {
        word = 0u;
        memcpy(&word, input + index, (size_t)(num_inputs - index));
        *pairs++ = prv_even_bytes(word);
        *pairs++ = prv_odd_bytes(word);
    }
    return scratch + prv_round_up(num_inputs);
}
#else
static void prv_add_rest(const int8_t *input, const int8_t *weights, int32_t num_inputs,
                         int32_t sums[LMKD_NN_BLOCK]) {
    for (int32_t first = 0; first < num_inputs; first += LMKD_NN_BLOCK) {
        const int32_t rest = num_inputs - first;
        const int32_t count = rest < LMKD_NN_BLOCK ? rest : LMKD_NN_BLOCK;
        for (int32_t row = 0; row < LMKD_NN_BLOCK; row++) {
            for (int32_t k = 0; k < count; k++) {
                sums[row] += input[first + k] * weights[row * LMKD_NN_BLOCK + k];
            }
        }
        weights += LMKD_NN_BLOCK * LMKD_NN_BLOCK;
    }
}

static void prv_add_products(const int8_t *input, const int8_t *weights, int32_t num_inputs,
                             int32_t sums[LMKD_NN_BLOCK]) {
#if defined(LMKD_NN_HELIUM)
    int32_t sum0 = sums[0], sum1 = sums[1], sum2 = sums[2], sum3 = sums[3];
    for (; num_inputs >= 16; num_inputs -= 16) {
        // The de-interleaving load gives 16 inputs of each of the four rows.
        const uint32x4x4_t rows = vld4q_u32((const uint32_t *)(const void *)weights);
        const int8x16_t inputs = vldrbq_s8(input);
        sum0 = vmladavaq_s8(sum0, inputs, vreinterpretq_s8_u32(rows.val[0]));
        sum1 = vmladavaq_s8(sum1, inputs, vreinterpretq_s8_u32(rows.val[1]));
        sum2 = vmladavaq_s8(sum2, inputs, vreinterpretq_s8_u32(rows.val[2]));
        sum3 = vmladavaq_s8(sum3, inputs, vreinterpretq_s8_u32(rows.val[3]));
        input += 16;
        weights += 16 * LMKD_NN_BLOCK;
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
#endif
    prv_add_rest(input, weights, num_inputs, sums);
}

static const int8_t *prv_prepare(const int8_t *input, int32_t num_inputs, int8_t *scratch) {
    (void)num_inputs;
    (void)scratch;
    return input;
}
#endif

// How sums come to the scale of the output.
struct prv_range {
    int32_t zero_point;
    int32_t lowest;
    int32_t highest;
};

static int8_t prv_requantize(const struct prv_outputs *outputs, const struct prv_range *range,
                             int32_t row, int32_t sum) {
    const int32_t high = prv_multiply_high(sum, outputs->multiplier[row], outputs->left_shift[row]);
    const int32_t code = prv_divide(high, outputs->right_shift[row]) + range->zero_point;
    return (int8_t)prv_clamp(code, range->lowest, range->highest);
}

// The same for most layers: a factor below 1/2, every code allowed.
static inline int8_t prv_requantize_plain(int32_t sum, int32_t multiplier, int32_t shift,
                                          int32_t zero_point) {
    const int32_t high = prv_multiply_high(sum, multiplier, 0);
    const int32_t half = (int32_t)((1u << (uint32_t)shift) >> 1);
    return prv_saturate(((high + (high >> 31) + half) >> shift) + zero_point);
}

// Writes the outputs of a block of four sums, or of those that are left.
static inline void prv_store(const struct prv_outputs *outputs, const struct prv_range *range,
                             int32_t row, const int32_t sums[LMKD_NN_BLOCK], int8_t *output) {
    const int32_t rest = outputs->count - row;
    const int32_t count = rest < LMKD_NN_BLOCK ? rest : LMKD_NN_BLOCK;
#if defined(LMKD_NN_HELIUM)
    const int32x4_t high =
        prv_multiply_high_x4(vld1q_s32(sums), vld1q_s32(outputs->multiplier + row),
                             vldrbq_s32(outputs->left_shift + row));
    const int32x4_t codes =
        vaddq_n_s32(prv_divide_x4(high, vldrbq_s32(outputs->right_shift + row)), range->zero_point);
    const mve_pred16_t used = vctp32q((uint32_t)count);
    vstrbq_p_s32(output + row, prv_clamp_x4(codes, range->lowest, range->highest), used);
#else
    if (outputs->is_plain && count == LMKD_NN_BLOCK) {
        const int32_t *multiplier = outputs->multiplier + row;
        const int8_t *shift = outputs->right_shift + row;
        const int32_t zero = range->zero_point;
        int8_t *codes = output + row;
        codes[0] = prv_requantize_plain(sums[0], multiplier[0], shift[0], zero);
        codes[1] = prv_requantize_plain(sums[1], multiplier[1], shift[1], zero);
        codes[2] = prv_requantize_plain(sums[2], multiplier[2], shift[2], zero);
        codes[3] = prv_requantize_plain(sums[3], multiplier[3], shift[3], zero);
        return;
    }
    for (int32_t k = 0; k < count; k++) {
        output[row + k] = prv_requantize(outputs, range, row + k, sums[k]);
    }
#endif
}

void lmkd_nn_dense(const struct lmkd_nn_dense *op, const int8_t *image, const int8_t *input,
                   int8_t *output, int8_t *scratch) {
    const struct prv_outputs outputs =
        prv_outputs_at(image + op->constants, op->num_outputs, op->is_plain);
    const struct prv_range range = {op->output_zero_point, op->lowest, op->highest};
    const int32_t num_inputs = op->num_inputs;
    const int32_t block_bytes = LMKD_NN_BLOCK * prv_round_up(num_inputs);
    const int8_t *prepared = prv_prepare(input, num_inputs, scratch);
    const int8_t *weights = outputs.weights;
    for (int32_t row = 0; row < outputs.count; row += LMKD_NN_BLOCK) {
        int32_t sums[LMKD_NN_BLOCK];
        memcpy(sums, outputs.bias + row, sizeof sums);
        prv_add_products(prepared, weights, num_inputs, sums);
        prv_store(&outputs, &range, row, sums, output);
        weights += block_bytes;
    }
}

// Copies the input under a kernel at one output position; outside of the input lies its zero.
static void prv_gather(const struct lmkd_nn_window *window, const int8_t *input, int32_t top,
                       int32_t left, int8_t *patch) {
    const size_t num_bytes = (size_t)window->channels;
    for (int32_t i = 0; i < window->kernel_height; i++) {
        const int32_t y = top + i * window->dilation_height;
        for (int32_t j = 0; j < window->kernel_width; j++) {
            const int32_t x = left + j * window->dilation_width;
            if (y < 0 || y >= window->height || x < 0 || x >= window->width) {
                memset(patch, (int)window->padding_value, num_bytes);
            } else {
                memcpy(patch, input + (y * window->width + x) * window->channels, num_bytes);
            }
            patch += num_bytes;
        }
    }
}

// Whether the patch at a position is one run of the input as it lies.
static bool prv_is_contiguous(const struct lmkd_nn_window *window, int32_t top, int32_t left) {
    const bool is_row = window->kernel_height == 1 && window->dilation_width == 1;
    const bool is_column =
        window->kernel_width == 1 && window->width == 1 && window->dilation_height == 1;
    const bool is_point = window->kernel_height == 1 && window->kernel_width == 1;
    return (is_row || is_column || is_point) && top >= 0 && left >= 0 &&
           top + (window->kernel_height - 1) * window->dilation_height < window->height &&
           left + (window->kernel_width - 1) * window->dilation_width < window->width;
}

// The input under a kernel at an output position: where it lies, or copied to `scratch`.
static const int8_t *prv_patch_at(const struct lmkd_nn_window *window, const int8_t *input,
                                  int32_t position, int8_t *scratch) {
    const int32_t row = position / window->output_width;
    const int32_t column = position - row * window->output_width;
    const int32_t top = row * window->stride_height - window->padding_height;
    const int32_t left = column * window->stride_width - window->padding_width;
    if (prv_is_contiguous(window, top, left)) {
        return input + (top * window->width + left) * window->channels;
    }
    prv_gather(window, input, top, left, scratch);
    return scratch;
}

void lmkd_nn_convolution(const struct lmkd_nn_convolution *op, const int8_t *image,
                         const int8_t *input, int8_t *output, int8_t *scratch) {
    const int32_t num_positions = op->window.output_height * op->window.output_width;
    for (int32_t position = 0; position < num_positions; position++) {
        const int8_t *patch = prv_patch_at(&op->window, input, position, scratch);
        lmkd_nn_dense(&op->dense, image, patch, output, scratch);
        output += op->dense.num_outputs;
    }
}

// One output channel after the other, from `first` on.
static void prv_depthwise_from(const struct lmkd_nn_depthwise *op,
                               const struct prv_outputs *outputs, const int8_t *patch,
                               int32_t first, int8_t *output) {
    const struct prv_range range = {op->output_zero_point, op->lowest, op->highest};
    for (int32_t k = first; k < outputs->count; k++) {
        const int8_t *inputs = patch + k / op->outputs_per_input;
        const int8_t *weights = outputs->weights + k;
        int32_t sum = outputs->bias[k];
        for (int32_t tap = 0; tap < op->num_taps; tap++) {
            sum += *inputs * *weights;
            inputs += op->window.channels;
            weights += outputs->count;
        }
        output[k] = prv_requantize(outputs, &range, k, sum);
    }
}

#if defined(LMKD_NN_HELIUM)
static inline void prv_add_taps(const int8_t *inputs, const int8_t *weights, int32_t num_taps,
                                int32_t step, int32_t sums[LMKD_NN_BLOCK]) {
    int32x4_t sum = vld1q_s32(sums);
    for (int32_t at = 0; at < num_taps * step; at += step) {
        sum = vaddq_s32(sum, vmulq_s32(vldrbq_s32(inputs + at), vldrbq_s32(weights + at)));
    }
    vst1q_s32(sums, sum);
}
#elif defined(LMKD_NN_DSP)
static inline void prv_add_taps(const int8_t *inputs, const int8_t *weights, int32_t num_taps,
                                int32_t step, int32_t sums[LMKD_NN_BLOCK]) {
    int32_t sum0 = sums[0], sum1 = sums[1], sum2 = sums[2], sum3 = sums[3];
    for (int32_t tap = 0; tap < num_taps; tap++) {
        uint32_t input, weight;
        memcpy(&input, inputs, sizeof input);
        memcpy(&weight, weights, sizeof weight);
        const uint32_t even = prv_even_bytes(input), odd = prv_odd_bytes(input);
        const uint32_t even_weight = prv_even_bytes(weight), odd_weight = prv_odd_bytes(weight);
        sum0 = prv_smlabb(even, even_weight, sum0);
        sum1 = prv_smlabb(odd, odd_weight, sum1);
        sum2 = prv_smlatt(even, even_weight, sum2);
        sum3 = prv_smlatt(odd, odd_weight, sum3);
        inputs += step;
        weights += step;
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}
#else
static inline void prv_add_taps(const int8_t *inputs, const int8_t *weights, int32_t num_taps,
                                int32_t step, int32_t sums[LMKD_NN_BLOCK]) {
    for (int32_t at = 0; at < num_taps * step; at += step) {
        for (int32_t k = 0; k < LMKD_NN_BLOCK; k++) {
            sums[k] += inputs[at + k] * weights[at + k];
        }
    }
}
#endif

// Four channels at a time; returns how many were done.
static int32_t prv_depthwise_x4(const struct lmkd_nn_depthwise *op,
                                const struct prv_outputs *constants, const int8_t *patch,
                                int8_t *output) {
    const struct prv_outputs outputs = *constants;  // a copy that no output can alias
    const struct prv_range range = {op->output_zero_point, op->lowest, op->highest};
    const int32_t num_taps = op->num_taps;
    const int32_t end = op->outputs_per_input == 1 ? outputs.count : 0;
    int32_t k = 0;
    for (; k + LMKD_NN_BLOCK <= end; k += LMKD_NN_BLOCK) {
        int32_t sums[LMKD_NN_BLOCK];
        memcpy(sums, outputs.bias + k, sizeof sums);
        prv_add_taps(patch + k, outputs.weights + k, num_taps, end, sums);
        prv_store(&outputs, &range, k, sums, output);
    }
    return k;
}

void lmkd_nn_depthwise(const struct lmkd_nn_depthwise *op, const int8_t *image, const int8_t *input,
                       int8_t *output, int8_t *scratch) {
    const struct prv_outputs outputs =
        prv_outputs_at(image + op->constants, op->num_outputs, op->is_plain);
    const int32_t num_positions = op->window.output_height * op->window.output_width;
    for (int32_t position = 0; position < num_positions; position++) {
        const int8_t *patch = prv_patch_at(&op->window, input, position, scratch);
        const int32_t done = prv_depthwise_x4(op, &outputs, patch, output);
        prv_depthwise_from(op, &outputs, patch, done, output);
        output += op->num_outputs;
    }
}
