# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

# The registers as memory of this process, at the addresses that they have on a board.
PROGRAM = """
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include "cycles.h"
static uint32_t at(uintptr_t address) {
    return *(const uint32_t *)address;
}
int main(void) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    void *units = (void *)(uintptr_t)0xE0000000u;
    if (mmap(units, 0x10000, PROT_READ | PROT_WRITE, flags, -1, 0) != units) {
        return 1;
    }
    lmkd_cycles_start();
    printf("%x %x %x", at(0xE000EDFC), at(0xE0001FB0), at(0xE0001000));
    return lmkd_cycles() != 0;
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="maps memory at an address of its choice")
def test_cycle_counter_is_unlocked_and_started(project_root, tmp_path, require_tool):
    (tmp_path / "main.c").write_text(PROGRAM)
    folder = project_root / "microcontroller" / "platform" / "cortex_m"
    command = [require_tool("gcc", "gcc"), "-std=c11", "-O1", "-w", f"-I{folder}"]
    subprocess.run([*command, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    trace_enable, key, control = (int(word, 16) for word in done.stdout.split())
    assert trace_enable == 1 << 24
    assert key == 0xC5ACCE55  # what a Cortex-M7 asks for before the others may be written
    assert control == 1
