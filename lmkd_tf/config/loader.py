# SPDX-License-Identifier: Apache-2.0
"""Loads configuration files, applies overrides and records what a run used."""

import ast
import contextlib
import dataclasses
import difflib
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lmkd_tf.config.schema import ExperimentConfig

_RECORDED_PACKAGES = (
    "lmkd-tf",
    "tensorflow",
    "keras",
    "jax",
    "tf-keras",
    "tensorflow-model-optimization",
    "numpy",
    "ai-edge-litert",
    "tflite-micro",
    "pesq",
    "pystoi",
    "speechmos",
    "onnxruntime",
)
_Config = TypeVar("_Config")


def load(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Runs a configuration file and applies overrides to what it returns.

    The file defines `get_config() -> ExperimentConfig`. It may import its
    neighbors through the name of their folder (`from configs.default import
    get_config`), whatever the working directory is.

    Args:
        path: Python file that defines `get_config`.
        overrides: Settings such as `distill.mixup_alpha=0.4`, applied together.

    Returns:
        The configuration, with every range checked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has no `get_config`, or an override names no
            setting or has a value of the wrong type.
        TypeError: If `get_config` returns something else.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(
            "`path` must name a configuration file. "
            f"Received {source}, which does not exist. Use for example configs/default.py."
        )
    get_config = _run_file(source.resolve()).get("get_config")
    if not callable(get_config):
        raise ValueError(
            "A configuration file must define `get_config()`. "
            f"Received {source}, which does not. Add that function."
        )
    config = _call_with_known_names(get_config, source)
    if not isinstance(config, ExperimentConfig):
        raise TypeError(
            "`get_config()` must return an ExperimentConfig. "
            f"Received {type(config).__name__} from {source}. "
            "Build it with `dataclasses.replace`."
        )
    return apply_overrides(config, overrides)


def apply_overrides(config: _Config, overrides: Sequence[str]) -> _Config:
    """Returns a copy of a nested frozen dataclass with some settings changed.

    All changes are made at once, so two settings that depend on each other can
    be changed together.

    Args:
        config: Frozen dataclass, possibly of dataclasses.
        overrides: Texts `name.of.setting=value`. Tuples are written `1,2,4` or
            `(1, 2, 4)`, a missing value `none`. The last one of a name wins.

    Returns:
        Copy of `config`.

    Raises:
        ValueError: If a text names no setting or its value has the wrong type.

    Example:
        >>> from lmkd_tf.config.schema import StftConfig
        >>> apply_overrides(StftConfig(), ["hop_length=128", "window_length=256"]).hop_length
        128
    """
    kinds = dict(_settings(config))
    changes: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals:
            raise ValueError(
                "An override must have the form name=value. "
                f"Received {override!r}. Write for example distill.mixup_alpha=0.4."
            )
        if key not in kinds:
            raise ValueError(_unknown_key(key, list(kinds)))
        *sections, name = key.split(".")
        branch = changes
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = _parse(text.strip(), kinds[key], key)
    return _replace(config, changes)


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as nested dictionaries that JSON can hold.

    Args:
        config: Dataclass, possibly of dataclasses.

    Returns:
        One entry per field; tuples become lists and paths texts.
    """
    return _plain(dataclasses.asdict(config))


def resolve_record(config: ExperimentConfig) -> dict[str, Any]:
    """Returns what is needed to repeat a run, ready for JSON.

    Args:
        config: Resolved configuration of the run.

    Returns:
        Entries `command`, `config`, `seed`, `versions`, `python`, `machine` and
        `git_commit` (None outside a git checkout of this project).
    """
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "config": to_dict(config),
        "seed": config.seed,
        "versions": package_versions(),
        "python": platform.python_version(),
        "machine": describe_machine(),
        "git_commit": git_commit(),
    }


def describe_machine() -> str:
    """Returns system, processor and the cores this process may use, such as on Linux.

    Example: `Linux x86_64, AMD EPYC 9B45, 1 of 2 cores`.
    """
    parts = [f"{platform.system()} {platform.machine()}"]
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        parts += [found[1]] if found else []
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return ", ".join([*parts, f"{usable} of {total} cores"])


def package_versions() -> dict[str, str | None]:
    """Returns the installed version of each package that can move a number.

    Returns:
        Version by distribution name, None where it is not installed.
    """
    versions: dict[str, str | None] = dict.fromkeys(_RECORDED_PACKAGES)
    for name in versions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def git_commit(root: Path | None = None) -> str | None:
    """Returns the commit of the checkout that this package runs from.

    Args:
        root: Folder that holds `.git`; by default the parent of the package.

    Returns:
        40 hexadecimal digits, followed by `-dirty` if tracked files differ from
        the commit; None outside a checkout or without git.
    """
    root = root or Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run([*command, "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _call_with_known_names(get_config: Any, source: Path) -> Any:
    """Calls `get_config`; a misspelt field of a dataclass is named with its near names."""
    try:
        return get_config()
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if not found:
            raise
        fields = {key.split(".")[-1] for key, _ in _settings(ExperimentConfig())}
        sections = {key.split(".")[0] for key, _ in _settings(ExperimentConfig())}
        near = difflib.get_close_matches(found[1], sorted(fields | sections))
        raise ValueError(
            "A configuration must set fields that exist. "
            f"Received {found[1]!r} in {source}. Near names: {', '.join(near) or 'none'}."
        ) from error


def _run_file(source: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location(f"_lmkd_config_{source.stem}", source)
    if spec is None or spec.loader is None:
        raise ValueError(
            "A configuration file must be a Python file. "
            f"Received {source}. Give it a name that ends in .py."
        )
    module = importlib.util.module_from_spec(spec)
    with _neighbors_importable(source.parent):
        spec.loader.exec_module(module)
    return vars(module)


@contextlib.contextmanager
def _neighbors_importable(folder: Path) -> Iterator[None]:
    """Lets `from <folder>.<file> import ...` find this folder, then forgets it."""

    def is_neighbor(name: str) -> bool:
        return name.split(".")[0] == folder.name

    saved = {name: module for name, module in sys.modules.items() if is_neighbor(name)}
    for name in saved:
        del sys.modules[name]
    sys.path.insert(0, str(folder.parent))
    try:
        yield
    finally:
        sys.path.remove(str(folder.parent))
        for name in filter(is_neighbor, list(sys.modules)):
            del sys.modules[name]
        sys.modules.update(saved)


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the annotated type of every leaf field."""
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", kinds[field.name]


def _unknown_key(key: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=3)
    if not near:
        last = {name: name.rpartition(".")[2] for name in valid}
        close = difflib.get_close_matches(key.rpartition(".")[2], set(last.values()), n=3)
        near = [name for name in valid if last[name] in close]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return (
        f"An override must name a setting. Received {key!r}. "
        f"{hint}The settings are: {', '.join(valid)}."
    )


def _replace(config: Any, changes: dict[str, Any]) -> Any:
    new = {
        name: _replace(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **new)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _parse(text: str, kind: Any, key: str) -> Any:
    """Reads a value of the annotated type `kind` from the text of an override."""
    try:
        return _convert(text, kind)
    except (ValueError, SyntaxError) as error:
        wanted = kind.__name__ if isinstance(kind, type) else str(kind)
        raise ValueError(
            f"`{key}` must be of type {wanted}. Received {text!r}. "
            f"Write {key}={_EXAMPLES.get(kind, 'a value of that type')}."
        ) from error


def _convert(value: Any, kind: Any) -> Any:
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_optional(value, members)
    if origin is typing.Literal:
        return _one_of(value, members)
    if origin is tuple:
        return _convert_tuple(value, members)
    return _SCALARS[kind](value) if kind in _SCALARS else _one_of(value, ())


def _convert_optional(value: Any, members: tuple) -> Any:
    if value is None or str(value).lower() == "none":
        return _one_of(None, members if type(None) in members else (), key=type(None))
    (kind,) = (member for member in members if member is not type(None))
    return _convert(value, kind)


def _one_of(value: Any, allowed: tuple, key: Any = None) -> Any:
    if (value if key is None else key) not in allowed:
        raise ValueError(f"The value must be one of {allowed}. Received {value!r}. Choose one.")
    return value


def _convert_tuple(value: Any, members: tuple) -> tuple:
    if isinstance(value, str):
        has_brackets = value.startswith(("(", "["))
        value = ast.literal_eval(value) if has_brackets else value.split(",") if value else []
    if not isinstance(value, tuple | list):
        value = [value]
    kinds = [members[0]] * len(value) if members[1:] == (...,) else members
    return tuple(_convert(entry, kind) for entry, kind in zip(value, kinds, strict=True))


def _to_int(value: Any) -> int:
    return int(str(value))


def _to_float(value: Any) -> float:
    number = float(str(value))
    if not math.isfinite(number):
        raise ValueError(f"The number must be finite. Received {value}. Use another.")
    return number


def _to_bool(value: Any) -> bool:
    return {"true": True, "false": False}[_one_of(str(value).lower(), ("true", "false"))]


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"A text is needed. Received {value!r}. Put it in quotes.")
    return value.strip()


_SCALARS: dict[Any, Any] = {
    int: _to_int,
    float: _to_float,
    bool: _to_bool,
    str: _to_str,
    Path: lambda value: Path(_to_str(value)),
}
_EXAMPLES = {int: "3", float: "0.5", bool: "true or false", tuple[int, ...]: "1,2,4"}
