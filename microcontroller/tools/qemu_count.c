// SPDX-License-Identifier: Apache-2.0
// Plugin of QEMU that counts executed instructions per function, exactly and repeatably.
//
//     gcc -shared -fPIC -O2 -o qemu_count.so qemu_count.c
//     qemu-system-arm ... -plugin ./qemu_count.so,out=counts.txt
//
// Writes one line `COUNT FUNCTION` per function. Debian's QEMU ships no header for plugins, so
// the few functions used are declared here, after version 1 of the interface (QEMU 6 to 8).
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRV_EXPORT __attribute__((visibility("default")))
#define PRV_MAX_FUNCTIONS 4096
#define PRV_INLINE_ADD 0

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*prv_translation_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*prv_exit_callback)(qemu_plugin_id_t, void *);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, prv_translation_callback callback);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, prv_exit_callback callback, void *context);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *instruction);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *instruction, int operation,
                                                void *counter, uint64_t step);

PRV_EXPORT int qemu_plugin_version = 1;
PRV_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv);

static struct {
    char *name;
    uint64_t count;
} prv_functions[PRV_MAX_FUNCTIONS];
static size_t prv_num_functions;
static const char *prv_output = "counts.txt";

static uint64_t *prv_counter(const char *symbol) {
    const char *name = symbol != NULL ? symbol : "(unknown)";
    size_t k = 0;
    while (k < prv_num_functions && strcmp(prv_functions[k].name, name) != 0) {
        k++;
    }
    if (k == prv_num_functions && k < PRV_MAX_FUNCTIONS - 1) {
        prv_functions[k].name = strdup(name);
        prv_num_functions++;
    }
    return &prv_functions[k].count;
}

static void prv_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    const size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t k = 0; k < count; k++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, k);
        uint64_t *counter = prv_counter(qemu_plugin_insn_symbol(instruction));
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, PRV_INLINE_ADD, counter, 1);
    }
}

static void prv_finish(qemu_plugin_id_t id, void *context) {
    (void)id;
    (void)context;
    FILE *file = fopen(prv_output, "w");
    if (file == NULL) {
        fprintf(stderr, "qemu_count: cannot write %s\n", prv_output);
        return;
    }
    for (size_t k = 0; k < prv_num_functions; k++) {
        fprintf(file, "%llu %s\n", (unsigned long long)prv_functions[k].count,
                prv_functions[k].name);
    }
    fclose(file);
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info;
    for (int k = 0; k < argc; k++) {
        if (strncmp(argv[k], "out=", 4) == 0) {
            prv_output = strdup(argv[k] + 4);
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, prv_translate);
    qemu_plugin_register_atexit_cb(id, prv_finish, NULL);
    return 0;
}
