# SPDX-License-Identifier: Apache-2.0
"""What keeps a recurrence good in int8: ways to train and to calibrate it, at an equal budget.

Usage:
  ./x bench recurrence --data=FOLDER [--workdir=runs/recurrence] [--steps=1200] [--tuning=300]
                       [--clips=20] [--table=FILE]

One `gru` is trained in float for --steps. Every way then goes on from it for --tuning steps with
the same recordings, among them the control, which just goes on in float. Rows are those of the
quality ledger: scores on clips of the test split and, in dB, the gains of the row before over
their difference. Finished trainings are kept, so an interrupted run goes on where it stopped;
one of other settings or recordings is made anew.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags

from lmkd_tf.cli.common import config_path, run_program

# What holds the state, or is added to it, and the range that 16 bits give to the state.
_STATE_VALUES = ("difference", "change", "state")
_STATE_RANGE_16 = (-1.0, 1.0 - 2.0**-15)
# One int8 step of the state, whose range is [-1, 1): the width of the noise on it.
_STATE_STEP = 1.0 / 128.0
_LENGTH = 4  # of the longer crops, of which there are as many fewer
# Parts of the configuration that a training depends on: the first one, and those that go on.
_START_PARTS = ("data", "loss", "network_training")
_TUNING_PARTS = (*_START_PARTS, "distill", "compress")


def main(arguments: list[str]) -> None:
    """Runs the program."""
    del arguments
    from lmkd_tf.cli.ledger import to_markdown

    values = flags.FLAGS
    study = Study(_config(values), Path(values.data), Path(values.workdir))
    with tempfile.TemporaryDirectory() as scratch:
        table = to_markdown(study.measure(Path(scratch), values.clips), 0.0)
    if values.table:
        Path(values.table).write_text(table, encoding="utf-8")
    sys.stdout.write(table)


def _config(values: flags.FlagValues) -> Any:
    from lmkd_tf.config.loader import load
    from lmkd_tf.config.schema import ModelConfig

    config = load(config_path(values.config), values.override)
    start = replace(config.network_training, epochs=1, steps_per_epoch=values.steps)
    tuning = replace(
        start,
        steps_per_epoch=values.tuning,
        learning_rate=start.learning_rate / 10,
        weight_decay=0.0,
    )
    return replace(
        config,
        network=ModelConfig("gru"),
        student=ModelConfig("gru"),
        network_training=start,
        # The distiller trains what is fake-quantized, here without a teacher.
        distill=replace(config.distill, method="no_kd", taps=(("encoder", "block_0", "block_0"),)),
        compress=replace(config.compress, quantization=tuning),
    )


class Study:
    """Trains one recurrence, goes on with it in every way, and scores what each exports.

    Args:
        config: Configuration of a recurrence as `network` and `student`.
        data: Folder with speech/ and noise/.
        workdir: Folder for the trained networks.
    """

    def __init__(self, config: Any, data: Path, workdir: Path):
        from lmkd_tf.cli.stages import core_builder
        from lmkd_tf.cli.train_stages import Audio

        self._config, self._workdir = config, workdir
        self._audio = Audio(data, config)
        self._build = core_builder(config.network)
        self._tuning = config.compress.quantization

    def measure(self, scratch: Path, num_clips: int) -> list[Any]:
        """Returns the measured rows of the ledger.

        Args:
            scratch: Folder for the exports.
            num_clips: Clips of the test split.
        """
        from lmkd_tf.cli.ledger import Ledger

        self._workdir.mkdir(parents=True, exist_ok=True)
        self._scratch = scratch
        ledger = Ledger(self._config, self._audio, scratch, num_clips)
        start = self._float("float")
        steps = [ledger.start_from(start), *self._without_training(start)]
        for name in ("trained on in float", "trained on with noise on the state"):
            steps += self._calibrated(self._float(name), name)
        name = "trained on with int8 kernels"
        steps += self._calibrated(self._with_int8_kernels(name), name)
        steps += self._quantized("trained on fake-quantized", 1)
        steps += self._quantized(f"trained on fake-quantized, {_LENGTH} x as long crops", _LENGTH)
        ledger.measure(steps, 0.0)
        return steps

    def fake_quantized(self, network: Any, at_16_bits: tuple[str, ...]) -> Any:
        """Returns the twin with calibrated ranges.

        Args:
            network: Recurrence in float.
            at_16_bits: Values within a step, names in `ROUNDED`, that have 16 bits.
        """
        from lmkd_tf.compress.quantization import calibrate_ranges, quantize
        from lmkd_tf.compress.recurrence import recurrences_of
        from lmkd_tf.compress.twin import make_twin

        twin = make_twin(self._build, network.core)
        quantized = quantize(twin)
        noisy = (views["first_view"] for views, _ in self._audio.validation(self._tuning))
        calibrate_ranges(quantized, twin, (network.analyze(batch)[0] for batch in noisy))
        for _, recurrence in recurrences_of(quantized) if at_16_bits else ():
            recurrence.num_bits |= dict.fromkeys(at_16_bits, 16)
            for variable, end in zip(recurrence.limits_of("state"), _STATE_RANGE_16, strict=True):
                variable.assign(end)
        return quantized

    def _without_training(self, start: Any) -> Iterator[Any]:
        from lmkd_tf.cli.ledger import Step, whole_gains

        yield self._exported(start, "float", "int8")
        yield self._exported(start, "float", "int16")
        for name, values in (("all at 8 bits", ()), ("the state at 16", _STATE_VALUES)):
            quantized = self.fake_quantized(start, values)
            yield Step(f"fake-quantized, {name}", whole_gains(quantized), "float")

    def _calibrated(self, network: Any, name: str) -> Iterator[Any]:
        """Yields a float network and its export with ranges of real frames."""
        from lmkd_tf.cli.ledger import Step, whole_gains

        yield Step(name, whole_gains(network.core))
        yield self._exported(network, name, "int8")

    def _exported(self, network: Any, name: str, dtype: str) -> Any:
        from lmkd_tf.cli.ledger import Step, exported_gains
        from lmkd_tf.cli.stages import draw_calibration
        from lmkd_tf.export.tflite import to_tflite

        path = self._scratch / f"{_file_name(name)}_{dtype}.tflite"
        drawn = draw_calibration(self._config, self._audio, network)
        to_tflite(network.core, path, **self._network, dtype=dtype, calibration=drawn)
        return Step(f"{name}: {dtype}, calibrated", exported_gains(path, "tflm"), name)

    def _quantized(self, name: str, length: int) -> Iterator[Any]:
        """Yields a network trained with every value rounded, and its export."""
        from lmkd_tf.cli.ledger import Step, exported_gains, whole_gains
        from lmkd_tf.export.tflite import to_tflite

        quantized, weights = self._trained_quantized(name, length, num_bits=8)
        path = self._scratch / f"{_file_name(name)}.tflite"
        to_tflite(weights, path, **self._network)
        yield Step(name, whole_gains(quantized))
        yield Step(f"{name}: int8", exported_gains(path, "tflm"), name)

    @property
    def _network(self) -> dict[str, Any]:
        from lmkd_tf.cli.train_stages import build_network

        network, config = build_network(self._config.network, self._config), self._config
        return {
            "architecture": config.network.architecture,
            "size": network.size,
            "stft": config.stft,
        }

    def _float(self, name: str) -> Any:
        """Returns the recurrence trained in float, or trained on from there."""
        from lmkd_tf.cli.train_stages import save_model
        from lmkd_tf.models.enhancer import load_enhancer

        path = self._workdir / f"{_file_name(name)}.keras"
        parts = _START_PARTS if name == "float" else _TUNING_PARTS
        self._keep(path, parts, lambda: save_model(self._trained(name), path))
        return load_enhancer(path)

    def _keep(self, path: Path, parts: tuple[str, ...], make: Callable[[], None]) -> None:
        """Makes a file, unless it is there and was made with the same settings."""
        from lmkd_tf.cli.road import network_settings, settings_of
        from lmkd_tf.config.files import read_json, write_json

        network, record = self._config.network, path.with_name(f"{path.name}.json")
        settings = settings_of(self._config, self._audio.corpus, parts)
        settings |= network_settings(network.architecture, network.size)
        if path.is_file() and record.is_file() and read_json(record) == settings:
            return
        record.unlink(missing_ok=True)  # it must not vouch for a file that is half made
        make()
        write_json(record, settings)

    def _trained(self, name: str) -> Any:
        from lmkd_tf.cli.train_stages import build_seeded

        network = build_seeded(self._config.network, self._config)
        if name == "float":
            self._fit(name, network, self._config.network_training)
            return network
        network.core.set_weights(self._float("float").core.get_weights())
        if "noise" in name:
            _add_noise(network.core)
        self._fit(name, network, self._tuning)
        return network

    def _fit(self, name: str, network: Any, train: Any) -> None:
        from lmkd_tf.cli.progress import Progress, ProgressCallback
        from lmkd_tf.cli.train_stages import build_loss
        from lmkd_tf.cli.training import fit_stage, make_optimizer

        network.compile(optimizer=make_optimizer(train), loss=build_loss(self._config))
        pairs = self._audio.training(train, 0, is_joined=True)
        validation = self._audio.validation(train, is_joined=True)
        with Progress(name) as progress, tempfile.TemporaryDirectory() as folder:
            watchers = [ProgressCallback(progress)]
            fit_stage(network, pairs, validation, train, Path(folder), watchers, is_resumable=False)

    def _with_int8_kernels(self, name: str) -> Any:
        """Trains on with int8 kernels and activations that are all but float."""
        from lmkd_tf.cli.train_stages import build_network
        from lmkd_tf.compress.sensitivity import dequantized_core

        quantized, _ = self._trained_quantized(name, 1, num_bits=16)
        network = build_network(self._config.network, self._config)
        network.core.set_weights(dequantized_core(self._build, quantized).get_weights())
        return network

    def _trained_quantized(self, name: str, length: int, num_bits: int) -> tuple[Any, Path]:
        """Trains on with fake quantization; crops are `length` times as long."""
        from lmkd_tf.compress.quantization import load_quantized

        path = self._workdir / f"{_file_name(name)}.weights.h5"

        def make() -> None:
            self._fit_quantized(name, length, num_bits).save_weights(str(path))

        self._keep(path, _TUNING_PARTS, make)
        return load_quantized(self._build, path), path

    def _fit_quantized(self, name: str, length: int, num_bits: int) -> Any:
        from lmkd_tf.cli.progress import Progress, ProgressCallback
        from lmkd_tf.cli.stages import Inputs, fit_twin
        from lmkd_tf.compress.quantization import set_activation_bits

        start, data = self._float("float"), self._config.data
        quantized = self.fake_quantized(start, ())
        set_activation_bits(quantized, num_bits)
        train = replace(self._tuning, batch_size=max(1, self._tuning.batch_size // length))
        data = replace(data, crop_seconds=data.crop_seconds * length)
        config = replace(self._config, data=data)
        with Progress(name) as progress, tempfile.TemporaryDirectory() as folder:
            inputs, watchers = Inputs(start, start, None), [ProgressCallback(progress)]
            audio = self._audio.with_config(config)
            fit_twin(config, audio, Path(folder), inputs, quantized, train, watchers)
        return quantized


def _add_noise(core: Any) -> None:
    """Adds to the state of every step what rounding to int8 would: noise of one step's width."""
    import tensorflow as tf

    def with_noise(state: Any) -> Any:
        half = _STATE_STEP / 2
        return state + tf.random.uniform(tf.shape(state), -half, half)

    core.get_layer("gru").round_state = with_noise


def _file_name(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def run() -> None:
    """Entry point."""
    flags.DEFINE_string("config", "supervised", "Configuration: a file, or a name in configs/.")
    flags.DEFINE_multi_string("override", [], "Setting to change.")
    flags.DEFINE_string("data", None, "Folder with speech/ and noise/.", required=True)
    flags.DEFINE_string("workdir", "runs/recurrence", "Folder for the trained networks.")
    flags.DEFINE_integer("steps", 1200, "Optimizer steps in float.", lower_bound=1)
    flags.DEFINE_integer("tuning", 300, "Optimizer steps of every way.", lower_bound=1)
    flags.DEFINE_integer("clips", 20, "Clips that are scored.", lower_bound=1)
    flags.DEFINE_string("table", None, "Markdown file to write.")
    names = ("data", "workdir", "steps", "tuning", "clips", "table")
    run_program(main, __doc__ or "", names)


if __name__ == "__main__":
    run()
