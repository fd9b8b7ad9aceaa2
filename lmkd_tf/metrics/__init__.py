# SPDX-License-Identifier: Apache-2.0
"""Scores of enhanced speech and cost of networks."""

from lmkd_tf.metrics.composite import composite_scores, segmental_snr_db
from lmkd_tf.metrics.p835 import dnsmos
from lmkd_tf.metrics.perceptual import estoi, pesq_wb, stoi

# SI-SDR and its Keras metric are in `lmkd_tf.metrics.si_sdr`: the scoring processes, which
# import this package, must not load Keras.
__all__ = ["composite_scores", "dnsmos", "estoi", "pesq_wb", "segmental_snr_db", "stoi"]
