# SPDX-License-Identifier: Apache-2.0
"""Signal processing with `keras.ops`: STFT, bands, features, masks, levels."""
