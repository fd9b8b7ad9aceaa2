# SPDX-License-Identifier: Apache-2.0
"""The project's own files, as the contract tests read them."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

MADE_BY_TOOLS = {
    ".git",
    ".venv",
    ".venv-io",
    "runs",
    "build",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
}


@pytest.fixture(scope="session")
def project_files(project_root: Path) -> list[Path]:
    """Every file of the project that git does not ignore."""
    git = shutil.which("git")
    if git and (project_root / ".git").exists():
        command = [git, "-C", str(project_root), "ls-files", "-co", "--exclude-standard", "-z"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = [project_root / name for name in names.split("\0") if name]
    else:
        found = [
            path
            for path in project_root.rglob("*")
            if not MADE_BY_TOOLS.intersection(path.relative_to(project_root).parts)
        ]
    return sorted(path for path in found if path.is_file())


@pytest.fixture(scope="session")
def library_trees(project_root: Path) -> dict[str, ast.Module]:
    """Syntax tree of every source of the package, by path from the project root."""
    return {
        str(path.relative_to(project_root)): ast.parse(path.read_text("utf-8"))
        for path in sorted((project_root / "lmkd_tf").rglob("*.py"))
    }
