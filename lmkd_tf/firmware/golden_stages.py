# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of every stage over many frames, as plain files that any language reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import band_features
from lmkd_tf.dsp.mask import apply_band_mask
from lmkd_tf.dsp.pcm import float_to_int16, int16_to_float
from lmkd_tf.dsp.stft import inverse_stft, stft
from lmkd_tf.export.interpreter import StepModel
from lmkd_tf.firmware.vectors import golden_signal

NUM_FRAMES = 1000
# The transforms are float and sum in another order on every machine.
_FEATURE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Stage:
    """Golden values of one stage.

    Args:
        name: Name of the stage and of its file.
        values: Values, one row per hop.
        source: Stage whose golden values are its input.
        max_difference: Largest difference that passes, in units of the values.
        comment: What they are.
    """

    name: str
    values: np.ndarray
    source: str | None
    max_difference: float
    comment: str

    @property
    def file(self) -> str:
        """Name of the file: little-endian values, row by row."""
        return f"{self.name}.bin"

    @property
    def record(self) -> dict[str, Any]:
        """What `vectors.json` says of it."""
        return {
            "file": self.file,
            "dtype": str(self.values.dtype),
            "shape": list(self.values.shape),
            "computed_from": self.source,
            "max_difference": self.max_difference,
            "comment": self.comment,
        }


def golden_stages(
    model_path: str | Path, num_frames: int = NUM_FRAMES, codes: np.ndarray | None = None
) -> list[Stage]:
    """Runs the test signal through every stage, the network in TFLM.

    Args:
        model_path: `.tflite` file with its manifest beside it.
        num_frames: Hops.
        codes: Features as integers `(num_frames, E)` to go on from, instead of those computed
            here, of which single ones differ on a machine that sums in another order.

    Returns:
        The stages from samples to samples, and the state after the last hop.

    Raises:
        ImportError: If TFLM is not installed.
    """
    step = StepModel(model_path, "tflm")
    config = step.manifest.stft_config
    samples = golden_signal(num_frames, config.hop_length)
    signal = int16_to_float(samples)
    matrix = erb_matrix(config, step.manifest.num_bands)
    spectrum = stft(signal[None], config)
    features = np.asarray(ops.convert_to_numpy(band_features(spectrum, matrix)))[0]
    own_codes = step.quantize(features)
    codes = own_codes[:num_frames] if codes is None else codes
    masks = [step.step_quantized(frame) for frame in codes]
    last = {name: value.ravel().copy() for name, value in step.states.items()}
    # The last frame reaches beyond the signal: no stage holds it.
    masks = np.stack([*masks, *map(step.step_quantized, own_codes[num_frames:])])
    masked = apply_band_mask(spectrum, step.dequantize_mask(masks)[None], matrix)
    enhanced = np.asarray(inverse_stft(masked, config, len(signal)))[0]
    hops = float_to_int16(enhanced).reshape(num_frames, -1)
    return [
        Stage("samples", samples.reshape(num_frames, -1), None, 0, "input, one row per hop"),
        Stage(
            "features", features[:num_frames], "samples", _FEATURE_TOLERANCE, "band features, float"
        ),
        Stage("codes", own_codes[:num_frames], "features", 0, "features as integers"),
        Stage("masks", masks[:num_frames], "codes", 0, "gains as integers, TFLite Micro"),
        # The output of a hop comes out with the next one.
        Stage("output", hops[: num_frames - 1], "masks", 1, "enhanced speech, hop t from frame t"),
        *(
            Stage(f"{name}_last", value, "codes", 0, "state after the last frame")
            for name, value in last.items()
        ),
    ]
