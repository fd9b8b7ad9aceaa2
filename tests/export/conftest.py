# SPDX-License-Identifier: Apache-2.0
import shutil
from pathlib import Path

import pytest

from lmkd_tf.export.manifest import manifest_path
from tests.workflow.road import FinishedRoad, finished_road


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> FinishedRoad:
    return finished_road(tmp_path_factory)


@pytest.fixture
def exported(road, tmp_path) -> Path:
    """A copy of the exported int8 student with its manifest, to be damaged."""
    for path in (road.int8, manifest_path(road.int8)):
        shutil.copy(path, tmp_path)
    return tmp_path / road.int8.name
