# SPDX-License-Identifier: Apache-2.0
"""Latent mixup knowledge distillation (a reconstruction) and its losses."""
