# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from lmkd_tf.config import loader
from lmkd_tf.config.schema import ExperimentConfig, StftConfig

CONFIG = """
import dataclasses
from lmkd_tf.config.schema import ExperimentConfig

def get_config():
    return dataclasses.replace(ExperimentConfig(), name="from_file")
"""


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    is_on: bool = False
    shape: tuple[int, ...] = (1, 2)
    span: tuple[float, float] = (0.0, 1.0)
    taps: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()
    limit: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    callback: object = None


@dataclass(frozen=True)
class Outer:
    name: str = "outer"
    count: int = 3
    folder: Path = Path("runs")
    inner: Inner = field(default_factory=Inner)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(CONFIG)
    return path


def test_load_returns_what_get_config_returns(config_file):
    assert loader.load(config_file).name == "from_file"


def test_load_applies_overrides(config_file):
    config = loader.load(config_file, ["distill.mixup_alpha=0.4", "seed=7"])
    assert (config.distill.mixup_alpha, config.seed) == (0.4, 7)


def test_load_of_missing_file_names_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Received .*nowhere\.py, which does not exist"):
        loader.load(tmp_path / "nowhere.py")


def test_load_of_file_without_get_config_is_refused(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("seed = 1\n")
    with pytest.raises(ValueError, match=r"must define `get_config\(\)`\. Received .*empty\.py"):
        loader.load(path)


def test_load_of_wrong_return_type_is_refused(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("def get_config():\n    return {'seed': 1}\n")
    with pytest.raises(TypeError, match=r"must return an ExperimentConfig\. Received dict"):
        loader.load(path)


def test_load_of_file_that_is_not_python_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(ValueError, match=r"must be a Python file\. Received .*config\.yaml"):
        loader.load(path)


def test_load_lets_a_file_import_its_neighbor_and_forgets_it(tmp_path):
    for number in ("first", "second"):
        folder = tmp_path / number / "my_configs"
        folder.mkdir(parents=True)
        (folder / "base.py").write_text(CONFIG.replace("from_file", number))
        (folder / "child.py").write_text("from my_configs.base import get_config\n")
    names = [
        loader.load(tmp_path / number / "my_configs" / "child.py").name
        for number in ("first", "second")
    ]
    assert names == ["first", "second"]
    assert not [name for name in sys.modules if name.startswith("my_configs")]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("inner.rate=3e-4", 3e-4),
        ("inner.rate=1", 1.0),
        ("inner.is_on=true", True),
        ("inner.is_on=False", False),
        ("inner.shape=4,8", (4, 8)),
        ("inner.shape=(4, 8)", (4, 8)),
        ("inner.shape=4", (4,)),
        ("inner.shape=(4)", (4,)),
        ("inner.shape=()", ()),
        ("inner.shape=", ()),
        ("inner.span=-1,2.5", (-1.0, 2.5)),
        ("inner.names=conv_0, conv_1", ("conv_0", "conv_1")),
        ("inner.taps=[('a', 'b'), ('c', 'd')]", (("a", "b"), ("c", "d"))),
        ("inner.limit=5", 5),
        ("inner.limit=none", None),
        ("inner.mode=slow", "slow"),
        ("name=a=b", "a=b"),
        ("count = 9", 9),
        ("folder=runs/second", Path("runs/second")),
    ],
)
def test_override_is_read_with_the_type_of_its_field(override, expected):
    config = loader.apply_overrides(Outer(), [override])
    value = config
    for name in override.partition("=")[0].strip().split("."):
        value = getattr(value, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("count=ten", r"`count` must be of type int\. Received 'ten'\. Write count=3\."),
        ("count=1.5", r"`count` must be of type int\. Received '1\.5'"),
        ("inner.rate=fast", r"`inner\.rate` must be of type float\. Received 'fast'"),
        ("inner.rate=nan", r"`inner\.rate` must be of type float\. Received 'nan'"),
        ("inner.is_on=1", r"`inner\.is_on` must be of type bool\. Received '1'.*true or false"),
        ("inner.shape=1,x", r"`inner\.shape` must be of type tuple\[int, \.\.\.\]"),
        ("inner.shape=(1,", r"`inner\.shape` must be of type tuple\[int, \.\.\.\]"),
        ("inner.span=1,2,3", r"`inner\.span` must be of type tuple\[float, float\]"),
        ("inner.names=(1, 2)", r"`inner\.names` must be of type tuple\[str, \.\.\.\]"),
        ("inner.mode=medium", r"`inner\.mode` must be of type .*'fast', 'slow'"),
        ("inner.callback=print", r"`inner\.callback` must be of type object"),
    ],
)
def test_override_of_wrong_type_is_refused(override, message):
    with pytest.raises(ValueError, match=message):
        loader.apply_overrides(Outer(), [override])


