# SPDX-License-Identifier: Apache-2.0
"""From noisy speech to enhanced speech around any band-mask network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.dsp.erb import erb_matrix
from lmkd_tf.dsp.features import band_features
from lmkd_tf.dsp.mask import apply_band_mask
from lmkd_tf.dsp.stft import inverse_stft, stft
from lmkd_tf.models.taps import TappedModel


@keras.saving.register_keras_serializable(package="lmkd_tf")
class SpeechEnhancer(keras.Model):
    """Enhances waveforms: STFT, band features, `core`, mask, inverse STFT.

    Args:
        core: Network from features `(B, T, 1, E)` to a mask `(B, T, 1, E)`. A
            Keras 3 model, or its `tf_keras` twin while it is compressed (a twin
            is not tracked: save the twin itself then).
        stft: Frame of the transform; a `StftConfig` or its fields as a dict.
        architecture: Name in `lmkd_tf.models.ARCHITECTURES` of the builder of the core, which
            also builds its step graph; None if the model never streams.
        size: Size arguments that the builder got.

    Input shape:
        Noisy speech in [-1, 1], `(B, N)`.

    Output shape:
        Enhanced speech, `(B, N)`.
    """

    def __init__(
        self,
        core: Any,
        stft: StftConfig | dict | None = None,
        *,
        architecture: str | None = None,
        size: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        # Signals and transforms stay in float32 when the core computes in half precision.
        super().__init__(**{"autocast": False, **kwargs})
        self.core = core
        self.stft = StftConfig(**stft) if isinstance(stft, dict) else stft or StftConfig()
        self.architecture, self.size = architecture, dict(size or {})
        self._prepare()
        self.built = True

    def _prepare(self) -> None:
        """Makes what lies around the core."""
        self.num_bands = self._count_bands()
        self._matrix = erb_matrix(self.stft, self.num_bands)

    def _count_bands(self) -> int:
        return int(self.core.input_shape[-1])

    def step_graph(self) -> Any:
        """Returns the graph of one hop with explicit state, with a copy of the weights.

        Its inputs are the features `(1, 1, 1, E)` and the states, which start at zero; its
        outputs the mask and the states of the next hop, in the same order.

        Raises:
            ValueError: If the architecture of the core is not known, so nothing can build it.
        """
        from lmkd_tf.models.builder import build_core

        if self.architecture is None:
            raise ValueError(
                "A model streams by the step graph of its architecture. "
                "Received a SpeechEnhancer without one. Make it with lmkd_tf.models.build, or pass "
                "`architecture` and `size`."
            )
        step = build_core(self.architecture, is_step=True, **self.size)
        step.set_weights(self.core.get_weights())
        return step

    def features(self, spectrum):
        """Returns features `(B, T, 1, E)` of a spectrum `(B, T, F, 2)`."""
        return band_features(spectrum, self._matrix)[:, :, None]

    def analyze(self, noisy) -> tuple[Any, Any]:
        """Returns features `(B, T, 1, E)` and spectrum `(B, T, F, 2)` of `(B, N)`."""
        check_samples(noisy)
        spectrum = stft(ops.cast(noisy, "float32"), self.stft)
        return self.features(spectrum), spectrum

    def synthesize(self, spectrum, mask, num_samples):
        """Returns `(B, N)` from a spectrum `(B, T, F, 2)` and a mask `(B, T, 1, E)`."""
        mask = ops.cast(mask[:, :, 0], "float32")
        masked = apply_band_mask(spectrum, mask, self._matrix)
        return inverse_stft(masked, self.stft, num_samples)

    def call(self, noisy, training: bool = False):
        """Enhances noisy speech `(B, N)`."""
        features, spectrum = self.analyze(noisy)
        mask = self.core(features, training=training)
        return self.synthesize(spectrum, mask, _num_samples(noisy))

    def tapped(self, layer_names: list[str], cut_names: Sequence[str] = ()) -> "TappedEnhancer":
        """Returns this model cut at named layers of its core."""
        return TappedEnhancer(self, layer_names, cut_names)

    def save(self, filepath, *args, **kwargs) -> None:
        """Saves as `keras.Model.save` does, which would empty the file before it finds a fault.

        Raises:
            ValueError: As `get_config`; the file is as it was before.
        """
        self.get_config()
        super().save(filepath, *args, **kwargs)

    def get_config(self) -> dict:
        """Returns the constructor arguments as plain values.

        Raises:
            ValueError: If the core is no Keras 3 model, whose weights would be missing in a file.
        """
        if not isinstance(self.core, keras.Model):
            raise ValueError(
                "A SpeechEnhancer is saved with the weights of its core, a Keras 3 model. "
                f"Received a core of {type(self.core).__module__.split('.')[0]}, which Keras does "
                "not save. Save the core: model.core.save_weights('core.weights.h5')."
            )
        frame = {name: getattr(self.stft, name) for name in self.stft.__dataclass_fields__}
        core = keras.saving.serialize_keras_object(self.core)
        builder = {"architecture": self.architecture, "size": dict(self.size)}
        return {**super().get_config(), "core": core, "stft": frame, **builder}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "SpeechEnhancer":
        """Builds the model from `get_config`."""
        core = keras.saving.deserialize_keras_object(config["core"], custom_objects=custom_objects)
        size = dict(config.get("size") or {})
        if "bottleneck_dilations" in size:  # a file from before there were recurrences has none
            size = {"recurrent_channels": 0, **size}
        return cls(**{**config, "core": core, "size": size})


def load_enhancer(path: str | Path) -> SpeechEnhancer:
    """Loads a `.keras` file of a `SpeechEnhancer`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"A trained model is needed. Received {path}, which does not exist. "
            "Check the path or train the model first."
        )
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many types for a damaged archive
        if "safe_mode" in str(error):
            raise ValueError(
                "A model file must not carry code. "
                f"Received {path} with a Lambda layer, which is not run. "
                "Build the network from layers, and trust no file that needs its code."
            ) from error
        raise ValueError(
            f"The file must hold a Keras model. Received {path}, which cannot be read "
            f"({type(error).__name__}). Restore the file or train it again."
        ) from error
    if not isinstance(model, SpeechEnhancer):
        raise ValueError(
            "The file must hold a SpeechEnhancer. "
            f"Received {path} with a {type(model).__name__}. Use a file written by lmkd-train."
        )
    return model


