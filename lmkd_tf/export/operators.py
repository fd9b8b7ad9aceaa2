# SPDX-License-Identifier: Apache-2.0
"""The one table of operators: what a step graph may hold, and what runs it exactly.

The export refuses an operator that is not listed, and the generator of the firmware has an int8
kernel for every one that is; tests hold both, and every figure, against the interpreters.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Operator:
    """What is known of an operator.

    Args:
        tflite_steps: Largest difference of TFLite's reference kernels from TFLite Micro,
            which is the golden one, in steps of int8; 0 where both give the same bits.
        tflite_steps_int16: The same for 16-bit activations; None where a runtime lacks it.
    """

    tflite_steps: int = 0
    tflite_steps_int16: int | None = 0


OPERATORS: dict[str, Operator] = {
    "ADD": Operator(),
    "AVERAGE_POOL_2D": Operator(),
    "CONCATENATION": Operator(),
    "CONV_2D": Operator(),
    "DEPTHWISE_CONV_2D": Operator(),
    "EXPAND_DIMS": Operator(),
    # The two runtimes round the product of scales in double and in float.
    "FULLY_CONNECTED": Operator(tflite_steps=1, tflite_steps_int16=1),
    "LOGISTIC": Operator(),
    "MAX_POOL_2D": Operator(),
    "MUL": Operator(tflite_steps_int16=1),
    "PAD": Operator(),
    "PADV2": Operator(tflite_steps_int16=None),
    "QUANTIZE": Operator(),
    "RELU": Operator(tflite_steps_int16=1),
    "RESHAPE": Operator(),
    "SLICE": Operator(),
    "SPLIT": Operator(),
    "SPLIT_V": Operator(),
    "SQUEEZE": Operator(),
    "STRIDED_SLICE": Operator(),
    "SUB": Operator(),
    "TANH": Operator(),
    "TRANSPOSE": Operator(),
    "TRANSPOSE_CONV": Operator(),
}

_RECURRENCE = "Write the recurrence as plain layers with explicit state, as docs/streaming.md says."
_EXPLICIT_STATE = "Make the state an input and an output of the step graph."
# Operator -> (why it is refused, what to use instead).
REFUSED: dict[str, tuple[str, str]] = {
    "WHILE": ("TFLite Micro computes loops wrongly", _RECURRENCE),
    "IF": ("a branch has no place in a graph of fixed work", _RECURRENCE),
    "CALL_ONCE": ("state in resource variables cannot be copied", _EXPLICIT_STATE),
    "VAR_HANDLE": ("state in resource variables cannot be copied", _EXPLICIT_STATE),
    "READ_VARIABLE": ("state in resource variables cannot be copied", _EXPLICIT_STATE),
    "ASSIGN_VARIABLE": ("state in resource variables cannot be copied", _EXPLICIT_STATE),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("CMSIS-NN clears its state at every call", _RECURRENCE),
    "LSTM": ("CMSIS-NN clears its state at every call", _RECURRENCE),
    "UNIDIRECTIONAL_SEQUENCE_RNN": ("its state is hidden in the graph", _RECURRENCE),
    "SVDF": ("its state is hidden in the graph", _RECURRENCE),
    "CUSTOM": (
        "a custom or flex operator has no kernel on a microcontroller",
        "Use layers whose operators are in the list, and no tf.* calls without one.",
    ),
    "DEQUANTIZE": (
        "a value leaves the integers",
        "Give every layer a range, or move the layer out of the network.",
    ),
    "RELU6": (
        "TFLite Micro computes a separate RELU6 wrongly",
        "Put it right behind a convolution, which absorbs it.",
    ),
    "LEAKY_RELU": ("its int16 kernels differ and the generated C has none", "Use ReLU."),
    "PRELU": ("it has no int16 kernel and the generated C has none", "Use ReLU."),
    "HARD_SWISH": ("it has no int16 kernel and the generated C has none", "Use ReLU."),
    "ELU": ("TFLite Micro does not register it", "Use ReLU."),
    "GELU": ("TFLite Micro does not register it", "Use ReLU."),
    "LOG": ("TFLite Micro has no int8 kernel of it", "Compress outside of the network."),
    "SQRT": ("TFLite Micro has no int8 kernel of it", "Compress outside of the network."),
    "RSQRT": (
        "it comes from layer normalization, which int8 does not survive",
        "Use batch normalization, which is folded into the layer before it.",
    ),
    "MEAN": ("the generated C has no kernel of it", "Use AveragePooling2D with a fixed window."),
}


def tflite_steps(operators: tuple[str, ...] | list[str], dtype: str) -> int:
    """Returns how many steps TFLite's reference may differ from TFLM at one operator.

    Args:
        operators: Names of the operators of a graph.
        dtype: Type of its activations, `"int8"` or `"int16"`.

    Returns:
        0 if the two runtimes give the same bits for every operator of the graph.
    """
    entries = [OPERATORS[name] for name in operators]
    steps = [e.tflite_steps if dtype == "int8" else e.tflite_steps_int16 for e in entries]
    return max((step or 0 for step in steps), default=0)
