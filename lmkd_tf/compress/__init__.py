# SPDX-License-Identifier: Apache-2.0
"""Pruning and quantization-aware training of the student."""
