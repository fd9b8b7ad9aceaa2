# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from lmkd_tf.export.manifest import manifest_path, read_manifest, write_manifest


def _change(exported, **entries):
    path = manifest_path(exported)
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_manifest_survives_writing_and_reading(exported):
    manifest = read_manifest(exported)
    assert write_manifest(exported, manifest) == manifest_path(exported)
    assert read_manifest(exported) == manifest


def test_read_manifest_without_the_model_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist. Check the path or run lmkd-exp"):
        read_manifest(tmp_path / "absent.tflite")


def test_read_manifest_without_the_manifest_names_it(exported):
    manifest_path(exported).unlink()
    with pytest.raises(FileNotFoundError, match=r"tcn_int8\.manifest\.json.*does not exist"):
        read_manifest(exported)


def test_read_manifest_refuses_the_manifest_of_another_model(road, exported):
    manifest_path(exported).write_bytes(manifest_path(road.int16).read_bytes())
    with pytest.raises(ValueError, match=r"must belong together.*Export the student again"):
        read_manifest(exported)


def test_read_manifest_refuses_a_truncated_model(exported):
    exported.write_bytes(exported.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must belong together"):
        read_manifest(exported)


def test_read_manifest_refuses_damaged_json(exported):
    path = manifest_path(exported)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"must hold valid JSON.*which is damaged"):
        read_manifest(exported)


@pytest.mark.parametrize("content", ["[]", "{}", '{"name": "nano"}', "3"])
def test_read_manifest_refuses_other_json(exported, content):
    manifest_path(exported).write_text(content)
    with pytest.raises(ValueError, match="must have the entries of this version"):
        read_manifest(exported)


def test_read_manifest_refuses_an_unknown_entry(exported):
    _change(exported, flavor="vanilla")
    with pytest.raises(ValueError, match=r"must have the entries of this version.*flavor"):
        read_manifest(exported)


@pytest.mark.parametrize("model", [{}, {"sha256": None}, []])
def test_read_manifest_refuses_a_manifest_without_a_digest(exported, model):
    _change(exported, model=model)
    with pytest.raises(ValueError, match=r"must belong together|must have the entries"):
        read_manifest(exported)


def test_read_manifest_refuses_a_newer_version(exported):
    _change(exported, version=99)
    with pytest.raises(ValueError, match=r"version 2 or older.*of version 99\. Install a newer"):
        read_manifest(exported)


def test_manifest_of_the_first_version_is_still_read(exported):
    path = manifest_path(exported)
    record = json.loads(path.read_text())
    newer = ("version", "network", "calibration", "arena", "tflite_steps", "has_c_kernels")
    path.write_text(json.dumps({k: v for k, v in record.items() if k not in newer}))
    manifest = read_manifest(exported)
    assert manifest.version == 1
    assert manifest.has_c_kernels
