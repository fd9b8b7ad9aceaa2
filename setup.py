# SPDX-License-Identifier: Apache-2.0
"""Lets tools that look for a setup.py find one; every setting is in pyproject.toml."""

from setuptools import setup

setup()
