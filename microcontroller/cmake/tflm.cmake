# SPDX-License-Identifier: Apache-2.0
# The library with TFLite Micro as its runtime, linked to a build of TFLite Micro of your own:
# TFLM_INCLUDE_DIRS (its root and those of its dependencies), TFLM_LIBRARY, TFLM_DEFINITIONS.
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)

lmkd_add_library(lmkd_tflm src/backend_tflm.cc ${LMKD_GENERATED_DIR}/model_data.c)
target_compile_definitions(lmkd_tflm PUBLIC LMKD_RUNTIME_TFLM PRIVATE ${TFLM_DEFINITIONS})
target_include_directories(lmkd_tflm SYSTEM PRIVATE ${TFLM_INCLUDE_DIRS})
target_link_libraries(lmkd_tflm PUBLIC ${TFLM_LIBRARY})
