# SPDX-License-Identifier: Apache-2.0
"""Writes and checks TFRecord frames and `tf.train.Example` messages without TensorFlow.

Where a record's samples lie is then known to the byte, so they can be mapped into memory
and a worker that only writes shards need not load TensorFlow.
"""

from collections.abc import Mapping
from pathlib import Path

import google_crc32c

_HEADER_BYTES, _FOOTER_BYTES = 12, 4
FRAME_BYTES = _HEADER_BYTES + _FOOTER_BYTES
# Refuses a length field that is damaged but has, by chance, the right checksum.
_MAX_RECORD_BYTES = 2**31 - 1


def masked_crc(content: bytes) -> int:
    """Returns the CRC-32C of `content` as TFRecord stores it: rotated, plus a constant."""
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(content: bytes) -> bytes:
    """Returns `content` as one record of a TFRecord file."""
    length = len(content).to_bytes(8, "little")
    return b"".join(
        (
            length,
            masked_crc(length).to_bytes(4, "little"),
            content,
            masked_crc(content).to_bytes(4, "little"),
        )
    )


def read_record(path: Path, offset: int = 0) -> bytes:
    """Reads one record.

    Args:
        path: TFRecord file.
        offset: Where its frame begins.

    Raises:
        ValueError: If there is no whole record there, naming the file.
    """
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(_HEADER_BYTES)
        length = int.from_bytes(head[:8], "little")
        if len(head) < _HEADER_BYTES or head[8:] != masked_crc(head[:8]).to_bytes(4, "little"):
            raise damaged(path, "is no TFRecord file, or ends too early")
        body = file.read(min(length, _MAX_RECORD_BYTES) + _FOOTER_BYTES)
    content, footer = body[:length], body[length:]
    if len(body) != length + _FOOTER_BYTES or footer != masked_crc(content).to_bytes(4, "little"):
        raise damaged(path, "is truncated or damaged")
    return content


def damaged(path: Path, reason: str) -> ValueError:
    """Returns the error for a shard that cannot be used."""
    return ValueError(
        "A shard must be whole and written by lmkd-data shard. "
        f"Received {path}, which {reason}. Delete it and run lmkd-data shard again."
    )


def encode_example(features: Mapping[str, bytes | int]) -> bytes:
    """Encodes a `tf.train.Example` of byte strings and integers not below 0.

    The last feature ends the message but for nothing: a byte string given last lies at
    the very end, so its offset is the length of the message less its own.
    """
    entries = [_field(1, _field(1, name.encode()) + _field(2, _feature(value)))
               for name, value in features.items()]  # fmt: skip
    return _field(1, b"".join(entries))


def _feature(value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _field(3, b"\x08" + _varint(value))
    return _field(1, _field(1, value))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_bytes_feature(example: bytes, name: str) -> bytes | None:
    """Returns a byte-string feature of an example that `encode_example` wrote, or None."""
    try:
        for entry in _fields(_fields(example)[0][1]):
            (_, key), (_, feature) = _fields(entry[1])[:2]
            if key == name.encode():
                return _fields(_fields(feature)[0][1])[0][1]
    except (IndexError, ValueError):
        pass
    return None


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """Returns the length-delimited fields of a protocol-buffer message."""
    found, place = [], 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        length, place = _read_varint(message, place)
        if tag & 7 != 2 or place + length > len(message):
            raise ValueError(
                "A message must hold length-delimited fields. "
                f"Received tag {tag} and length {length}. Write the file again."
            )
        found.append((tag >> 3, message[place : place + length]))
        place += length
    return found


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while message[place] & 0x80:
        value |= (message[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
    return value | message[place] << shift, place + 1
