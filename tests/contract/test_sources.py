# SPDX-License-Identifier: Apache-2.0
import ast
import re

COMMENTED = {".py", ".sh", ".toml", ".c", ".h", ".cc", ".cmake"}
TEXT = COMMENTED | {"", ".md", ".txt", ".yaml", ".yml", ".json", ".ipynb", ".cfg", ".html"}
AUDIO = {".wav", ".flac", ".ogg", ".opus", ".mp3"}
# Written in pieces so that this file does not hold what it looks for.
FOREIGN = re.compile(
    "|".join(
        [
            r"(?<![\w.])/(?:work|root|home|farm|Users)/",
            "pypi" + r"\.org",
            "python" + "hosted",
            "deb" + r"\.debian\.org",
            "registry" + r"\.npmjs",
        ]
    )
)
SPDX = "SPDX-License-Identifier: Apache-2.0"


def first_lines(path):
    return path.read_text("utf-8").splitlines()[:2]


def code_lines(function):
    """Number of lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_every_source_names_its_license(project_files, project_root):
    missing = [
        str(path.relative_to(project_root))
        for path in project_files
        if (path.suffix in COMMENTED or path.name in {"x", "CMakeLists.txt"})
        and not any(SPDX in line for line in first_lines(path))
    ]
    assert missing == []


def test_no_file_names_a_machine_or_a_registry(project_files, project_root):
    found = [
        f"{path.relative_to(project_root)}:{number}"
        for path in project_files
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if FOREIGN.search(line)
    ]
    assert found == []


def test_no_audio_is_tracked(project_files):
    assert [path.name for path in project_files if path.suffix.lower() in AUDIO] == []


def test_no_file_but_a_preset_is_over_one_mebibyte(project_files):
    others = [path for path in project_files if path.parent.name != "presets"]
    assert [path.name for path in others if path.stat().st_size > 2**20] == []


def test_presets_take_less_than_eight_mebibytes(project_root):
    presets = (project_root / "lmkd_tf" / "presets").glob("*")
    assert sum(path.stat().st_size for path in presets) < 8 * 2**20


def test_no_function_is_longer_than_sixty_lines(library_trees):
    long = [
        f"{path}:{function.name} {code_lines(function)}"
        for path, tree in library_trees.items()
        for function in functions(tree)
        if code_lines(function) > 60
    ]
    assert long == []


def test_nine_functions_of_ten_have_at_most_twenty_nine_lines(library_trees):
    lengths = sorted(code_lines(f) for tree in library_trees.values() for f in functions(tree))
    assert lengths[int(0.9 * (len(lengths) - 1))] <= 29


def test_formula_file_is_short_and_imports_only_keras_and_beta_variates(
    project_root, library_trees
):
    path = "lmkd_tf/distill/latent_mixup.py"
    assert len((project_root / path).read_text("utf-8").splitlines()) <= 120
    imported = set()
    for node in ast.walk(library_trees[path]):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported == {"keras", "lmkd_tf.distill.beta"}
    assert not [n for n in ast.walk(library_trees[path]) if isinstance(n, ast.ClassDef)]


def test_every_package_folder_is_a_package(project_root):
    folders = {path.parent for path in (project_root / "lmkd_tf").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
