# SPDX-License-Identifier: Apache-2.0
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import lmkd_tf
from lmkd_tf.firmware import package

# What lmkd.h tells its reader to write, in the words that C and C++ share.
USE = """
#include <{header}>
static LMKD_MEMORY(memory);
struct lmkd_state *start(void);
struct lmkd_state *start(void) {{
    struct lmkd_state *state;
    return lmkd_init(memory, sizeof memory, NULL, &state) == LMKD_OK ? state : NULL;
}}
"""
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
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
    for source in (folder / "src").glob("*.c"):
        target = tmp_path / f"{source.name}.o"
        command = [compiler, *CORE_M4F.split(), f"-I{folder / 'src'}", "-c", str(source)]
        subprocess.run([*command, "-o", str(target)], check=True)
    sketch = tmp_path / "sketch.cc"  # the Arduino IDE compiles a sketch as C++
    sketch.write_text(USE.format(header="lmkd.h"))
    cpp = [require_tool("arm-none-eabi-g++", "gcc-arm-none-eabi"), *CORE_M4F.split(), *WARNINGS]
    cpp = [word.replace("gnu11", "gnu++11") for word in cpp]
    command = [*cpp, f"-I{folder / 'src'}", "-c", str(sketch), "-o", str(tmp_path / "sketch.o")]
    subprocess.run(command, check=True)


def test_arduino_library_is_not_written_over_a_folder(tmp_path):
    with pytest.raises(FileExistsError, match=r"must go to a new folder\. Received"):
        package.write_arduino_library(tmp_path)


def test_cmake_project_uses_the_library_as_a_subdirectory(firmware, tmp_path, require_tool):
    cmake = require_tool("cmake", "cmake")
    source = firmware / "packaging" / "consumer"
    subprocess.run([cmake, "-S", source, "-B", tmp_path], check=True, capture_output=True)
    subprocess.run([cmake, "--build", tmp_path], check=True, capture_output=True)
    subprocess.run([tmp_path / "consumer"], check=True)


@pytest.mark.parametrize(
    "setting",
    ["TFLM_LIBRARY", "TFLM_INCLUDE_DIRS", "CMSISDSP_LIBRARY", "CMSISDSP_INCLUDE_DIRS"],
)
def test_half_of_another_library_is_refused(setting, firmware, tmp_path, require_tool):
    command = [require_tool("cmake", "cmake"), "-S", firmware, "-B", tmp_path, f"-D{setting}=/some"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    message = " ".join(done.stderr.split())  # CMake breaks lines
    assert "belong together. Received" in message
    assert "'/some'" in message


def test_warnings_of_a_project_do_not_stop_its_build(firmware, tmp_path, require_tool):
    cmake = require_tool("cmake", "cmake")
    source = firmware / "packaging" / "consumer"
    options = [f"-DCMAKE_C_COMPILER={require_tool('gcc', 'gcc')}", "-DCMAKE_C_FLAGS=-Wfloat-equal"]
    subprocess.run([cmake, "-S", source, "-B", tmp_path, *options], check=True, capture_output=True)
    command = [cmake, "--build", tmp_path]
    built = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "-Wfloat-equal" in built.stderr  # there is a warning to survive


def test_warnings_stop_the_build_of_the_library_itself(firmware, tmp_path, require_tool):
    cmake = require_tool("cmake", "cmake")
    options = [f"-DCMAKE_C_COMPILER={require_tool('gcc', 'gcc')}", "-DCMAKE_C_FLAGS=-Wfloat-equal"]
    command = [cmake, "-S", firmware, "-B", tmp_path, *options]
    subprocess.run(command, check=True, capture_output=True)
    built = subprocess.run(
        [cmake, "--build", tmp_path, "--target", "lmkd"], capture_output=True, check=False
    )
    assert built.returncode != 0
    assert b"-Werror=float-equal" in built.stderr + built.stdout


@pytest.mark.parametrize(
    ("tool", "package_", "standard", "suffix"),
    [
        ("g++", "g++", "c++11", "cc"),
        ("g++", "g++", "c++17", "cc"),
        ("clang++", "clang", "c++17", "cc"),
        ("gcc", "gcc", "c11", "c"),
    ],
)
def test_public_header_is_usable_from_c_and_cpp(
    tool, package_, standard, suffix, firmware, tmp_path, require_tool
):
    source = tmp_path / f"use.{suffix}"
    source.write_text(USE.format(header="lmkd/lmkd.h"))
    includes = [f"-I{firmware / name}" for name in ("include", "generated")]
    command = [require_tool(tool, package_), f"-std={standard}", *WARNINGS, *includes]
    subprocess.run([*command, "-c", str(source), "-o", str(tmp_path / "use.o")], check=True)


def test_readme_states_the_bytes_that_the_macro_reserves(firmware, tmp_path, require_tool):
    text = (firmware / "README.md").read_text()
    stated = re.search(r"static LMKD_MEMORY\(memory\); +// ([\d,]+) bytes", text)
    assert stated
    source = tmp_path / "size.c"
    source.write_text(
        '#include "lmkd/lmkd.h"\nLMKD_MEMORY(memory);\n'
        f'_Static_assert(sizeof memory == {stated[1].replace(",", "")}, "as the read-me says");\n'
    )
    includes = [f"-I{firmware / name}" for name in ("include", "generated")]
    command = [require_tool("gcc", "gcc"), "-std=c11", "-fsyntax-only", *includes, str(source)]
    subprocess.run(command, check=True)


def test_folders_that_the_readme_says_to_copy_compile_and_link(firmware, tmp_path, require_tool):
    step = (firmware / "README.md").read_text().split("**Add it to your project**")[1]
    copied, left_out = step.split("| build |")[0].split("without", 1)
    folders = re.findall(r"`(\w+)/`", copied)
    assert folders == ["include", "src", "generated"]
    for folder in folders:
        shutil.copytree(firmware / folder, tmp_path / folder)
    for name in re.findall(r"`((?:src|generated)/[\w.]+)`", left_out):
        (tmp_path / name).unlink()
    sources = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.c*"))
    assert sources == sorted(package.SOURCES)
    (tmp_path / "main.c").write_text(
        USE.format(header="lmkd/lmkd.h") + "int main(void) { return start() == NULL; }\n"
    )
    includes = [f"-I{folder}" for folder in folders]
    command = [require_tool("gcc", "gcc"), "-std=c11", *WARNINGS, "-ffp-contract=off", *includes]
    command += ["main.c", *sources, "-o", "product"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "product"], check=True)


