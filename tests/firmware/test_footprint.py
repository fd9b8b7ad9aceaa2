# SPDX-License-Identifier: Apache-2.0
import json
import re

import pytest

from lmkd_tf.firmware import footprint
from lmkd_tf.firmware.emulator import CORES, build
from lmkd_tf.models.presets import preset_files


@pytest.fixture(scope="module")
def table():
    return json.loads(footprint.TABLE.read_text())


def test_firmware_does_not_grow_past_the_table(capsys, require_tool):
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    require_tool("qemu-system-arm", "qemu-system-arm")
    footprint.main(["--check", "--cores=m4f,m55"])
    assert "| instructions per hop | m4f | m55 |" in capsys.readouterr().out


def test_firmware_of_the_larger_students_does_not_grow_past_its_table(capsys, require_tool):
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    require_tool("qemu-system-arm", "qemu-system-arm")
    footprint.main(["--check", "--students=small"])
    assert "| instructions per hop | small |" in capsys.readouterr().out


def test_table_has_every_core(table):
    assert sorted(table) == sorted(CORES)


def test_readme_states_the_figures_of_the_table(table, project_root):
    text = (project_root / "microcontroller" / "README.md").read_text()
    students = json.loads(footprint.STUDENTS.read_text())
    stated = [
        f"{value:,}"
        for row in (*table.values(), *students.values())
        for value in (row["code_bytes"], *row["instructions_per_hop"].values())
    ]
    assert [figure for figure in stated if f" {figure} " not in text] == []


def test_m4f_keeps_the_budget(table):
    m4f = table["m4f"]
    flash_bytes = m4f["code_bytes"] + m4f["model_bytes"] + m4f["tables_bytes"]
    assert flash_bytes <= 160 * 1024
    assert m4f["instance_bytes"] + m4f["hop_stack_bytes"] <= 32 * 1024
    # A quarter of what a 64 MHz core has in 16 ms, at one instruction per cycle.
    assert m4f["instructions_per_hop"]["total"] <= 0.25 * 64e6 * 0.016


def test_library_has_no_memory_of_its_own(table):
    own = {core: row["data_bytes"] + row["bss_bytes"] for core, row in table.items()}
    assert own == dict.fromkeys(CORES, 0)


def test_sizes_of_a_library_are_those_of_the_size_tool(require_tool):
    require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    library = build("cortex-m4f", targets=["lmkd"]) / "liblmkd.a"
    sizes = footprint.section_sizes(library)
    header = (library.parents[2] / "generated" / "model_aot.h").read_text()
    stated = re.search(r"#define LMKD_IMAGE_BYTES (\d+)u", header)
    assert stated
    assert sizes["model_bytes"] == int(stated[1])
    # Window, band starts, weights, scales and twiddles: 4 or 2 bytes each.
    assert sizes["tables_bytes"] == 4 * 512 + 2 * 257 + 4 * 2 * 257 + 4 * 144 + 8 * 384


def test_growth_and_missing_figures_are_differences():
    wanted = {"code_bytes": 100, "stack_bytes": 50, "instructions": {"total": 1000}}
    found = {"code_bytes": 102, "instructions": {"total": 1021}}
    assert footprint.differences(found, wanted) == [
        "stack_bytes is None, the table says 50",
        "instructions.total is 1021, the table says 1000",
    ]


def test_figures_of_another_network_are_a_difference():
    wanted = {"manifest_sha256": "ab", "code_bytes": 100}
    assert footprint.differences({"manifest_sha256": "ab", "code_bytes": 1}, wanted) == []
    assert footprint.differences({"manifest_sha256": "cd", "code_bytes": 1}, wanted) == [
        "manifest_sha256 is cd, the table says ab"
    ]


def test_check_fails_where_a_figure_grew(monkeypatch, tmp_path, capsys):
    figures = {"code_bytes": 100, "instructions_per_hop": dict.fromkeys(footprint.STAGES, 1)}
    figures["instructions_per_hop"]["total"] = 5
    (tmp_path / "footprint.json").write_text(json.dumps({"m4f": {**figures, "code_bytes": 90}}))
    monkeypatch.setattr(footprint, "TABLE", tmp_path / "footprint.json")
    monkeypatch.setattr(footprint, "measure", lambda core: figures)
    with pytest.raises(SystemExit):
        footprint.main(["--check", "--cores=m4f"])
    assert "m4f: code_bytes is 100, the table says 90" in capsys.readouterr().err


def test_without_check_the_table_is_written(monkeypatch, tmp_path):
    figures = {"code_bytes": 100, "instructions_per_hop": dict.fromkeys(footprint.STAGES, 1)}
    figures["instructions_per_hop"]["total"] = 5
    monkeypatch.setattr(footprint, "TABLE", tmp_path / "footprint.json")
    monkeypatch.setattr(footprint, "measure", lambda core: figures)
    footprint.main(["--cores=m4f"])
    assert json.loads((tmp_path / "footprint.json").read_text()) == {"m4f": figures}


def test_instructions_are_those_of_the_network_the_firmware_has(table, tmp_path, monkeypatch):
    nano, small, base = (preset_files(name)["manifest"] for name in ("nano", "small", "base"))
    assert footprint.measured_instructions(nano) == sum(
        table["m4f"]["instructions_per_hop"][stage] for stage in footprint.STAGES
    )
    students = json.loads(footprint.STUDENTS.read_text())
    for name, manifest in (("small", small), ("base", base)):
        stages = students[name]["instructions_per_hop"]
        assert footprint.measured_instructions(manifest) == stages["total"]
        assert stages["total"] == sum(stages[stage] for stage in footprint.STAGES)
    other = tmp_path / "other.manifest.json"
    other.write_text(nano.read_text().replace("nano", "other"))
    assert footprint.measured_instructions(other) is None
    for name in ("TABLE", "STUDENTS"):
        monkeypatch.setattr(footprint, name, tmp_path / "none.json")
    assert footprint.measured_instructions(nano) is None
    assert footprint.measured_instructions(small) is None
