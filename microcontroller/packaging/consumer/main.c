// SPDX-License-Identifier: Apache-2.0
#include "lmkd/lmkd.h"

static LMKD_MEMORY(memory);
static int16_t hop[LMKD_HOP_LENGTH];

int main(void) {
    struct lmkd_state *state;
    enum lmkd_status status = lmkd_init(memory, sizeof memory, NULL, &state);
    if (status == LMKD_OK) {
        status = lmkd_process_hop(state, hop, hop);
    }
    return status != LMKD_OK;
}