@pytest.mark.parametrize("options", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
@pytest.mark.parametrize(("tool", "package_"), [("gcc", "gcc"), ("clang", "clang")])
def test_arithmetic_that_breaks_the_rounding_does_not_compile(
    options, tool, package_, firmware, require_tool
):
    includes = [f"-I{firmware / name}" for name in ("include", "src", "generated")]
    command = [require_tool(tool, package_), "-std=c11", "-fsyntax-only", *includes, options]
    for name in ("lmkd.c", "front_end.c"):
        source = str(firmware / "src" / name)
        refused = subprocess.run([*command, source], capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert "Compile lmkd without -ffast-math" in refused.stderr
        subprocess.run([*command, "-fno-fast-math", source], check=True)


@pytest.mark.parametrize(
    ("folder", "header"),
    [
        ("platform", "audio.h"),  # a driver may be C++
        ("src", "checksum.h"),
        ("src", "fft.h"),  # what an integration around TFLite Micro, which is C++, takes of us
        ("src", "front_end.h"),
        ("src", "network.h"),
        ("src", "nn.h"),
    ],
)
def test_functions_of_every_header_are_those_of_c_in_cpp(
    folder, header, firmware, tmp_path, require_tool
):
    text = (firmware / folder / header).read_text()
    names = re.findall(r"^(?!static|typedef)\w[\w ]* \*?(lmkd_\w+)\(", text, re.MULTILINE)
    assert names
    source = tmp_path / "use.cc"
    uses = ", ".join(f"reinterpret_cast<void *>(&{name})" for name in names)
    source.write_text(
        f'#include <stddef.h>\n#include "{header}"\nextern void *const uses[];\n'
        f"void *const uses[] = {{{uses}}};\n"
    )
    includes = [f"-I{firmware / name}" for name in ("include", "src", "generated", "platform")]
    command = [require_tool("g++", "g++"), "-std=c++17", *includes, "-c", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "use.o")], check=True)
    listed = subprocess.run(
        [require_tool("nm", "binutils"), "-u", tmp_path / "use.o"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(names) <= set(listed.stdout.split())