class TappedEnhancer:
    """The `TappedModel` of a `SpeechEnhancer`: cuts its core, keeps its ends."""

    def __init__(
        self, enhancer: SpeechEnhancer, layer_names: Sequence[str], cut_names: Sequence[str] = ()
    ):
        self._enhancer = enhancer
        self._core = TappedModel(enhancer.core, layer_names, cut_names)
        self.shapes = self._core.shapes
        self.num_segments = self._core.num_segments
        self.stft = enhancer.stft

    @property
    def trainable_variables(self) -> list[Any]:
        """Variables that the optimizer may change."""
        return self._core.trainable_variables

    def start(self, noisy) -> tuple[Any, list[Any]]:
        """Returns features and the context `[noisy, spectrum]` of noisy speech `(B, N)`."""
        features, spectrum = self._enhancer.analyze(noisy)
        return features, [noisy, spectrum]

    def run(self, segment: int, x, context: list[Any], training: bool) -> tuple[list[Any], Any]:
        """Runs one segment; after the last one `x` is speech `(B, N)`."""
        noisy, spectrum = context
        # Of a mixed spectrum the features are taken anew: they are not linear in the input.
        latents, x = self._core.run(segment, x, [self._enhancer.features(spectrum)], training)
        if segment == self.num_segments - 1:
            x = self._enhancer.synthesize(spectrum, x, _num_samples(noisy))
        return latents, x


def check_samples(noisy: Any) -> None:
    """Refuses what is no float speech `(B, N)`; Keras casts no integers before a model is called.

    Args:
        noisy: Array or tensor, symbolic or not.

    Raises:
        TypeError: If the samples are not float.
        ValueError: If they have not two axes.
    """
    dtype = keras.backend.standardize_dtype(noisy.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise TypeError(
            "Speech must be float in [-1, 1]. "
            f"Received dtype {dtype}. "
            "Convert int16 samples with lmkd_tf.dsp.pcm.int16_to_float first."
        )
    if len(noisy.shape) != 2:
        raise ValueError(
            "Speech must have the shape (B, N), one row per recording. "
            f"Received shape {tuple(noisy.shape)}. "
            "Use samples[None] for one recording, and one row per channel."
        )


def _num_samples(samples):
    return samples.shape[1] if samples.shape[1] is not None else ops.shape(samples)[1]
