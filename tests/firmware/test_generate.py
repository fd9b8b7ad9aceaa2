# SPDX-License-Identifier: Apache-2.0
import json
import shutil
import subprocess

import pytest

from lmkd_tf.firmware import emulator, generate
from lmkd_tf.firmware.package import SOURCES

NAMES = [
    "golden.c",
    "golden.h",
    "lmkd_config.h",
    "model_aot.c",
    "model_aot.h",
    "model_data.c",
    "model_data.h",
    "model_image.c",
    "tables.c",
    "tables.h",
]


def test_generate_writes_every_source(shipped_export, tmp_path):
    files = generate.generate(shipped_export, tmp_path / "out")
    assert sorted(file.name for file in files) == NAMES
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == NAMES


def test_changed_files_of_a_fresh_folder_are_none(shipped_export, tmp_path):
    generate.generate(shipped_export, tmp_path / "out")
    assert generate.changed_files(shipped_export, tmp_path / "out") == []


def test_changed_files_names_edited_missing_and_foreign_files(shipped_export, tmp_path):
    out_dir = tmp_path / "out"
    generate.generate(shipped_export, out_dir)
    (out_dir / "tables.c").write_text("int edited;\n")
    (out_dir / "tables.h").unlink()
    (out_dir / "foreign.h").write_text("\n")
    changed = generate.changed_files(shipped_export, out_dir)
    assert changed == ["foreign.h", "tables.c", "tables.h"]


def test_check_writes_nothing_and_fails_where_a_file_would_change(shipped_export, tmp_path, capsys):
    out_dir = tmp_path / "out"
    with pytest.raises(SystemExit):
        generate.main([f"--manifest={shipped_export}", f"--out-dir={out_dir}", "--check"])
    assert "Run ./x firmware and commit" in capsys.readouterr().err
    assert not out_dir.exists()


def test_check_passes_after_generation(shipped_export, tmp_path):
    arguments = [f"--manifest={shipped_export}", f"--out-dir={tmp_path / 'out'}"]
    generate.main(arguments)
    generate.main([*arguments, "--check"])


def test_manifest_that_contradicts_its_frame_is_refused(shipped_export, tmp_path):
    changed = json.loads(shipped_export.read_text()) | {"num_bins": 256}
    shipped_export.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"`num_bins` of a manifest.*Received 256, expected 257"):
        generate.generate(shipped_export, tmp_path / "out")


@pytest.fixture(scope="module")
def two_models(project_root, tmp_path_factory):
    """Generated files of a model, and of one whose features have another scale."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("nano_int8.tflite", "nano_int8.manifest.json"):
        shutil.copy(project_root / "lmkd_tf" / "presets" / name, folder)
    manifest = folder / "nano_int8.manifest.json"
    generate.generate(manifest, folder / "first")
    record = json.loads(manifest.read_text())
    record["features"]["scale_db"] *= 2
    manifest.write_text(json.dumps(record))
    generate.generate(manifest, folder / "second")
    return folder / "first", folder / "second"


def _compiler_errors(generated, project_root, require_tool):
    firmware = project_root / "microcontroller"
    sources = [firmware / name for name in SOURCES if name.startswith("src/")]
    sources += sorted(generated.glob("*.c"))
    includes = [f"-I{path}" for path in (generated, firmware / "include", firmware / "src")]
    command = [require_tool("gcc", "gcc"), "-std=c11", "-Werror", "-fsyntax-only", *includes]
    done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_file_of_another_model_does_not_compile(
    name, two_models, tmp_path, project_root, require_tool
):
    mixed = shutil.copytree(two_models[0], tmp_path / "mixed")
    assert _compiler_errors(mixed, project_root, require_tool) == ""
    shutil.copy(two_models[1] / name, mixed)
    errors = _compiler_errors(mixed, project_root, require_tool)
    assert "Generated files must be of one model" in errors


@pytest.mark.parametrize("name", ["small", "base"])
def test_unit_tests_in_c_pass_with_another_student(name, project_root, tmp_path, require_tool):
    require_tool("cmake", "cmake")
    manifest = project_root / "lmkd_tf" / "presets" / f"{name}_int8.manifest.json"
    generate.generate(manifest, tmp_path / "generated")
    programs = ["test_generated", "test_front_end", "test_lmkd"]
    folder = tmp_path / "build"
    emulator.build("host", folder, {"LMKD_GENERATED_DIR": tmp_path / "generated"}, programs)
    for program in programs:
        done = subprocess.run([folder / program], capture_output=True, text=True, check=False)
        assert done.stdout == f"{program}: 0 failures\n"
