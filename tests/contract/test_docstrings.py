# SPDX-License-Identifier: Apache-2.0
import ast
import re

import pytest

ARGUMENT = re.compile(r"^    \*{0,2}(\w+)(?: \(.*?\))?:")
SECTION = re.compile(r"^[A-Z][A-Za-z ]*:$")


def documented(docstring):
    """Names in the `Args:` section in order, or None where there is no such section."""
    lines = (docstring or "").splitlines()
    if "Args:" not in lines:
        return None
    names = []
    for line in lines[lines.index("Args:") + 1 :]:
        if SECTION.match(line):
            break
        names += ARGUMENT.findall(line)
    return names


def parameters(function):
    """Names of the parameters without `self` and `cls`."""
    arguments = function.args
    names = [a.arg for a in arguments.posonlyargs + arguments.args]
    names += [arguments.vararg.arg] if arguments.vararg else []
    names += [a.arg for a in arguments.kwonlyargs]
    names += [arguments.kwarg.arg] if arguments.kwarg else []
    return [name for name in names if name not in {"self", "cls"}]


def fields(node):
    """Names of the annotated fields of a class body."""
    return [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]


def subjects(node, prefix=""):
    """Yields `(name, docstring, parameter names)` of public functions and classes."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
            yield f"{prefix}{item.name}", ast.get_docstring(item), parameters(item)
        if isinstance(item, ast.ClassDef) and not item.name.startswith("_"):
            inits = [
                f for f in item.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"
            ]
            names = parameters(inits[0]) if inits else fields(item)
            yield f"{prefix}{item.name}", ast.get_docstring(item), names
            methods = ast.Module(
                [f for f in item.body if isinstance(f, ast.FunctionDef)], type_ignores=[]
            )
            yield from subjects(methods, f"{prefix}{item.name}.")


def mismatches(tree):
    """Differences between `Args:` and signature; `**kwargs` of a base class need no entry."""
    return [
        f"{name}: Args {documented(docstring)}, signature {names}"
        for name, docstring, names in subjects(tree)
        if documented(docstring) not in (None, names, [n for n in names if n != "kwargs"])
    ]


def undocumented(tree):
    """Public callables of four parameters or more without an `Args:` section."""
    return [
        name
        for name, docstring, names in subjects(tree)
        if len(names) > 3 and documented(docstring) is None and not name[0].isupper()
    ]


def offenders(library_trees, check):
    return [f"{path}: {found}" for path, tree in library_trees.items() for found in check(tree)]


def test_documented_arguments_are_those_of_the_signature(library_trees):
    assert offenders(library_trees, mismatches) == []


def test_functions_of_four_arguments_document_them(library_trees):
    assert offenders(library_trees, undocumented) == []


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (mismatches, 'def f(a, b):\n    """Adds.\n\n    Args:\n        a: One.\n    """'),
        (mismatches, 'def f(a):\n    """Adds.\n\n    Args:\n        b: One.\n    """'),
        (undocumented, 'def f(a, b, c, d):\n    """Adds four."""'),
    ],
)
def test_the_checks_find_a_planted_fault(check, source):
    assert check(ast.parse(source)) != []
