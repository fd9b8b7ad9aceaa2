// SPDX-License-Identifier: Apache-2.0
// Start-up of the emulated boards: vectors, FPU, memory, arguments and exit by semihosting.
// A product brings its own start-up; semihosting without a debugger is a fault on real hardware.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern uint32_t lmkd_stack_top[];
extern uint32_t lmkd_data_load[], lmkd_data_start[], lmkd_data_end[];
extern uint32_t lmkd_bss_start[], lmkd_bss_end[];

int main(int argc, char **argv);
void initialise_monitor_handles(void);
void __libc_init_array(void);
void Reset_Handler(void);
void _init(void);
void _fini(void);

// Needed by C++ objects with static storage; there is no shared library here.
void *__dso_handle;

enum { SYS_GET_CMDLINE = 0x15, SYS_EXIT = 0x18, ADP_STOPPED_RUN_TIME_ERROR = 0x20023 };

#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define MAX_ARGUMENTS 8
#define COMMAND_LINE_BYTES 1024

static uint32_t prv_semihosting(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void prv_fault(void) {
    prv_semihosting(SYS_EXIT, (const void *)(uintptr_t)ADP_STOPPED_RUN_TIME_ERROR);
    for (;;) {
    }
}

void _init(void) {
}

void _fini(void) {
}

// Splits the command line of the emulator at its spaces.
static int prv_arguments(char *line, char **arguments) {
    struct {
        char *buffer;
        uint32_t size;
    } block = {line, COMMAND_LINE_BYTES};
    int count = 0;
    if (prv_semihosting(SYS_GET_CMDLINE, &block) != 0u) {
        return count;
    }
    for (char *word = strtok(line, " "); word != NULL && count < MAX_ARGUMENTS;
         word = strtok(NULL, " ")) {
        arguments[count++] = word;
    }
    return count;
}

void Reset_Handler(void) {
    static char line[COMMAND_LINE_BYTES];
    static char *arguments[MAX_ARGUMENTS + 1];
    CPACR |= 0xFu << 20;  // FPU and Helium, before anything uses them
    __asm volatile("dsb\n isb" ::: "memory");
    memcpy(lmkd_data_start, lmkd_data_load,
           (size_t)((char *)lmkd_data_end - (char *)lmkd_data_start));
    memset(lmkd_bss_start, 0, (size_t)((char *)lmkd_bss_end - (char *)lmkd_bss_start));
    initialise_monitor_handles();
    __libc_init_array();
    const int count = prv_arguments(line, arguments);
    exit(main(count, arguments));
}

// Reset, then the fourteen exceptions of the core.
__attribute__((section(".vectors"), used)) static const void *const prv_vectors[16] = {
    lmkd_stack_top,          (const void *)Reset_Handler, (const void *)prv_fault,
    (const void *)prv_fault, (const void *)prv_fault,     (const void *)prv_fault,
    (const void *)prv_fault, (const void *)prv_fault,     (const void *)prv_fault,
    (const void *)prv_fault, (const void *)prv_fault,     (const void *)prv_fault,
    (const void *)prv_fault, (const void *)prv_fault,     (const void *)prv_fault,
    (const void *)prv_fault,
};
