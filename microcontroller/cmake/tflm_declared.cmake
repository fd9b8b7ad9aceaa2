# SPDX-License-Identifier: Apache-2.0
# Without TFLite Micro its back-end is still compiled, against declarations of what it uses and
# for both namespaces that TFLite Micro has had.
include(CheckLanguage)
check_language(CXX)
if(CMAKE_CROSSCOMPILING OR NOT CMAKE_CXX_COMPILER)
    return()
endif()
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)
foreach(namespace tflite micro)
    add_library(backend_tflm_${namespace} OBJECT src/backend_tflm.cc)
    target_include_directories(backend_tflm_${namespace} PRIVATE include src tests/tflm_declarations
                                                                 ${LMKD_GENERATED_DIR})
    target_compile_options(backend_tflm_${namespace} PRIVATE ${LMKD_WARNINGS} -fno-rtti
                                                             -fno-exceptions)
    target_compile_definitions(backend_tflm_${namespace} PRIVATE LMKD_RUNTIME_TFLM)
endforeach()
target_compile_definitions(backend_tflm_micro PRIVATE LMKD_DECLARE_MICRO_NAMESPACE)
