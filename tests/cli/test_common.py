# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from lmkd_tf.cli.common import config_path


def test_name_of_a_configuration_is_found_beside_a_folder_of_that_name(
    tmp_path, monkeypatch, project_root
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert config_path("base") == project_root / "configs" / "base.py"


def test_file_of_that_name_is_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").write_text("")
    assert config_path("base") == Path("base")
    assert config_path("absent.py") == Path("absent.py")
