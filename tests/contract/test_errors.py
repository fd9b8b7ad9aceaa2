# SPDX-License-Identifier: Apache-2.0
import ast
import builtins
import itertools
import re

import pytest

MESSAGE_ERRORS = {"ValueError", "TypeError", "FileNotFoundError"}
BUILT_IN_ERRORS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, Exception)
}
SENTENCE_END = re.compile(r"[.?!](?=\s|$)")


def raised_built_ins(tree):
    """Yields `(name, call or None, line)` of every raise of a built-in exception."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        call = node.exc if isinstance(node.exc, ast.Call) else None
        target = call.func if call else node.exc
        if isinstance(target, ast.Name) and target.id in BUILT_IN_ERRORS:
            yield target.id, call, node.lineno


def wrong_argument_counts(tree):
    return [
        line
        for _, call, line in raised_built_ins(tree)
        if call is None or len(call.args) != 1 or call.keywords
    ]


def stray_strings(tree):
    """Lines of string statements that follow an assignment of a string: a lost message line."""
    lines = []
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        if not isinstance(body, list):
            continue
        for first, second in itertools.pairwise(body):
            is_assignment = isinstance(first, ast.Assign) and is_string(first.value)
            if is_assignment and isinstance(second, ast.Expr) and is_string(second.value):
                lines.append(second.lineno)
    return lines


def is_string(node):
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def template(message):
    """The text of a message with `{}` for each value, or None where it is made elsewhere."""
    if isinstance(message, ast.Constant):
        return str(message.value)
    if isinstance(message, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in message.values
        )
    if isinstance(message, ast.BinOp):
        sides = [template(message.left), template(message.right)]
        return "".join(side if side is not None else "{}" for side in sides)
    return None


def incomplete_messages(tree):
    """Lines of messages that do not say what was received, or of fewer than three sentences."""
    lines = []
    for name, call, line in raised_built_ins(tree):
        text = template(call.args[0]) if name in MESSAGE_ERRORS and call and call.args else None
        if text is None:
            continue
        sentences = len(SENTENCE_END.findall(text)) + len(
            re.findall(r"(?:^|[.?!] )\{\}(?= |$)", text)
        )
        if not ("{}" in text or "Received" in text) or sentences < 3:
            lines.append(line)
    return lines


def offenders(library_trees, check):
    return [f"{path}:{line}" for path, tree in library_trees.items() for line in check(tree)]


def test_every_built_in_exception_is_raised_with_one_string(library_trees):
    assert offenders(library_trees, wrong_argument_counts) == []


def test_no_line_of_a_message_is_lost_as_a_statement(library_trees):
    assert offenders(library_trees, stray_strings) == []


def test_every_message_has_a_rule_a_received_value_and_a_remedy(library_trees):
    assert offenders(library_trees, incomplete_messages) == []


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (wrong_argument_counts, "raise ValueError('Rule.', value)"),
        (wrong_argument_counts, "raise ValueError"),
        (stray_strings, "if bad:\n    message = 'Rule.'\n    f'Received {value}.'"),
        (incomplete_messages, "raise ValueError('Rule. Wrong value. Remedy.')"),
        (incomplete_messages, "raise TypeError(f'Wrong type: {value}.')"),
    ],
)
def test_the_checks_find_a_planted_fault(check, source):
    assert check(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError(f'Rule. Received {value}. Remedy.')",
        "raise ValueError(f'{rule} Received {value}. {remedy}')",
        "raise ValueError(describe(value))",
    ],
)
def test_the_checks_accept_a_good_message(source):
    tree = ast.parse(source)
    assert wrong_argument_counts(tree) + stray_strings(tree) + incomplete_messages(tree) == []
