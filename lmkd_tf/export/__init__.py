# SPDX-License-Identifier: Apache-2.0
"""From a compressed student to a streaming .tflite and its manifest."""
