# SPDX-License-Identifier: Apache-2.0
"""Turns an exported model into C sources: its bytes, its configuration and its tables."""
