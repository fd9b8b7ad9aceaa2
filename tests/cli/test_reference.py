# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.cli.reference import (
    broken_markdown_links,
    broken_page_links,
    build_reference,
    markdown_files,
)


def test_links_of_the_markdown_files_lead_somewhere(project_root):
    files = markdown_files(project_root)
    assert {"README.md", "formula.md"} <= {path.name for path in files}
    assert broken_markdown_links(files) == []


def test_reference_has_the_arguments_of_a_function_and_no_broken_link(tmp_path):
    build_reference(tmp_path, ["lmkd_tf.dsp.pcm", "lmkd_tf.dsp.level"])
    page = (tmp_path / "lmkd_tf" / "dsp" / "pcm.html").read_text()
    assert 'id="float_to_int16"' in page
    assert "Samples in [-1, 1], float, any shape." in page
    assert broken_page_links(tmp_path) == []


def test_module_that_cannot_be_imported_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match=r"must be importable.*no_such_module"):
        build_reference(tmp_path, ["lmkd_tf.no_such_module"])


def test_broken_links_of_pages_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="#top"></a><a href="#gone"></a><a href="b.html#x"></a>'
        '<a href="none.html"></a><a href="https://example.org/none"></a>'
    )
    (tmp_path / "b.html").write_text('<p id="y"></p><a href="a.html#top"></a>')
    assert broken_page_links(tmp_path) == [
        "a.html: #gone", "a.html: b.html#x", "a.html: none.html"]  # fmt: skip


def test_broken_links_of_markdown_are_found(tmp_path):
    (tmp_path / "b.md").write_text("# Title, and `more`\n")
    path = tmp_path / "a.md"
    path.write_text(
        "[b](b.md) [b](b.md#title-and-more) [c](c.md) [b](b.md#gone) ![p](p.png) `[d](d.md)` "
        "[e](https://example.org)\n```\n[f](f.md)\n```\n"
    )
    assert broken_markdown_links([path]) == ["a.md: c.md", "a.md: b.md#gone", "a.md: p.png"]
