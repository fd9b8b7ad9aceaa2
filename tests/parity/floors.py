# SPDX-License-Identifier: Apache-2.0
"""Every floor on the agreement of two implementations: signal over difference, in dB.

The masks are compared, on one stream of noisy speech from a fresh state. What was measured
stands behind each floor. Integer runtimes are not here: they agree bit for bit.
"""

# Fake-quantized step graph, frame by frame, to the fake-quantized whole utterance: identical
# on most signals; a sum in another order may move a value across one rounding step.
QAT_STEP_FLOOR_DB = 60.0
# int8 in TFLite Micro to the fake-quantized graph: 52 dB.
INT8_FLOOR_DB = 40.0
# int16 activations in TFLite Micro to the float network: 58 dB; 43 dB on recordings, which leave
# the ranges that were calibrated on the embedded corpus.
INT16_FLOOR_DB = 38.0
# Float network on blocks, as the Keras back-end runs it, to the whole utterance: 178 dB.
KERAS_BLOCKS_FLOOR_DB = 120.0
# Enhanced audio of the int8 student in TFLite Micro to that of the float student: 42 dB.
INT8_AUDIO_FLOOR_DB = 30.0
# Firmware in C to Python on the same signal, both with the int8 student: 138 dB (median of 96
# recordings). Where the float transforms differ in their last bit and one feature lies on the
# border of two codes, the networks go on from codes one step apart: 38 dB in the worst of 96.
FIRMWARE_FLOAT_FLOOR_DB = 110.0
FIRMWARE_AUDIO_FLOOR_DB = 30.0
