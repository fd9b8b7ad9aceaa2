# SPDX-License-Identifier: Apache-2.0
# Toolchain of Debian's arm-none-eabi-gcc for a core that QEMU emulates; each preset names one
# in LMKD_CORE: m3, m4f, m7, m33 or m55.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES LMKD_CORE)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_CXX_COMPILER arm-none-eabi-g++)

# Options of the core, its emulated board, and where that has code and data.
set(LMKD_CORE_m3 "-mcpu=cortex-m3 -mfloat-abi=soft")
set(LMKD_CORE_m4f "-mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16")
set(LMKD_CORE_m7 "-mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-d16")
set(LMKD_CORE_m33 "-mcpu=cortex-m33 -mfloat-abi=hard")
set(LMKD_CORE_m55 "-mcpu=cortex-m55 -mfloat-abi=hard")
set(LMKD_BOARD_m3 mps2-an385 0x00000000 0x20000000)
set(LMKD_BOARD_m4f mps2-an386 0x00000000 0x20000000)
set(LMKD_BOARD_m7 mps2-an500 0x00000000 0x20000000)
set(LMKD_BOARD_m33 mps2-an505 0x10000000 0x38000000)
set(LMKD_BOARD_m55 mps3-an547 0x00000000 0x20000000)
if(NOT DEFINED LMKD_CORE_${LMKD_CORE})
    message(FATAL_ERROR "LMKD_CORE must be m3, m4f, m7, m33 or m55. Received '${LMKD_CORE}'. "
                        "Use a preset of CMakePresets.json.")
endif()
list(GET LMKD_BOARD_${LMKD_CORE} 0 LMKD_MACHINE)
list(GET LMKD_BOARD_${LMKD_CORE} 1 LMKD_CODE)
list(GET LMKD_BOARD_${LMKD_CORE} 2 LMKD_DATA)

set(CMAKE_C_FLAGS_INIT "${LMKD_CORE_${LMKD_CORE}} -mthumb")
set(CMAKE_CXX_FLAGS_INIT "${LMKD_CORE_${LMKD_CORE}} -mthumb -fno-rtti -fno-exceptions")
set(CMAKE_C_FLAGS_RELEASE_INIT "-O3")
set(CMAKE_CXX_FLAGS_RELEASE_INIT "-O3")
set(LMKD_QEMU_DIR ${CMAKE_CURRENT_LIST_DIR}/../platform/qemu)
set(CMAKE_EXE_LINKER_FLAGS_INIT
    "-nostartfiles --specs=nano.specs --specs=rdimon.specs -Wl,--gc-sections -T \
${LMKD_QEMU_DIR}/qemu.ld -Wl,--defsym=LMKD_CODE=${LMKD_CODE} -Wl,--defsym=LMKD_DATA=${LMKD_DATA}")
set(CMAKE_CROSSCOMPILING_EMULATOR
    qemu-system-arm -M ${LMKD_MACHINE} -nographic -monitor none -serial none
    -semihosting-config enable=on,target=native -kernel)
