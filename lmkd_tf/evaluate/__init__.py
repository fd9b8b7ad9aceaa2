# SPDX-License-Identifier: Apache-2.0
"""Enhancing files, scoring systems and writing reports."""
