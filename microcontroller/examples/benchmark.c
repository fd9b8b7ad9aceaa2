// SPDX-License-Identifier: Apache-2.0
// Measures an instance on a Cortex-M: memory, stack, and cycles per hop by the DWT counter.
//
// Prints to any stdout (UART, RTT, semihosting). The first argument is the number of hops. In the
// emulator cycles stay 0; count instructions there (tools/qemu_count.c).
#include <stdio.h>
#include <stdlib.h>

#include "../platform/cortex_m/cycles.h"
#include "lmkd/lmkd.h"

#define DEFAULT_NUM_HOPS 100

static LMKD_MEMORY(prv_memory);
static int16_t prv_hop[LMKD_HOP_LENGTH];

static void prv_make_noise(uint32_t *seed) {
    for (int n = 0; n < LMKD_HOP_LENGTH; n++) {
        *seed = *seed * 1664525u + 1013904223u;
        prv_hop[n] = (int16_t)((int32_t)(*seed >> 16) - 32768);
    }
}

static enum lmkd_status prv_measure_init(struct lmkd_state **state, size_t *stack_bytes) {
    volatile uint32_t *top = lmkd_stack_paint();
    const enum lmkd_status status = lmkd_init(prv_memory, sizeof prv_memory, NULL, state);
    *stack_bytes = lmkd_stack_used(top);
    return status;
}

static enum lmkd_status prv_measure_hop(struct lmkd_state *state, size_t *stack_bytes) {
    volatile uint32_t *top = lmkd_stack_paint();
    const enum lmkd_status status = lmkd_process_hop(state, prv_hop, prv_hop);
    *stack_bytes = lmkd_stack_used(top);
    return status;
}

int main(int argc, char **argv) {
    const long num_hops = argc > 1 ? strtol(argv[1], NULL, 10) : DEFAULT_NUM_HOPS;
    struct lmkd_state *state;
    size_t init_stack_bytes = 0, hop_stack_bytes = 0;
    uint32_t seed = 1u, worst_cycles = 0u;
    uint64_t total_cycles = 0u;
    enum lmkd_status status = prv_measure_init(&state, &init_stack_bytes);
    if (status == LMKD_OK) {
        status = prv_measure_hop(state, &hop_stack_bytes);
    }
    lmkd_cycles_start();
    for (long n = 0; status == LMKD_OK && n < num_hops; n++) {
        prv_make_noise(&seed);
        const uint32_t start = lmkd_cycles();
        status = lmkd_process_hop(state, prv_hop, prv_hop);
        const uint32_t cycles = lmkd_cycles() - start;
        worst_cycles = cycles > worst_cycles ? cycles : worst_cycles;
        total_cycles += cycles;
    }
    printf("status %d\n", (int)status);
    printf("memory_bytes %u\n", (unsigned)lmkd_memory_size());
    printf("init_stack_bytes %u\n", (unsigned)init_stack_bytes);
    printf("hop_stack_bytes %u\n", (unsigned)hop_stack_bytes);
    printf("mean_cycles %u\n", num_hops > 0 ? (unsigned)(total_cycles / (uint64_t)num_hops) : 0u);
    printf("worst_cycles %u\n", (unsigned)worst_cycles);
    return status != LMKD_OK;
}
