# SPDX-License-Identifier: Apache-2.0
"""Child process of `lmkd_tf.export.tflite`: the only import of the converter.

Some graphs crash the converter with a segmentation fault, which must not take
the training process along.
"""

import functools
import sys
from typing import Any

import numpy as np

from lmkd_tf.config.files import read_json, write_bytes
from lmkd_tf.models.builder import build_core


def main(request_path: str) -> None:
    """Converts what a request file asks for.

    Args:
        request_path: JSON with `ranges` (where they come from: "trained", "calibrated", or for
            phones "float16" and "weights"), `dtype`, `architecture`, `size`, `weights`,
            `calibration` (frames, for "calibrated") and `output`.
    """
    request = read_json(request_path)
    build = functools.partial(build_core, request["architecture"], **request["size"])
    convert = {
        "trained": _convert_trained,
        "calibrated": _convert_calibrated,
        "float16": _convert_for_phone,
        "weights": _convert_for_phone,
    }[request["ranges"]]
    write_bytes(request["output"], convert(build, request))


def _convert_trained(build: Any, request: dict[str, Any]) -> bytes:
    """Converts a quantization-aware core: its ranges are the quantization."""
    import tensorflow as tf

    from lmkd_tf.compress.quantization import load_quantized, quantized_step

    quantized = load_quantized(build, request["weights"])
    return _converter(quantized_step(build, quantized), tf.int8).convert()


def _convert_calibrated(build: Any, request: dict[str, Any]) -> bytes:
    """Converts a float core whose activations get the ranges of real frames."""
    import tensorflow as tf

    types = {"int8": tf.int8, "int16": tf.int16}
    operators = {
        "int8": tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        "int16": tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
    }
    step = _float_step(build, request)
    features = np.load(request["calibration"])
    converter = _converter(step, types[request["dtype"]])
    converter.representative_dataset = lambda: _calibration_samples(step, features)
    converter.target_spec.supported_ops = [operators[request["dtype"]]]
    return converter.convert()


def _convert_for_phone(build: Any, request: dict[str, Any]) -> bytes:
    """Converts a float core with float activations and float16 or int8 weights."""
    import tensorflow as tf

    converter = _converter(_float_step(build, request), tf.float32)
    if request["ranges"] == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _converter(step: Any, kind: Any) -> Any:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(step)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = kind
    converter.inference_output_type = kind
    return converter


def _float_step(build: Any, request: dict[str, Any]) -> Any:
    from lmkd_tf.compress.twin import make_step_twin

    core = build()
    with np.load(request["weights"]) as stored:
        core.set_weights([stored[str(index)] for index in range(len(stored.files))])
    return make_step_twin(build, core)


def _calibration_samples(step: Any, features: np.ndarray) -> Any:
    """Yields one sample per frame by input name, with the state carried along."""
    import tensorflow as tf

    run = tf.function(lambda *values: step(list(values), training=False))
    names = [tensor.name for tensor in step.inputs]
    states = [np.zeros([int(n) for n in t.shape], np.float32) for t in step.inputs[1:]]
    for frame in features:
        values = [frame.reshape(1, 1, 1, -1).astype(np.float32), *states]
        yield dict(zip(names, values, strict=True))
        states = [np.asarray(state) for state in run(*values)[1:]]


if __name__ == "__main__":
    main(sys.argv[1])
