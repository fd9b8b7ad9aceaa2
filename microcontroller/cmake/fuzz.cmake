# SPDX-License-Identifier: Apache-2.0
# Fuzzers of clang: calls of the public functions with random audio, and corrupted images.
foreach(fuzzer calls image)
    lmkd_add_program(fuzz_${fuzzer} lmkd tests/fuzz_${fuzzer}.c)
    target_compile_options(fuzz_${fuzzer} PRIVATE -fsanitize=fuzzer)
    target_link_options(fuzz_${fuzzer} PRIVATE -fsanitize=fuzzer)
    add_test(NAME fuzz_${fuzzer} COMMAND fuzz_${fuzzer} -runs=2000 -seed=1 -max_len=4096)
endforeach()
target_compile_options(lmkd PRIVATE -fsanitize=fuzzer-no-link)
