# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.data import tfrecord


def test_tensorflow_reads_what_is_written(tmp_path):
    import tensorflow as tf

    contents = [b"", b"one", bytes(range(256)) * 300]
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(tfrecord.frame(content) for content in contents))
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(path))] == contents


def test_what_tensorflow_writes_is_read(tmp_path):
    import tensorflow as tf

    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"first")
        writer.write(b"second")
    assert tfrecord.read_record(path) == b"first"
    assert tfrecord.read_record(path, 5 + tfrecord.FRAME_BYTES) == b"second"


def test_examples_are_those_of_protocol_buffers():
    import tensorflow as tf

    content = bytes(range(256)) * 1000
    encoded = tfrecord.encode_example({"id": "ü/1".encode(), "samples": 300, "pcm": content})
    feature = tf.train.Example.FromString(encoded).features.feature
    assert feature["id"].bytes_list.value[0].decode() == "ü/1"
    assert feature["samples"].int64_list.value[0] == 300
    assert feature["pcm"].bytes_list.value[0] == content
    assert encoded.endswith(content)


def test_bytes_feature_is_found_again_and_a_foreign_message_gives_none():
    encoded = tfrecord.encode_example({"header": b"x" * 500})
    assert tfrecord.decode_bytes_feature(encoded, "header") == b"x" * 500
    for foreign in (encoded[:-3], b"", b"\x00\x01\x02", b"plain text of some length"):
        assert tfrecord.decode_bytes_feature(foreign, "header") is None
    assert tfrecord.decode_bytes_feature(encoded, "other") is None


@pytest.mark.parametrize("cut", [3, 11, 14, 19])
def test_truncated_record_is_refused_by_name(tmp_path, cut):
    path = tmp_path / "cut.tfrecord"
    path.write_bytes(tfrecord.frame(b"content")[:cut])
    with pytest.raises(ValueError, match=r"Received .*cut\.tfrecord"):
        tfrecord.read_record(path)


@pytest.mark.parametrize("place", [0, 9, 13, 21])
def test_one_flipped_bit_is_found(tmp_path, place):
    content = bytearray(tfrecord.frame(b"content"))
    content[place] ^= 4
    path = tmp_path / "flipped.tfrecord"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.tfrecord"):
        tfrecord.read_record(path)
