// SPDX-License-Identifier: Apache-2.0
// Fixed-point arithmetic of the kernels: one element, or four with Helium.
#ifndef LMKD_NN_ARITHMETIC_H
#define LMKD_NN_ARITHMETIC_H

#include <stdint.h>
#include <string.h>

#if defined(LMKD_NN_PORTABLE)
#elif defined(__ARM_FEATURE_MVE)
#define LMKD_NN_HELIUM 1
#include <arm_mve.h>
#elif defined(__ARM_FEATURE_DSP) && defined(__OPTIMIZE__)  // at -O0 too few registers are free
#define LMKD_NN_DSP 1
#endif

// A scalar multiply-and-round is one instruction on both kinds of core.
#if defined(LMKD_NN_HELIUM) || defined(LMKD_NN_DSP)
#define LMKD_NN_HAS_SMMULR 1
#endif

static inline int32_t prv_clamp(int32_t value, int32_t lowest, int32_t highest) {
    const int32_t raised = value < lowest ? lowest : value;
    return raised > highest ? highest : raised;
}

static inline int8_t prv_saturate(int32_t value) {
#if defined(LMKD_NN_HAS_SMMULR)
    int32_t result;
    __asm("ssat %0, #8, %1" : "=r"(result) : "r"(value));
    return (int8_t)result;
#else
    return (int8_t)prv_clamp(value, INT8_MIN, INT8_MAX);
#endif
}

// value * 2^left_shift * multiplier / 2^31, rounded half up. The generator has checked that
// |value| * 2^(left_shift + 1) fits in 32 bits.
static inline int32_t prv_multiply_high(int32_t value, int32_t multiplier, int32_t left_shift) {
#if defined(LMKD_NN_HAS_SMMULR)
    const int32_t doubled = (int32_t)((uint32_t)value << (left_shift + 1));
    int32_t result;
    __asm("smmulr %0, %1, %2" : "=r"(result) : "r"(doubled), "r"(multiplier));
    return result;
#else
    const int64_t shifted = (int64_t)value * ((int64_t)1 << left_shift);
    return (int32_t)((shifted * multiplier + ((int64_t)1 << 30)) >> 31);
#endif
}

// sum + (slope * code >> 8), the bits below dropped.
static inline int32_t prv_add_slope(int32_t sum, int32_t slope, int32_t code) {
#if defined(LMKD_NN_HAS_SMMULR)
    const int32_t raised = (int32_t)((uint32_t)code << 24);
    int32_t result;
    __asm("smmla %0, %1, %2, %3" : "=r"(result) : "r"(slope), "r"(raised), "r"(sum));
    return result;
#else
    return sum + (int32_t)(((int64_t)slope * code) >> 8);
#endif
}

// value / 2^shift, rounded half away from zero.
static inline int32_t prv_divide(int32_t value, int32_t shift) {
    const int32_t one = (int32_t)(1u << (uint32_t)shift);
    const int32_t toward_zero = shift > 0 ? value >> 31 : 0;
    return (value + toward_zero + (int32_t)((uint32_t)one >> 1)) >> shift;
}

#if defined(LMKD_NN_HELIUM)
// prv_multiply_high of four values; the shifts are those of each lane.
static inline int32x4_t prv_multiply_high_x4(int32x4_t value, int32x4_t multiplier,
                                             int32x4_t left_shift) {
    return vqrdmulhq_s32(vshlq_s32(value, left_shift), multiplier);
}

static inline int32x4_t prv_divide_x4(int32x4_t value, int32x4_t shift) {
    const int32x4_t to_the_right = vnegq_s32(shift);
    const int32x4_t toward_zero = vshrq_n_s32(vandq_s32(value, to_the_right), 31);
    return vrshlq_s32(vaddq_s32(value, toward_zero), to_the_right);
}

static inline int32x4_t prv_clamp_x4(int32x4_t value, int32_t lowest, int32_t highest) {
    return vminq_s32(vmaxq_s32(value, vdupq_n_s32(lowest)), vdupq_n_s32(highest));
}
#endif

#if defined(LMKD_NN_DSP)
static inline int32_t prv_smlad(uint32_t first, uint32_t second, int32_t sum) {
    int32_t result;
    __asm("smlad %0, %1, %2, %3" : "=r"(result) : "r"(first), "r"(second), "r"(sum));
    return result;
}

// The products of the lower halves, and of the upper halves, of two words.
static inline int32_t prv_smlabb(uint32_t first, uint32_t second, int32_t sum) {
    int32_t result;
    __asm("smlabb %0, %1, %2, %3" : "=r"(result) : "r"(first), "r"(second), "r"(sum));
    return result;
}

static inline int32_t prv_smlatt(uint32_t first, uint32_t second, int32_t sum) {
    int32_t result;
    __asm("smlatt %0, %1, %2, %3" : "=r"(result) : "r"(first), "r"(second), "r"(sum));
    return result;
}

// Bytes 0 and 2 of a word as two 16-bit numbers.
static inline uint32_t prv_even_bytes(uint32_t word) {
    uint32_t result;
    __asm("sxtb16 %0, %1" : "=r"(result) : "r"(word));
    return result;
}

// Bytes 1 and 3 of a word as two 16-bit numbers.
static inline uint32_t prv_odd_bytes(uint32_t word) {
    uint32_t result;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(word));
    return result;
}
#endif

#endif  // LMKD_NN_ARITHMETIC_H
