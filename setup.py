# SPDX-License-Identifier: Apache-2.0
"""Installs the configurations with the package; every setting is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Puts configs/ into the package, where a program finds them outside a checkout."""

    def run(self):
        """Builds the package."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "lmkd_tf", "configs")
            shutil.copytree(
                "configs", folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )


setup(cmdclass={"build_py": BuildWithConfigs})
