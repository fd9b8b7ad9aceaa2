// SPDX-License-Identifier: Apache-2.0
// Kernels without weights: elementwise, pooling, copies.
#include <stddef.h>

#include "nn.h"
#include "nn_arithmetic.h"

// One run along the last axis of two operands.
struct prv_run {
    const int8_t *first;
    const int8_t *second;
    int8_t *output;
    int32_t count;
    int32_t first_step;
    int32_t second_step;
};

typedef void (*prv_compute)(const void *op, const struct prv_run *run);

static void prv_for_each_run(const struct lmkd_nn_pairs *pairs, const struct prv_run *start,
                             prv_compute compute, const void *op) {
    const int32_t *first = pairs->first_strides;
    const int32_t *second = pairs->second_strides;
    struct prv_run run = *start;
    run.count = pairs->counts[3];
    run.first_step = first[3];
    run.second_step = second[3];
    for (int32_t i = 0; i < pairs->counts[0]; i++) {
        for (int32_t j = 0; j < pairs->counts[1]; j++) {
            for (int32_t k = 0; k < pairs->counts[2]; k++) {
                run.first = start->first + i * first[0] + j * first[1] + k * first[2];
                run.second = start->second + i * second[0] + j * second[1] + k * second[2];
                compute(op, &run);
                run.output += run.count;
            }
        }
    }
}

static int32_t prv_scale(int32_t centered, int32_t multiplier, int32_t shift) {
    return prv_divide(prv_multiply_high(centered, multiplier, 0), shift);
}

#if defined(LMKD_NN_HELIUM)
// Four elements of an operand, or one repeated.
static int32x4_t prv_load_x4(const int8_t *operand, int32_t step) {
    return step == 0 ? vdupq_n_s32(*operand) : vldrbq_s32(operand);
}
#endif

// The short form of most additions.
static void prv_add_affine_run(const void *context, const struct prv_run *run) {
    const struct lmkd_nn_add *op = (const struct lmkd_nn_add *)context;
    const int32_t offset = op->affine_offset;
    const int32_t first_slope = op->first_slope, second_slope = op->second_slope;
    const int32_t first_step = run->first_step, second_step = run->second_step;
    const int8_t *first = run->first;
    const int8_t *second = run->second;
    int8_t *output = run->output;
    const int8_t *end = output + run->count;
#if defined(LMKD_NN_HELIUM)
    for (; (first_step | second_step) >> 1 == 0 && end - output >= 4; output += 4) {
        const int32x4_t a = vshlq_n_s32(prv_load_x4(first, first_step), 24);
        const int32x4_t b = vshlq_n_s32(prv_load_x4(second, second_step), 24);
        int32x4_t sum = vaddq_n_s32(vmulhq_s32(a, vdupq_n_s32(first_slope)), offset);
        sum = vaddq_s32(sum, vmulhq_s32(b, vdupq_n_s32(second_slope)));
        vstrbq_s32(output, prv_clamp_x4(vshrq_n_s32(sum, 20), INT8_MIN, INT8_MAX));
        first += 4 * first_step;
        second += 4 * second_step;
    }
#endif
    while (output != end) {
        const int32_t sum = prv_add_slope(offset, first_slope, *first);
        *output++ = prv_saturate(prv_add_slope(sum, second_slope, *second) >> 20);
        first += first_step;
        second += second_step;
    }
}

static void prv_add_run(const void *context, const struct prv_run *run) {
    const struct lmkd_nn_add op = *(const struct lmkd_nn_add *)context;
    const int8_t *first = run->first;
    const int8_t *second = run->second;
    for (int32_t n = 0; n < run->count; n++) {
        // TFLM raises the operands by 20 bits before it scales them.
        const int32_t a = prv_scale((*first - op.first_zero_point) * (1 << 20), op.first_multiplier,
                                    op.first_shift);
        const int32_t b = prv_scale((*second - op.second_zero_point) * (1 << 20),
                                    op.second_multiplier, op.second_shift);
        const int32_t code = prv_scale(a + op.sign * b, op.output_multiplier, op.output_shift);
        run->output[n] = (int8_t)prv_clamp(code + op.output_zero_point, op.lowest, op.highest);
        first += run->first_step;
        second += run->second_step;
    }
}

void lmkd_nn_add(const struct lmkd_nn_add *op, const int8_t *first, const int8_t *second,
                 int8_t *output) {
    const struct prv_run start = {.first = first, .second = second, .output = output};
    prv_for_each_run(&op->pairs, &start, op->is_affine ? prv_add_affine_run : prv_add_run, op);
}