def test_misspelt_override_lists_near_names_and_all_names():
    with pytest.raises(
        ValueError, match=r"Received 'iner\.rat'\. Did you mean inner\.rate.*settings are: name,"
    ):
        loader.apply_overrides(Outer(), ["iner.rat=1"])


def test_override_without_its_section_names_the_whole_path():
    with pytest.raises(ValueError, match=r"Did you mean distill\.mixup_alpha\?"):
        loader.apply_overrides(ExperimentConfig(), ["mixup_alpha=1"])


def test_override_far_from_every_name_still_lists_all_names():
    with pytest.raises(ValueError, match=r"Received 'zzz'\. The settings are: name, count,"):
        loader.apply_overrides(Outer(), ["zzz=1"])


def test_override_of_a_whole_section_is_refused():
    with pytest.raises(ValueError, match=r"must name a setting\. Received 'inner'"):
        loader.apply_overrides(Outer(), ["inner=1"])


def test_override_without_value_is_refused():
    with pytest.raises(ValueError, match=r"form name=value\. Received 'count'"):
        loader.apply_overrides(Outer(), ["count"])


def test_overrides_that_depend_on_each_other_are_applied_together():
    config = loader.apply_overrides(StftConfig(), ["hop_length=128", "window_length=256"])
    assert (config.hop_length, config.window_length) == (128, 256)


def test_override_out_of_range_is_refused_by_the_schema():
    with pytest.raises(ValueError, match="mixup_alpha"):
        loader.apply_overrides(ExperimentConfig(), ["distill.mixup_alpha=-1"])


def test_overrides_leave_the_original_unchanged():
    config = Outer()
    loader.apply_overrides(config, ["inner.rate=0.9"])
    assert config == Outer()


def test_to_dict_survives_json():
    config = dataclasses.replace(Outer(), inner=Inner(taps=(("a", "b"),)))
    values = loader.to_dict(config)
    assert json.loads(json.dumps(values)) == values
    assert (values["folder"], values["inner"]["taps"]) == ("runs", [["a", "b"]])


def test_record_holds_config_seed_versions_and_commit():
    record = loader.resolve_record(ExperimentConfig(seed=5))
    assert json.loads(json.dumps(record)) == record
    assert record["config"]["stft"]["hop_length"] == 256
    assert record["seed"] == 5
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["versions"]["numpy"].count(".") >= 1
    assert "git_commit" in record


def test_git_commit_outside_a_checkout_is_none(tmp_path):
    assert loader.git_commit(tmp_path) is None


def test_git_commit_marks_a_changed_checkout(tmp_path, require_tool):
    git = [
        require_tool("git", "git"),
        "-C",
        str(tmp_path),
        "-c",
        "user.name=a",
        "-c",
        "user.email=b",
    ]
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "First"]):
        subprocess.run([*git, *arguments], check=True)
    commit = loader.git_commit(tmp_path)
    (tmp_path / "file").write_text("two")
    assert commit is not None
    assert len(commit) == 40
    assert loader.git_commit(tmp_path) == f"{commit}-dirty"


def test_misspelt_field_in_a_file_is_refused_with_near_names(tmp_path):
    path = tmp_path / "typo.py"
    path.write_text(
        "from lmkd_tf.config.schema import TrainConfig\n"
        "def get_config():\n    return TrainConfig(epocs=3)\n"
    )
    with pytest.raises(ValueError, match=r"'epocs'.*Near names: epochs"):
        loader.load(path)


def test_machine_names_its_processor_and_the_cores_of_the_process(monkeypatch):
    monkeypatch.setattr(loader.platform, "system", lambda: "Linux")
    monkeypatch.setattr(loader.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(loader.Path, "read_text", lambda _: "flags : a\nmodel name\t: Z80 A\n")
    monkeypatch.setattr(loader.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert loader.describe_machine() == "Linux x86_64, Z80 A, 2 of 8 cores"


def test_machine_without_a_list_of_processors_is_still_named(monkeypatch):
    def missing(_):
        raise FileNotFoundError

    monkeypatch.setattr(loader.Path, "read_text", missing)
    monkeypatch.setattr(loader.os, "cpu_count", lambda: None)
    monkeypatch.delattr(loader.os, "sched_getaffinity", raising=False)
    assert loader.describe_machine().endswith(", 1 of 1 cores")
