# SPDX-License-Identifier: Apache-2.0
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.road import FinishedRoad, finished_road


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> FinishedRoad:
    return finished_road(tmp_path_factory)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 200 KB; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not (mount and umount):
        pytest.skip("needs mount and umount")
    command = [mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run([umount, str(folder)], check=True)
