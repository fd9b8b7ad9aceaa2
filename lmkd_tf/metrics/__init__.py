# SPDX-License-Identifier: Apache-2.0
"""Scores of enhanced speech and cost of networks."""
