# SPDX-License-Identifier: Apache-2.0
"""Builds the API reference from the docstrings and checks the links (for maintainers).

Usage:
  ./x docs [--output=build/docs]

pdoc writes one page per module. Then every link of these pages and of the markdown files must
lead somewhere: to a page and its anchor, or to a file and its heading. Links to other sites are
not followed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from absl import flags

from lmkd_tf.cli.common import run_program

ROOT = Path(__file__).resolve().parents[2]
# The programs document themselves by --help.
MODULES = ("lmkd_tf", "!lmkd_tf.cli")
_MARKDOWN_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def main(arguments: Sequence[str]) -> int:
    """Runs the program; returns 1 if a link leads nowhere."""
    if len(arguments) > 1:
        raise ValueError(
            f"This program takes flags only. Received {list(arguments[1:])}. Use --output=FOLDER."
        )
    output = Path(flags.FLAGS.output)
    build_reference(output, MODULES)
    broken = broken_page_links(output) + broken_markdown_links(markdown_files(ROOT))
    for line in broken:
        sys.stderr.write(f"{line}\n")
    pages = len(list(output.rglob("*.html")))
    sys.stdout.write(f"{output / 'index.html'}: {pages} pages, {len(broken)} broken links\n")
    return 1 if broken else 0


def build_reference(folder: Path, modules: Sequence[str]) -> None:
    """Writes the pages of modules, in a process of its own that imports them.

    Args:
        folder: Folder to write to.
        modules: Names as pdoc takes them; `!` leaves one out.

    Raises:
        RuntimeError: If a module cannot be imported.
    """
    # What a module imports when it is first used has to be there for pdoc to see it.
    names = [name for name in modules if not name.startswith("!")]
    imports = "".join(f"from {name} import *; " for name in names)
    program = f"{imports}from pdoc.__main__ import cli; cli()"
    command = [sys.executable, "-c", program, "--docformat=google", "--no-show-source"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [*command, f"--output-directory={folder}", *modules],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    problems = [line for line in done.stderr.splitlines() if line.startswith("Warn:")]
    if done.returncode or problems:
        raise RuntimeError(
            "Every module must be importable for its reference. "
            f"Received: {'; '.join(problems) or ' '.join(done.stderr.split())[-2000:]} "
            'Run: pip install "lmkd-tf[all]".'
        )


def broken_page_links(folder: Path) -> list[str]:
    """Finds links of HTML pages that lead nowhere.

    Args:
        folder: Folder of the pages.

    Returns:
        One line per broken link: page and address.
    """
    pages = {path.resolve(): _Page(path.read_text("utf-8")) for path in folder.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            other, anchor = pages.get(target), unquote(parts.fragment)
            if not target.exists() or (anchor and other and anchor not in other.anchors):
                broken.append(f"{path.relative_to(folder.resolve())}: {address}")
    return broken


def markdown_files(root: Path) -> list[Path]:
    """Returns the markdown files of a checkout that people read."""
    return [
        *sorted(root.glob("*.md")),
        *sorted((root / "docs").glob("*.md")),
        *sorted((root / "microcontroller").glob("*.md")),
    ]


def broken_markdown_links(paths: Sequence[Path]) -> list[str]:
    """Finds links of markdown files that lead nowhere.

    Args:
        paths: Files.

    Returns:
        One line per broken link: file and address.
    """
    broken = []
    for path in paths:
        text = _CODE.sub("", path.read_text("utf-8"))
        for match in _MARKDOWN_LINK.finditer(text):
            address = match[1] or match[2]
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            is_missing = not target.exists()
            if not is_missing and parts.fragment and target.suffix == ".md":
                is_missing = parts.fragment not in _heading_anchors(target.read_text("utf-8"))
            if is_missing:
                broken.append(f"{path.name}: {address}")
    return broken


def _heading_anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub gives to headings."""
    titles = [re.sub(r"[^\w\- ]", "", match[1].lower()) for match in _HEADING.finditer(text)]
    return {title.strip().replace(" ", "-") for title in titles}


class _Page(HTMLParser):
    """Collects the links and anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Looks at one tag."""
        values = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := values.get(key))}
        address = values.get("href") or values.get("src")
        if address:
            self.links.append(address)


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("output", "build/docs", "Folder for the pages.")
    run_program(main, __doc__ or "", ("output",), needs_tensorflow=False)


if __name__ == "__main__":
    run()
