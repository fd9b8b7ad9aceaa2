# SPDX-License-Identifier: Apache-2.0
"""Typed settings, configuration files and safe writing of artefacts."""
