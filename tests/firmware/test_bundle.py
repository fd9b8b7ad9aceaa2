# SPDX-License-Identifier: Apache-2.0
import errno
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from lmkd_tf.config.files import read_json
from lmkd_tf.config.schema import StftConfig
from lmkd_tf.export.calibration import Calibration
from lmkd_tf.export.interpreter import StepModel
from lmkd_tf.export.tflite import to_tflite
from lmkd_tf.firmware import bundle, generate
from lmkd_tf.firmware.bundle import digest_of, read_folder, write_bundle, zip_bytes
from lmkd_tf.firmware.bundle_check import not_checked, verify_bundle
from lmkd_tf.firmware.cost_sheet import FRONT_END_INSTRUCTIONS, INSTRUCTIONS_PER_MAC
from lmkd_tf.models.builder import build_core
from lmkd_tf.models.presets import preset_files

# Reads 16-bit samples hop by hop and writes the enhanced ones: what a product does.
FILTER = """
#include <stdio.h>
#include "lmkd/lmkd.h"
#include "lmkd_config.h"
static LMKD_MEMORY(memory);
int main(void) {
    struct lmkd_state *state;
    int16_t in[LMKD_HOP_LENGTH], out[LMKD_HOP_LENGTH];
    if (lmkd_init(memory, sizeof memory, NULL, &state) != LMKD_OK) return 1;
    while (fread(in, sizeof in, 1, stdin) == 1) {
        if (lmkd_process_hop(state, in, out) != LMKD_OK) return 2;
        fwrite(out, sizeof out, 1, stdout);
    }
    return 0;
}
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A bundle of the shipped student, its zip beside it."""
    folder = tmp_path_factory.mktemp("bundle") / "nano"
    write_bundle(preset_files("nano")["tflite"], folder)
    return folder


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy of it, to be tampered with."""
    shutil.copy(made.with_name("nano.zip"), tmp_path)
    return Path(shutil.copytree(made, tmp_path / "nano"))


def _golden(folder, name):
    entry = read_json(folder / "golden" / "vectors.json")[name]
    content = (folder / "golden" / entry["file"]).read_bytes()
    return np.frombuffer(content, entry["dtype"]).reshape(entry["shape"]), entry


def _forge(folder, name, content):
    """Changes a file together with its hash and the digest of the manifest."""
    import hashlib

    (folder / name).write_bytes(content)
    record = read_json(folder / "manifest.json")
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    record["files"][name] = facts
    record["digest"] = digest_of(record)
    (folder / "manifest.json").write_text(json.dumps(record))


def test_bundle_made_again_from_the_same_model_has_the_same_bytes(made, tmp_path):
    archive = write_bundle(preset_files("nano")["tflite"], tmp_path / "nano")
    assert read_folder(tmp_path / "nano") == read_folder(made)
    assert archive.read_bytes() == made.with_name("nano.zip").read_bytes()
    write_bundle(preset_files("nano")["tflite"], tmp_path / "nano")  # over itself
    assert read_folder(tmp_path / "nano") == read_folder(made)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nano", "nano.zip"]


def test_bundle_made_within_a_checkout_has_the_same_bytes(made, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "_PROJECT_ROOT", tmp_path)
    write_bundle(preset_files("nano")["tflite"], tmp_path / "nano")
    assert read_folder(tmp_path / "nano") == read_folder(made)


def test_untouched_bundle_is_verified_as_folder_and_as_zip(made):
    assert verify_bundle(made) == []
    assert verify_bundle(made.with_name("nano.zip")) == []


def test_manifest_follows_its_schema_and_lists_every_file(made):
    record = read_json(made / "manifest.json")
    jsonschema.validate(record, read_json(made / "manifest.schema.json"))
    assert set(record["files"]) == set(read_folder(made)) - {"manifest.json"}
    needed = {"README.md", "MODEL_CARD.md", "LICENSE", "cost.json", "c/op_resolver.h"}
    needed |= {"c/model_data.c", "c/tables.c", "c/lmkd_config.h", "golden/vectors.json"}
    assert needed <= set(record["files"])


def test_product_built_from_the_bundle_alone_gives_the_golden_output(made, tmp_path, require_tool):
    (tmp_path / "main.c").write_text(FILTER)
    sources = [*(made / "lib" / "src").glob("*.c")]
    sources += [made / "c" / name for name in ("tables.c", "model_aot.c", "model_image.c")]
    includes = [f"-I{made / name}" for name in ("lib/include", "lib/src", "c")]
    command = [require_tool("gcc", "gcc"), "-std=c11", "-O2", "-ffp-contract=off", *includes]
    command += [str(tmp_path / "main.c"), *map(str, sources), "-o", str(tmp_path / "product")]
    subprocess.run(command, check=True)
    samples, _ = _golden(made, "samples")
    wanted, entry = _golden(made, "output")
    done = subprocess.run(
        [tmp_path / "product"], input=samples.tobytes(), capture_output=True, check=True
    )
    out = np.frombuffer(done.stdout, np.int16).reshape(samples.shape)[1:]
    assert len(wanted) == 999
    difference = np.abs(out.astype(int) - wanted.astype(int))
    assert difference.max() <= entry["max_difference"]
    assert np.abs(wanted.astype(int)).max() > 500  # there is something to compare


def test_operator_resolver_compiles_and_names_what_the_model_holds(
    made, tmp_path, require_tool, project_root
):
    text = (made / "c" / "op_resolver.h").read_text()
    counts = {entry["name"] for entry in read_json(made / "manifest.json")["operators"]}
    assert text.count("resolver.Add") == len(counts)
    (tmp_path / "main.cc").write_text(
        '#include "op_resolver.h"\n'
        "TfLiteStatus f(tflite::MicroMutableOpResolver<LMKD_RESOLVER_OPERATORS> &r) {\n"
        "    return lmkd_register_operators(r);\n}\n"
    )
    declarations = project_root / "microcontroller" / "tests" / "tflm_declarations"
    command = [require_tool("g++", "g++"), "-fsyntax-only", "-Wall", "-Werror"]
    command += [f"-I{made / 'c'}", f"-I{declarations}", str(tmp_path / "main.cc")]
    subprocess.run(command, check=True)


def test_golden_masks_depend_on_the_carried_state(made):
    codes, _ = _golden(made, "codes")
    masks, entry = _golden(made, "masks")
    assert masks.shape == codes.shape == (1000, 144)
    assert entry["max_difference"] == 0
    states = [name for name in read_json(made / "golden" / "vectors.json") if "state_" in name]
    assert len(states) == len(read_json(made / "manifest.json")["states"])


def test_cost_sheet_counts_and_estimates(made, project_root):
    sheet, record = read_json(made / "cost.json"), read_json(made / "manifest.json")
    assert sheet["flash_bytes"]["tflite"] == record["model"]["bytes"]
    assert sheet["ram_bytes"]["tflm_arena"] == record["arena_bytes"]
    assert sheet["macs_per_second"] == sheet["macs_per_hop"] * 16000 / 256
    footprint = read_json(project_root / "microcontroller" / "footprint.json")
    for core, estimate in sheet["estimated"].items():
        measured = footprint[core]["instructions_per_hop"]["total"]
        assert estimate["instructions_per_hop"] == pytest.approx(measured, rel=0.1)
        macs = sheet["macs_per_hop"]
        network = footprint[core]["instructions_per_hop"]["network"]
        assert INSTRUCTIONS_PER_MAC[core] == pytest.approx(network / macs, rel=0.1)
        rest = measured - network
        assert FRONT_END_INSTRUCTIONS[core] == pytest.approx(rest, rel=0.1)


@pytest.mark.parametrize(
    "name", ["c/model_data.c", "golden/masks.bin", "lib/src/lmkd.c", "README.md", "LICENSE"]
)
def test_one_changed_byte_is_found_and_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert [line.split(":")[0] for line in verify_bundle(copy)] == [name]
    assert "changed" in verify_bundle(copy)[0]


def test_missing_and_added_files_are_found(copy):
    (copy / "c" / "tables.c").unlink()
    (copy / "c" / "extra.c").write_text("int main(void) {}")
    assert verify_bundle(copy) == ["c/tables.c: missing", "c/extra.c: not part of the bundle"]


def test_changed_entry_of_the_manifest_is_found(copy):
    record = read_json(copy / "manifest.json")
    (copy / "manifest.json").write_text(json.dumps({**record, "arena_bytes": 16}))
    assert verify_bundle(copy) == [
        "manifest.json: its entries are not those that its digest was made of"
    ]
    (copy / "manifest.json").write_text(json.dumps({**record, "num_bands": "many"}))
    assert verify_bundle(copy)[0].startswith("manifest.json: num_bands: 'many' is not of type")


def test_source_forged_together_with_its_hash_is_found(copy):
    text = (copy / "c" / "model_aot.c").read_bytes()
    _forge(copy, "c/model_aot.c", text.replace(b"memmove", b"memcpy ", 1))
    assert verify_bundle(copy) == ["c/model_aot.c: not what the model gives"]


def test_golden_masks_forged_together_with_their_hash_are_found(copy):
    masks = bytearray((copy / "golden" / "masks.bin").read_bytes())
    masks[5000] ^= 1
    _forge(copy, "golden/masks.bin", bytes(masks))
    assert verify_bundle(copy) == [
        "golden/masks.bin: not what TensorFlow Lite Micro computes from golden/codes.bin"
    ]


def test_everything_that_follows_from_the_model_is_found_when_forged_with_its_hash(copy):
    names = ["lib/src/lmkd.c", "cost.json", "MODEL_CARD.md", "README.md", "LICENSE"]
    for name in names:
        _forge(copy, name, (copy / name).read_bytes() + b"\n")
    golden = ["golden/features.bin", "golden/output.bin", "golden/state_0_last.bin"]
    for name in golden:
        values = bytearray((copy / name).read_bytes())
        values[1] ^= 64  # of the first number, the high byte where it has two
        values[3] ^= 64  # and where it has four
        _forge(copy, name, bytes(values))
    record = {**read_json(copy / "manifest.json"), "arena_bytes": 16}
    (copy / "manifest.json").write_text(json.dumps({**record, "digest": digest_of(record)}))
    found = verify_bundle(copy)
    assert sorted(line.split(": ")[0] for line in found) == sorted(
        [*names, *golden, "manifest.json"]
    )
    assert "lib/src/lmkd.c: not what this version holds" in found
    assert "golden/state_0_last.bin: not what TensorFlow Lite Micro computes" in " ".join(found)


def test_what_another_generator_made_is_said_to_be_unchecked(copy):
    assert not_checked(copy) == []
    text = (copy / "c" / "model_aot.c").read_bytes()
    _forge(copy, "c/model_aot.c", text.replace(b"memmove", b"memcpy ", 1))
    record = {**read_json(copy / "manifest.json"), "generator": "lmkd-tf 9.9"}
    (copy / "manifest.json").write_text(json.dumps({**record, "digest": digest_of(record)}))
    assert verify_bundle(copy) == []
    (line,) = not_checked(copy)
    assert line.startswith("c/, lib/, golden/ but the masks, cost.json and texts: not checked")
    assert "made by lmkd-tf 9.9" in line


def test_installation_without_the_library_says_that_it_cannot_check_it(copy, monkeypatch):
    monkeypatch.setattr(bundle, "FIRMWARE", copy / "none")
    (line,) = not_checked(copy)
    assert line.startswith("lib/, LICENSE: not checked")


def test_last_states_are_those_behind_the_golden_codes(made):
    model = preset_files("nano")["tflite"]
    step = StepModel(model, "tflm")
    for frame in _golden(made, "codes")[0]:
        step.step_quantized(frame)
    for name, value in step.states.items():
        np.testing.assert_array_equal(_golden(made, f"{name}_last")[0], value.ravel())


def test_model_forged_together_with_its_hash_is_found(copy):
    model = bytearray((copy / "model" / "nano_int8.tflite").read_bytes())
    model[len(model) // 2] ^= 1
    _forge(copy, "model/nano_int8.tflite", bytes(model))
    (line,) = verify_bundle(copy)
    assert line.startswith("model/nano_int8.tflite: A model and its manifest must belong together")


@pytest.mark.parametrize("position", [0.0003, 0.5, 0.97, 0.9999])
def test_zip_with_one_changed_byte_is_refused_or_named(copy, position):
    archive = copy.with_name("nano.zip")
    content = bytearray(archive.read_bytes())
    content[int(position * len(content))] ^= 1
    archive.write_bytes(content)
    try:
        findings = verify_bundle(archive)
    except ValueError as error:
        findings = [str(error)]
        assert "must hold" in findings[0] or "must not reach" in findings[0]
    assert findings


def test_truncated_zip_is_refused(copy):
    archive = copy.with_name("nano.zip")
    archive.write_bytes(archive.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"must hold a whole zip.*Get the bundle again"):
        verify_bundle(archive)


@pytest.mark.parametrize("name", ["nano/../../evil", "/evil", "..\\evil", "C:/evil"])
def test_zip_that_reaches_outside_of_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("nano/manifest.json", "{}")
        archive.writestr(name, "x")
    with pytest.raises(ValueError, match=r"must not reach outside.*Do not unpack it"):
        verify_bundle(tmp_path / "evil.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.zip"]


def test_zip_with_bytes_between_its_files_is_found(copy):
    archive = copy.with_name("nano.zip")
    archive.write_bytes(b"#!/bin/sh\nexit\n" + archive.read_bytes())
    assert "the archive holds bytes that are in no file of it" in verify_bundle(archive)[0]


def test_zip_of_two_folders_and_zip_with_a_file_twice_are_refused(made, tmp_path):
    files = read_folder(made)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a/manifest.json", files["manifest.json"])
        archive.writestr("b/manifest.json", files["manifest.json"])
    with pytest.raises(ValueError, match=r"must hold one folder.*\['a', 'b'\]"):
        verify_bundle(tmp_path / "two.zip")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a/manifest.json", files["manifest.json"])
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/manifest.json", files["manifest.json"])
    with pytest.raises(ValueError, match="must hold every file once"):
        verify_bundle(tmp_path / "twice.zip")


@pytest.mark.parametrize("version", [0, 2, None])
def test_bundle_of_another_version_is_refused_with_its_maker(copy, version):
    record = read_json(copy / "manifest.json")
    (copy / "manifest.json").write_text(json.dumps({**record, "version": version}))
    with pytest.raises(ValueError, match=rf"of version 1. Received .* of version {version}, made"):
        verify_bundle(copy)


def test_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"A bundle is needed.*does not exist"):
        verify_bundle(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"must hold a manifest\.json of lmkd-export"):
        verify_bundle(tmp_path)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ValueError, match="must hold a whole zip"):
        verify_bundle(tmp_path / "text.zip")


def test_folder_with_other_files_is_not_written_to(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"new folder or replace an older bundle"):
        write_bundle(preset_files("nano")["tflite"], tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_file_with_the_name_of_the_folder_is_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"mine, which is no folder\. Give another name"):
        write_bundle(preset_files("nano")["tflite"], tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "years of work"


def test_link_that_leads_nowhere_is_not_replaced(tmp_path):
    (tmp_path / "mine").symlink_to(tmp_path / "unmounted")
    with pytest.raises(FileExistsError, match="which is no folder"):
        write_bundle(preset_files("nano")["tflite"], tmp_path / "mine")
    assert (tmp_path / "mine").is_symlink()


@pytest.mark.parametrize("content", ["text", "zip", "list", "folder"])
def test_other_file_with_the_name_of_the_zip_is_not_replaced(tmp_path, content):
    archive = tmp_path / "mine.zip"
    if content == "text":
        archive.write_text("years of work")
    elif content == "folder":
        archive.mkdir()
    else:
        with zipfile.ZipFile(archive, "w") as stream:
            stream.writestr("mine/manifest.json", "[]" if content == "list" else "{}")
    before = archive.read_bytes() if archive.is_file() else None
    with pytest.raises(FileExistsError, match=r"mine\.zip is something else\. Give another name"):
        write_bundle(preset_files("nano")["tflite"], tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.zip"]
    assert (archive.read_bytes() if archive.is_file() else None) == before


def test_disk_that_fills_half_way_keeps_the_older_bundle(copy, monkeypatch):
    before = read_folder(copy)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle, "_copy_library", fail)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(preset_files("nano")["tflite"], copy)
    assert read_folder(copy) == before
    assert sorted(p.name for p in copy.parent.iterdir()) == ["nano", "nano.zip"]


def test_zip_bytes_depend_on_names_and_content_alone():
    files = {"b": b"2", "a": b"1"}
    assert zip_bytes(files, "x") == zip_bytes(dict(sorted(files.items())), "x")
    assert zip_bytes(files, "x") != zip_bytes(files, "y")


def test_bundle_of_16_bit_activations_is_for_an_integration_around_tflite_micro(tmp_path):
    size = {"num_bands": 12, "channels": 8, "dilations": (1, 2)}
    frames = np.random.default_rng(0).normal(0, 0.3, (150, 12)).astype(np.float32)
    to_tflite(
        build_core("tcn", **size),
        tmp_path / "student.tflite",
        architecture="tcn",
        size=size,
        stft=StftConfig(),
        calibration=Calibration(frames, seed=3, files=("a.flac",)),
        dtype="int16",
    )
    write_bundle(tmp_path / "student.tflite", tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle") == []
    names = {path.name for path in (tmp_path / "bundle" / "c").iterdir()}
    assert {"model_data.c", "op_resolver.h", "lmkd_config.h", "tables.c"} <= names
    assert not {"model_aot.c", "model_image.c"} & names
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "This model has no generated C (int16 activations)" in text
