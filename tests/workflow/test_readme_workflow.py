# SPDX-License-Identifier: Apache-2.0
import os
import re
import subprocess
import sys
from pathlib import Path


def _snippet(readme: Path) -> str:
    """First Python block of the section "From Keras"."""
    section = readme.read_text("utf-8").split("## From Keras", 1)[1]
    found = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert found, "the section From Keras has no Python block"
    return found.group(1)


def test_first_example_of_the_readme_runs_as_it_stands(project_root, tmp_path):
    (tmp_path / "example.py").write_text(_snippet(project_root / "README.md"))
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project_root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "student.keras").stat().st_size > 10000
