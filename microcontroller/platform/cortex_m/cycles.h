// SPDX-License-Identifier: Apache-2.0
// Cycle counter and stack measurement of a Cortex-M, without a vendor's headers.
#ifndef LMKD_CYCLES_H
#define LMKD_CYCLES_H

#include <stddef.h>
#include <stdint.h>

// Starts the cycle counter of the DWT unit (Cortex-M3 and up). The emulator has none: it stays 0.
static inline void lmkd_cycles_start(void) {
    *(volatile uint32_t *)0xE000EDFCu |= 1u << 24;    // DEMCR.TRCENA
    *(volatile uint32_t *)0xE0001FB0u = 0xC5ACCE55u;  // DWT_LAR: a Cortex-M7 locks the unit
    *(volatile uint32_t *)0xE0001004u = 0u;           // DWT_CYCCNT
    *(volatile uint32_t *)0xE0001000u |= 1u;          // DWT_CTRL.CYCCNTENA
}

// Returns the cycles since the start, modulo 2^32.
static inline uint32_t lmkd_cycles(void) {
    return *(volatile uint32_t *)0xE0001004u;
}

#define LMKD_STACK_PAINT 0xA5A5A5A5u
#define LMKD_STACK_WORDS 1024u

// Paints the LMKD_STACK_WORDS words below the stack pointer. An interrupt in between is counted
// as use; a task's stack must be that large.
static inline __attribute__((always_inline)) volatile uint32_t *lmkd_stack_paint(void) {
    volatile uint32_t *top;
    __asm volatile("mov %0, sp" : "=r"(top));
    for (uint32_t n = 1; n <= LMKD_STACK_WORDS; n++) {
        top[-(int32_t)n] = LMKD_STACK_PAINT;
    }
    return top;
}

// Returns the bytes below `top` that were written since.
static inline size_t lmkd_stack_used(const volatile uint32_t *top) {
    uint32_t words = LMKD_STACK_WORDS;
    while (words > 0u && top[-(int32_t)words] == LMKD_STACK_PAINT) {
        words--;
    }
    return (size_t)words * sizeof(uint32_t);
}

#endif  // LMKD_CYCLES_H
