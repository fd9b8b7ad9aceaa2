// SPDX-License-Identifier: Apache-2.0
// int8 kernels for generated models, equal bit by bit to the reference kernels of TFLite Micro.
//
// A generated model holds one constant structure per operator and calls these functions in
// order. Weights, folded biases and factors lie in the image of the model, at `constants` bytes
// behind its header. A factor is a 31-bit multiplier and a shift; both of its roundings are kept.
// There are three implementations of the inner loops: portable C, the DSP extension (Cortex-M4,
// M7, M33) and Helium (Cortex-M55). The compiler's target chooses; LMKD_NN_PORTABLE keeps to C.
#ifndef LMKD_NN_H
#define LMKD_NN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Outputs of a dense kernel that are computed together, and inputs in one word.
#define LMKD_NN_BLOCK 4

// A matrix times a vector. In the image, with rows = num_outputs rounded up to 4: int32 bias[rows]
// (with the input's zero point folded in), int32 multiplier[rows], int8 left_shift[rows],
// int8 right_shift[rows], then the weights in blocks of 4 outputs by 4 inputs.
struct lmkd_nn_dense {
    uint32_t constants;
    int32_t num_inputs;
    int32_t num_outputs;
    int32_t output_zero_point;
    int32_t lowest;    // lowest output code, after the fused activation
    int32_t highest;   // highest output code
    int32_t is_plain;  // every left shift is 0, every right shift above 0, every code allowed
};

// How a kernel moves over an input of shape (height, width, channels).
struct lmkd_nn_window {
    int32_t height;
    int32_t width;
    int32_t channels;
    int32_t output_height;
    int32_t output_width;
    int32_t kernel_height;
    int32_t kernel_width;
    int32_t stride_height;
    int32_t stride_width;
    int32_t dilation_height;
    int32_t dilation_width;
    int32_t padding_height;  // rows above the input
    int32_t padding_width;   // columns left of it
    int32_t padding_value;   // code of zero
};

struct lmkd_nn_convolution {
    struct lmkd_nn_dense dense;
    struct lmkd_nn_window window;
};

// One kernel per channel. In the image: bias, multiplier, left and right shift as in
// lmkd_nn_dense, then int8 weights[num_taps][num_outputs].
struct lmkd_nn_depthwise {
    uint32_t constants;
    int32_t num_taps;
    int32_t num_outputs;
    int32_t outputs_per_input;
    int32_t output_zero_point;
    int32_t lowest;
    int32_t highest;
    int32_t is_plain;
    struct lmkd_nn_window window;
};

struct lmkd_nn_pool {
    int32_t lowest;
    int32_t highest;
    struct lmkd_nn_window window;
};

// How two operands are walked, the last axis fastest; a stride of 0 repeats an element.
struct lmkd_nn_pairs {
    int32_t counts[4];
    int32_t first_strides[4];
    int32_t second_strides[4];
};

struct lmkd_nn_add {
    int32_t sign;  // 1 adds, -1 subtracts the second operand
    int32_t first_multiplier;
    int32_t first_shift;  // to the right
    int32_t second_multiplier;
    int32_t second_shift;
    int32_t output_multiplier;
    int32_t output_shift;
    int32_t first_zero_point;
    int32_t second_zero_point;
    int32_t output_zero_point;
    int32_t lowest;
    int32_t highest;
    // 1: the code is (affine_offset + (first_slope * first >> 8) + (second_slope * second >> 8))
    // >> 20, saturated, for every pair of codes; the generator has compared all of them.
    int32_t is_affine;
    int32_t first_slope;
    int32_t second_slope;
    int32_t affine_offset;
    struct lmkd_nn_pairs pairs;
};

struct lmkd_nn_multiply {
    int32_t multiplier;
    int32_t left_shift;
    int32_t right_shift;
    int32_t first_zero_point;
    int32_t second_zero_point;
    int32_t output_zero_point;
    int32_t lowest;
    int32_t highest;
    struct lmkd_nn_pairs pairs;
};

// A box of bytes from one layout to another.
struct lmkd_nn_copy {
    int32_t counts[4];
    int32_t source_strides[4];
    int32_t target_strides[4];
};

// `scratch` of the next three holds 3 * num_inputs rounded up to 4 (dense, convolution) or
// num_taps * channels (depthwise) bytes, aligned to 4 bytes.
void lmkd_nn_dense(const struct lmkd_nn_dense *op, const int8_t *image, const int8_t *input,
                   int8_t *output, int8_t *scratch);
void lmkd_nn_convolution(const struct lmkd_nn_convolution *op, const int8_t *image,
                         const int8_t *input, int8_t *output, int8_t *scratch);
void lmkd_nn_depthwise(const struct lmkd_nn_depthwise *op, const int8_t *image, const int8_t *input,
                       int8_t *output, int8_t *scratch);
void lmkd_nn_max_pool(const struct lmkd_nn_pool *op, const int8_t *input, int8_t *output);
void lmkd_nn_average_pool(const struct lmkd_nn_pool *op, const int8_t *input, int8_t *output);
void lmkd_nn_add(const struct lmkd_nn_add *op, const int8_t *first, const int8_t *second,
                 int8_t *output);
void lmkd_nn_multiply(const struct lmkd_nn_multiply *op, const int8_t *first, const int8_t *second,
                      int8_t *output);
// `table` holds the output of every input code, indexed by the code as an unsigned byte.
void lmkd_nn_lookup(const int8_t *table, const int8_t *input, int8_t *output, int32_t count);
void lmkd_nn_copy(const struct lmkd_nn_copy *op, const int8_t *source, int8_t *target);
void lmkd_nn_fill(int8_t *target, int32_t value, int32_t count);

#ifdef __cplusplus
}
#endif

#endif  // LMKD_NN_H
