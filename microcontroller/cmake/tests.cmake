# SPDX-License-Identifier: Apache-2.0
# Examples and tests; the same programs run on this machine and in the emulator.
function(lmkd_add_program name)
    add_executable(${name} ${ARGN})
    target_compile_options(${name} PRIVATE ${LMKD_WARNINGS} -ffp-contract=off)
    target_include_directories(${name} PRIVATE src tests)
    target_link_libraries(${name} PRIVATE lmkd)
    if(CMAKE_CROSSCOMPILING)
        target_sources(${name} PRIVATE platform/qemu/startup.c)
        set_target_properties(${name} PROPERTIES SUFFIX .elf)
    endif()
endfunction()

lmkd_add_program(wav_filter examples/wav_filter.c)
