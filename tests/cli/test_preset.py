# SPDX-License-Identifier: Apache-2.0
import hashlib
import json

import pytest

from lmkd_tf.cli.preset import _start_of, public_command


@pytest.fixture
def workdir(tmp_path):
    """A work directory with a trained network."""
    folder = tmp_path / "network"
    folder.mkdir()
    content = b"weights"
    (folder / "network.keras").write_bytes(content)
    (folder / "history.json").write_text('{"loss": [2.0, 1.5]}')
    files = {"network.keras": hashlib.sha256(content).hexdigest()}
    record = {"fingerprint": "", "seconds": 12.0, "files": files, "settings": {"seed": 0}}
    run = {"command": "lmkd-train --data=/a/b --workdir=c", "git_commit": "12ab", "seed": 3}
    (folder / "record.json").write_text(json.dumps({**run, "machine": "M", "versions": {"x": "1"}}))
    (folder / "stage.json").write_text(json.dumps(record))
    return tmp_path


def test_record_holds_the_training_that_a_student_started_from(workdir):
    digest = hashlib.sha256(b"weights").hexdigest()
    found = _start_of({"settings": {"student_start": digest}}, workdir)
    run = {"git_commit": "12ab", "machine": "M", "versions": {"x": "1"}}
    assert found == {
        "seconds": 12.0,
        "run": {"command": "lmkd-train --data=b --workdir=c", **run},
        "settings": {"seed": 0},
        "last_epoch": {"loss": 1.5},
    }


def test_recorded_commands_name_no_folder_of_the_machine():
    given = "lmkd-x --data=/a/b/c --override=data.x=2 --teacher=/t.keras,/u/v.keras ../rel/file"
    expected = "lmkd-x --data=c --override=data.x=2 --teacher=t.keras,v.keras ../rel/file"
    assert public_command(given) == expected


def test_recorded_commands_name_programs_that_users_have():
    assert public_command("/a/cli/train.py --data=/b/c.py") == "lmkd-train --data=c.py"


def test_another_network_than_the_student_started_from_is_refused(workdir):
    message = r"`--start` must hold the network that the student started from\. Received "
    with pytest.raises(ValueError, match=message):
        _start_of({"settings": {"student_start": "0" * 64}}, workdir)
    with pytest.raises(ValueError, match=message):
        _start_of({"settings": {}}, workdir)
