# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
import tomllib
from types import ModuleType

import lmkd_tf

PROBE = """
import json, sys, time
start = time.perf_counter()
import lmkd_tf
seconds = time.perf_counter() - start
heavy = {"tensorflow", "keras", "tf_keras", "tflite_micro", "soundfile", "scipy", "pesq"}
print(json.dumps({"seconds": seconds, "loaded": sorted(heavy.intersection(sys.modules))}))
"""


def import_in_fresh_process(project_root):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE],
        capture_output=True,
        text=True,
        check=True,
        cwd=project_root,
    )


def test_there_are_at_most_twenty_public_names():
    assert len(lmkd_tf.__all__) <= 20


def test_public_names_are_sorted_and_unique():
    assert list(lmkd_tf.__all__) == sorted(set(lmkd_tf.__all__))


def test_every_public_name_resolves():
    for name in lmkd_tf.__all__:
        assert getattr(lmkd_tf, name) is not None


def test_all_lists_every_public_name():
    public = {
        name
        for name, value in vars(lmkd_tf).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public <= set(lmkd_tf.__all__)


def test_dir_lists_the_lazy_names():
    assert set(lmkd_tf.__all__) <= set(dir(lmkd_tf))


def test_version_is_that_of_the_package_metadata(project_root):
    metadata = tomllib.loads((project_root / "pyproject.toml").read_text("utf-8"))
    assert lmkd_tf.__version__ == metadata["project"]["version"]


def test_import_prints_nothing_and_loads_nothing_heavy(project_root):
    done = import_in_fresh_process(project_root)
    output = done.stdout.splitlines()
    assert len(output) == 1
    assert done.stderr == ""
    assert json.loads(output[0])["loaded"] == []


def test_import_takes_less_than_a_second(project_root):
    runs = [json.loads(import_in_fresh_process(project_root).stdout) for _ in range(3)]
    assert min(run["seconds"] for run in runs) < 1.0
