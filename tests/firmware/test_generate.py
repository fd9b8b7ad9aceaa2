# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.firmware import generate

NAMES = ["lmkd_config.h", "model_data.c", "model_data.h", "tables.c", "tables.h"]


def test_generate_writes_every_source(manifest, write_export, tmp_path):
    files = generate.generate(write_export(manifest), tmp_path / "out")
    assert sorted(file.name for file in files) == NAMES
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == NAMES


def test_changed_files_of_a_fresh_folder_are_none(manifest, write_export, tmp_path):
    path = write_export(manifest)
    generate.generate(path, tmp_path / "out")
    assert generate.changed_files(path, tmp_path / "out") == []


def test_changed_files_names_edited_missing_and_foreign_files(manifest, write_export, tmp_path):
    path = write_export(manifest)
    out_dir = tmp_path / "out"
    generate.generate(path, out_dir)
    (out_dir / "tables.c").write_text("int edited;\n")
    (out_dir / "tables.h").unlink()
    (out_dir / "foreign.h").write_text("\n")
    assert generate.changed_files(path, out_dir) == ["foreign.h", "tables.c", "tables.h"]


def test_check_writes_nothing_and_fails_where_a_file_would_change(
    manifest, write_export, tmp_path, capsys
):
    path = write_export(manifest)
    with pytest.raises(SystemExit):
        generate.main([f"--manifest={path}", f"--out-dir={tmp_path / 'out'}", "--check"])
    assert "Run ./x firmware and commit" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_check_passes_after_generation(manifest, write_export, tmp_path):
    arguments = [f"--manifest={write_export(manifest)}", f"--out-dir={tmp_path / 'out'}"]
    generate.main(arguments)
    generate.main([*arguments, "--check"])


def test_manifest_that_contradicts_its_frame_is_refused(manifest, write_export, tmp_path):
    manifest["num_bins"] = 256
    path = write_export(manifest)
    with pytest.raises(ValueError, match=r"`num_bins` of a manifest.*Received 256, expected 257"):
        generate.generate(path, tmp_path / "out")
