# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every test may use, and the environment that has to be set before TensorFlow."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its sums depend on the number of threads
os.environ.setdefault(
    "CUDA_VISIBLE_DEVICES", "-1"
)  # the tests need no GPU and must not wait for one
os.environ["MPLBACKEND"] = "Agg"

PROJECT_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Folder that holds pyproject.toml."""
    return PROJECT_ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared recordings beside the checkout; a user does not have it."""
    folder = PROJECT_ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the shared recordings, absent here")
    return folder


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str, str], str]:
    """Function `(tool, debian_package) -> path`; a missing tool is a skip, in CI a failure."""

    def find(tool: str, debian_package: str) -> str:
        path = shutil.which(tool)
        if path is None:
            reason = f"{tool} is missing (Debian package {debian_package})"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find


@pytest.fixture
def open_browser(require_tool, tmp_path) -> Iterator[Callable[..., Any]]:
    """Function that opens a browser, with a wav file for the microphone."""
    from tests.demo.browser import Browser

    browsers: list[Browser] = []

    def start(microphone: Path | None = None) -> Browser:
        chromium = require_tool("chromium", "chromium")
        profile = tmp_path / f"profile{len(browsers)}"
        browsers.append(Browser(chromium, profile, microphone))
        return browsers[-1]

    yield start
    for browser in browsers:
        browser.close()


@pytest.fixture
def seeded() -> int:
    """Seeds Python, numpy and Keras; returns the seed."""
    import keras

    keras.utils.set_random_seed(1234)
    return 1234
