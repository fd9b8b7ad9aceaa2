# SPDX-License-Identifier: Apache-2.0
import json
import re
import subprocess
from pathlib import Path

import pytest

import lmkd_tf
from lmkd_tf.firmware import package

CORE_M4F = "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -std=gnu11 -O3"


@pytest.fixture(scope="session")
def firmware(project_root):
    return project_root / "microcontroller"


def listed_sources(text):
    """Names like `src/lmkd.c`, without what leads up to the folder."""
    return re.findall(r"(?:src|generated)/\w+\.c\b", text)


@pytest.mark.parametrize(
    "file", ["zephyr/CMakeLists.txt", "packaging/esp-idf/lmkd/CMakeLists.txt", "library.json"]
)
def test_every_package_builds_the_same_sources(file, firmware):
    assert listed_sources((firmware / file).read_text()) == list(package.SOURCES)


def test_cmake_builds_the_same_sources(firmware):
    text = (firmware / "CMakeLists.txt").read_text().replace("${LMKD_GENERATED_DIR}", "generated")
    assert set(package.SOURCES) <= set(listed_sources(text))


@pytest.mark.parametrize(
    ("file", "up"),
    [
        ("zephyr/CMakeLists.txt", "zephyr"),
        ("packaging/esp-idf/lmkd/CMakeLists.txt", "packaging/esp-idf/lmkd"),
    ],
)
def test_paths_of_a_package_exist_from_its_folder(file, up, firmware):
    paths = re.findall(r"(?:\.\./)+[\w/.]+", (firmware / file).read_text())
    assert len(paths) > len(package.SOURCES)
    assert [path for path in paths if not (firmware / up / path).exists()] == []


def test_zephyr_module_names_its_folder(firmware):
    text = (firmware / "zephyr" / "module.yml").read_text()
    assert re.search(r"^name: lmkd$", text, re.MULTILINE)
    folder = re.search(r"cmake: (\w+)", text)
    kconfig = re.search(r"kconfig: ([\w/]+)", text)
    assert folder is not None
    assert kconfig is not None
    assert (firmware / folder[1] / "CMakeLists.txt").is_file()
    assert (firmware / kconfig[1]).is_file()


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("include/lmkd/lmkd.h", r'LMKD_VERSION "(.*)"'),
        ("library.json", r'"version": "(.*)"'),
        ("packaging/esp-idf/lmkd/idf_component.yml", r'version: "(.*)"'),
        ("packaging/arduino/library.properties", r"version=(.*)"),
    ],
)
def test_version_of_a_package_is_that_of_python(file, pattern, firmware):
    assert re.findall(pattern, (firmware / file).read_text()) == [lmkd_tf.__version__]


def test_platformio_flags_find_every_header(firmware, tmp_path, require_tool):
    compiler = require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    build = json.loads((firmware / "library.json").read_text())["build"]
    flags = [word for flag in build["flags"] for word in flag.split()]
    for name in package.SOURCES:
        target = tmp_path / f"{Path(name).name}.o"
        command = [compiler, *CORE_M4F.split(), *flags, "-c", name, "-o", str(target)]
        subprocess.run(command, cwd=firmware, check=True)


def test_arduino_library_compiles_from_its_flat_folder(tmp_path, require_tool):
    compiler = require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    folder = package.write_arduino_library(tmp_path / "lmkd")
    assert "name=lmkd" in (folder / "library.properties").read_text()
    sketch = tmp_path / "sketch.c"
    sketch.write_text("#include <lmkd.h>\nLMKD_MEMORY(memory);\n")
    for source in [sketch, *(folder / "src").glob("*.c")]:
        target = tmp_path / f"{source.name}.o"
        command = [compiler, *CORE_M4F.split(), f"-I{folder / 'src'}", "-c", str(source)]
        subprocess.run([*command, "-o", str(target)], check=True)


def test_arduino_library_is_not_written_over_a_folder(tmp_path):
    with pytest.raises(FileExistsError, match=r"must go to a new folder\. Received"):
        package.write_arduino_library(tmp_path)


def test_cmake_project_uses_the_library_as_a_subdirectory(firmware, tmp_path, require_tool):
    cmake = require_tool("cmake", "cmake")
    source = firmware / "packaging" / "consumer"
    subprocess.run([cmake, "-S", source, "-B", tmp_path], check=True, capture_output=True)
    subprocess.run([cmake, "--build", tmp_path], check=True, capture_output=True)
    subprocess.run([tmp_path / "consumer"], check=True)


def test_public_header_is_usable_from_cpp(firmware, tmp_path, require_tool):
    compiler = require_tool("g++", "g++")
    source = tmp_path / "use.cc"
    source.write_text('#include "lmkd/lmkd.h"\nLMKD_MEMORY(memory);\n')
    includes = [f"-I{firmware / name}" for name in ("include", "generated")]
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", *includes, "-c", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "use.o")], check=True)