static void prv_multiply_run(const void *context, const struct prv_run *run) {
    const struct lmkd_nn_multiply op = *(const struct lmkd_nn_multiply *)context;
    const int8_t *first = run->first;
    const int8_t *second = run->second;
    for (int32_t n = 0; n < run->count; n++) {
        const int32_t product = (*first - op.first_zero_point) * (*second - op.second_zero_point);
        const int32_t high = prv_multiply_high(product, op.multiplier, op.left_shift);
        const int32_t code = prv_divide(high, op.right_shift) + op.output_zero_point;
        run->output[n] = (int8_t)prv_clamp(code, op.lowest, op.highest);
        first += run->first_step;
        second += run->second_step;
    }
}

void lmkd_nn_multiply(const struct lmkd_nn_multiply *op, const int8_t *first, const int8_t *second,
                      int8_t *output) {
    const struct prv_run start = {.first = first, .second = second, .output = output};
    prv_for_each_run(&op->pairs, &start, prv_multiply_run, op);
}

// Part of the input that a pooling window covers.
struct prv_box {
    int32_t top;
    int32_t bottom;
    int32_t left;
    int32_t right;
};

static struct prv_box prv_box_at(const struct lmkd_nn_window *window, int32_t row, int32_t column) {
    const int32_t top = row * window->stride_height - window->padding_height;
    const int32_t left = column * window->stride_width - window->padding_width;
    const struct prv_box box = {
        .top = prv_clamp(top, 0, window->height),
        .bottom = prv_clamp(top + window->kernel_height, 0, window->height),
        .left = prv_clamp(left, 0, window->width),
        .right = prv_clamp(left + window->kernel_width, 0, window->width),
    };
    return box;
}

// Sum and largest element of one channel in a box.
static void prv_reduce(const struct lmkd_nn_window *window, const struct prv_box *box,
                       const int8_t *channel, int32_t result[2]) {
    result[0] = 0;
    result[1] = INT8_MIN;
    for (int32_t y = box->top; y < box->bottom; y++) {
        for (int32_t x = box->left; x < box->right; x++) {
            const int32_t value = channel[(y * window->width + x) * window->channels];
            result[0] += value;
            result[1] = value > result[1] ? value : result[1];
        }
    }
}

static void prv_pool(const struct lmkd_nn_pool *op, const int8_t *input, int8_t *output,
                     int32_t is_average) {
    const struct lmkd_nn_window *window = &op->window;
    for (int32_t row = 0; row < window->output_height; row++) {
        for (int32_t column = 0; column < window->output_width; column++) {
            const struct prv_box box = prv_box_at(window, row, column);
            const int32_t area = (box.bottom - box.top) * (box.right - box.left);
            for (int32_t k = 0; k < window->channels; k++) {
                int32_t result[2];
                prv_reduce(window, &box, input + k, result);
                const int32_t half = result[0] > 0 ? area / 2 : -(area / 2);
                const int32_t code = is_average ? (result[0] + half) / area : result[1];
                *output++ = (int8_t)prv_clamp(code, op->lowest, op->highest);
            }
        }
    }
}

void lmkd_nn_max_pool(const struct lmkd_nn_pool *op, const int8_t *input, int8_t *output) {
    prv_pool(op, input, output, 0);
}

void lmkd_nn_average_pool(const struct lmkd_nn_pool *op, const int8_t *input, int8_t *output) {
    prv_pool(op, input, output, 1);
}

void lmkd_nn_lookup(const int8_t *table, const int8_t *input, int8_t *output, int32_t count) {
    int32_t n = 0;
    for (; n + 4 <= count; n += 4) {
        output[n] = table[(uint8_t)input[n]];
        output[n + 1] = table[(uint8_t)input[n + 1]];
        output[n + 2] = table[(uint8_t)input[n + 2]];
        output[n + 3] = table[(uint8_t)input[n + 3]];
    }
    for (; n < count; n++) {
        output[n] = table[(uint8_t)input[n]];
    }
}

static void prv_copy_run(const int8_t *source, int32_t source_step, int8_t *target,
                         const struct lmkd_nn_copy *op) {
    const int32_t count = op->counts[3];
    const int32_t target_step = op->target_strides[3];
    if (source_step == 1 && target_step == 1) {
        memcpy(target, source, (size_t)count);
        return;
    }
    for (int32_t n = 0; n < count; n++) {
        target[n * target_step] = source[n * source_step];
    }
}

void lmkd_nn_copy(const struct lmkd_nn_copy *op, const int8_t *source, int8_t *target) {
    const int32_t *from = op->source_strides;
    const int32_t *to = op->target_strides;
    for (int32_t i = 0; i < op->counts[0]; i++) {
        for (int32_t j = 0; j < op->counts[1]; j++) {
            for (int32_t k = 0; k < op->counts[2]; k++) {
                prv_copy_run(source + i * from[0] + j * from[1] + k * from[2], from[3],
                             target + i * to[0] + j * to[1] + k * to[2], op);
            }
        }
    }
}

void lmkd_nn_fill(int8_t *target, int32_t value, int32_t count) {
    memset(target, (int)value, (size_t)count);
}
