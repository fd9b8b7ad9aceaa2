# SPDX-License-Identifier: Apache-2.0
"""What a `.tflite` file says about itself, so that it can be used without its manifest."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmkd_tf.export.flatbuffer import read_graph
from lmkd_tf.export.interpreter import import_litert

METADATA_NAME = "lmkd"
METADATA_VERSION = 1
# What the schema promises for the content of a buffer. The converter's own last step packs it at
# 4, which kernels with vector loads pay for or fail on.
_ALIGNMENT_BYTES = 16


def embed_metadata(content: bytes, record: dict[str, Any]) -> bytes:
    """Writes a record into a `.tflite` file and aligns its constants.

    Args:
        content: The file; an older record in it is replaced.
        record: Plain values: transform, features, state map, network, hash of the weights.

    Returns:
        The file with the record; tensors and operators are what they were.
    """
    import flatbuffers

    schema = import_litert("schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    text = json.dumps({"version": METADATA_VERSION, **record}, sort_keys=True).encode()
    entries = [e for e in model.metadata or [] if e.name != METADATA_NAME.encode()]
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text, np.uint8)
    entry.name, entry.buffer = METADATA_NAME.encode(), len(model.buffers)
    model.buffers = [_Aligned(schema, own) for own in (*model.buffers, buffer)]
    model.metadata = [*entries, entry]
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Aligned:
    """A buffer of the schema that packs its content at `_ALIGNMENT_BYTES`."""

    def __init__(self, schema: Any, buffer: Any):
        self._schema, self._buffer = schema, buffer

    def Pack(self, builder: Any) -> Any:
        own, data = copy.copy(self._buffer), self._buffer.data
        own.data = None
        vector = None
        if data is not None and len(data):
            content = np.asarray(data, np.uint8).tobytes()
            builder.StartVector(1, len(content), _ALIGNMENT_BYTES)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
        self._schema.BufferStart(builder)
        if vector is not None:
            self._schema.BufferAddData(builder, vector)
        self._schema.BufferAddOffset(builder, own.offset)
        self._schema.BufferAddSize(builder, own.size)
        return self._schema.BufferEnd(builder)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Reads the record that the export wrote into a `.tflite` file.

    Args:
        path: `.tflite` file.

    Returns:
        The record.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no model, or one that another tool made.
    """
    content = read_graph(path).metadata.get(METADATA_NAME)
    try:
        record = json.loads(content) if content is not None else None
    except ValueError:
        record = None
    if not isinstance(record, dict) or "version" not in record:
        raise ValueError(
            "The file must hold the record of this package's export. "
            f"Received {path}, which another tool made. Export the student with lmkd-export."
        )
    if record["version"] > METADATA_VERSION:
        raise ValueError(
            f"The record in a .tflite file must be of version {METADATA_VERSION} or older. "
            f"Received {path} with version {record['version']}. Install a newer lmkd-tf."
        )
    return record
