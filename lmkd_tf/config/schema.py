# SPDX-License-Identifier: Apache-2.0
"""Typed settings of an experiment; every range is checked when it is built."""

from dataclasses import dataclass, field
from itertools import product
from typing import Any


def _require(condition: bool, rule: str, received: str, remedy: str) -> None:
    if not condition:
        raise ValueError(f"{rule} Received {received}. {remedy}")


def _require_fraction(name: str, value: float) -> None:
    _require(
        0.0 <= value < 1.0, f"`{name}` must lie in [0, 1).", f"{value}", "Use for example 0.5."
    )


def _require_positive(name: str, value: float) -> None:
    _require(value > 0, f"`{name}` must be positive.", f"{value}", "Use a value above zero.")


def _require_at_least(name: str, value: float, lowest: float) -> None:
    _require(value >= lowest, f"`{name}` must be at least {lowest}.", f"{value}", f"Use {lowest}.")


def _require_positive_or_none(name: str, value: float | None) -> None:
    _require_positive(name, 1 if value is None else value)


@dataclass(frozen=True)
class StftConfig:
    """Frame of the short-time Fourier transform, shared by Python, manifest and C.

    Args:
        sample_rate_hz: Sampling rate, in Hz.
        window_length: Square-root Hann window, in samples.
        hop_length: Advance from frame to frame, in samples.
        fft_length: Transform length, in samples.

    Raises:
        ValueError: If overlap-add would not reproduce the input exactly.
    """

    sample_rate_hz: int = 16000
    window_length: int = 512
    hop_length: int = 256
    fft_length: int = 512

    def __post_init__(self) -> None:
        for name in ("sample_rate_hz", "window_length", "hop_length", "fft_length"):
            _require_positive(name, getattr(self, name))
        _require(
            2 * self.hop_length == self.window_length,
            "`hop_length` must be half of `window_length` so that overlap-add is exact.",
            f"hop_length={self.hop_length}, window_length={self.window_length}",
            f"Use {self.window_length // 2}.",
        )
        _require(
            self.fft_length >= self.window_length and self.fft_length % 2 == 0,
            "`fft_length` must be even and cover the window.",
            f"fft_length={self.fft_length}, window_length={self.window_length}",
            f"Use {self.window_length}.",
        )

    @property
    def num_bins(self) -> int:
        """Frequency bins of the one-sided spectrum."""
        return self.fft_length // 2 + 1


_LOWEST_DATA = {"crop_seconds": 0.1, "max_noises": 2, "early_ms": 0.0}
_DATA_CHOICES = {"speech_level": ("frames", "p56"), "sampling": ("random", "epochs")}


@dataclass(frozen=True)
class DataConfig:
    """What training pairs and evaluation clips are made of.

    Args:
        crop_seconds: Length of a training crop, in s.
        snr_min_db: Lowest signal-to-noise ratio drawn, in dB.
        snr_max_db: Highest signal-to-noise ratio drawn, in dB.
        level_min_dbfs: Lowest level of the noisy pair, in dBFS.
        level_max_dbfs: Highest level of the noisy pair, in dBFS.
        speech_level: How the level of speech is measured: `"frames"` or `"p56"` (ITU-T P.56).
        sampling: `"random"` crops, or `"epochs"`: all speech once before any comes again.
        max_noises: Most noises at once, at least 2.
        noise_speeds: Speeds, pitch and all, at which every recording of noise is drawn.
        room_probability: Share of training pairs in a room.
        early_ms: Early reverberation that stays in the clean target, in ms.
        num_simulated_rooms: Rooms to simulate where the corpus has no responses.
        clip_probability: Share of noisy views that are clipped.
        band_limit_probability: Share of pairs that are low-pass filtered.
        speed_probability: Share of pairs whose speech is 10 % faster or slower.
        speech_tilt_probability: Share of pairs whose speech has its spectrum tilted.
        room_tone_probability: Share of pairs whose target keeps a noise 25 to 45 dB below it.
        codec_probability: Share of noisy views that pass a codec.
        codecs: Codecs to draw from: `"ulaw"`, `"vorbis"`, `"opus"`.
        num_validation_batches: Batches of the `valid` split after each epoch.
        evaluation_snrs_db: Ratios of the fixed evaluation clips, in dB.
        num_evaluation_clips: Clips of the `test` split that are scored.
    """

    crop_seconds: float = 2.0
    snr_min_db: float = -5.0
    snr_max_db: float = 20.0
    level_min_dbfs: float = -40.0
    level_max_dbfs: float = -12.0
    speech_level: str = "frames"
    sampling: str = "random"
    max_noises: int = 2
    noise_speeds: tuple[float, ...] = (1.0,)
    room_probability: float = 0.0
    early_ms: float = 50.0
    num_simulated_rooms: int = 200
    clip_probability: float = 0.0
    band_limit_probability: float = 0.0
    speed_probability: float = 0.0
    speech_tilt_probability: float = 0.0
    room_tone_probability: float = 0.0
    codec_probability: float = 0.0
    codecs: tuple[str, ...] = ("ulaw", "vorbis")
    num_validation_batches: int = 8
    evaluation_snrs_db: tuple[float, ...] = (-5.0, 0.0, 5.0, 10.0, 15.0)
    num_evaluation_clips: int = 50

    def __post_init__(self) -> None:
        for name in ("num_validation_batches", "num_evaluation_clips", "num_simulated_rooms"):
            _require_positive(f"data.{name}", getattr(self, name))
        for name, lowest in _LOWEST_DATA.items():
            _require_at_least(f"data.{name}", getattr(self, name), lowest)
        for name, known in _DATA_CHOICES.items():
            _require(
                getattr(self, name) in known,
                f"`data.{name}` must be one of {', '.join(known)}.",
                f"{getattr(self, name)!r}",
                f"Use {known[0]!r}.",
            )
        for name in ("room", "clip", "band_limit", "speed", "speech_tilt", "room_tone", "codec"):
            name = f"{name}_probability"
            _require(
                0.0 <= getattr(self, name) <= 1.0,
                f"`data.{name}` must lie in [0, 1].",
                f"{getattr(self, name)}",
                "Use 0 to switch it off.",
            )
        _require(
            len(self.codecs) > 0 and {*self.codecs} <= {"ulaw", "vorbis", "opus"},
            "`data.codecs` must hold names out of ulaw, vorbis, opus.",
            f"{self.codecs}",
            "Use for example ulaw,vorbis.",
        )
        _require(
            len(self.noise_speeds) > 0 and all(0.5 <= s <= 2.0 for s in self.noise_speeds),
            "`data.noise_speeds` must hold factors from 0.5 to 2.",
            f"{self.noise_speeds}",
            "Use for example 0.8,1.0,1.25.",
        )
        for low, high in (("snr_min_db", "snr_max_db"), ("level_min_dbfs", "level_max_dbfs")):
            _require(
                getattr(self, low) <= getattr(self, high),
                f"`data.{low}` must not exceed `data.{high}`.",
                f"{getattr(self, low)} and {getattr(self, high)}",
                "Swap the two values.",
            )
        _require(
            self.level_max_dbfs <= 0.0,
            "`data.level_max_dbfs` must not exceed full scale, 0 dBFS.",
            f"{self.level_max_dbfs}",
            "Use for example -12.0.",
        )
        _require(
            len(self.evaluation_snrs_db) > 0,
            "`data.evaluation_snrs_db` must hold at least one ratio.",
            f"{self.evaluation_snrs_db}",
            "Use for example (0.0, 10.0).",
        )


# Sizes of a network that structured pruning can make smaller.
SHRINKABLE = (
    "num_bands",
    "channels",
    "bands_per_position",
    "encoder_channels",
    "squeeze_channels",
    "bottleneck_channels",
)


@dataclass(frozen=True)
class ModelConfig:
    """One network; a size that is None is the architecture's own.

    Args:
        architecture: Name in `lmkd_tf.models.ARCHITECTURES`.
        num_bands: Number of frequency bands.
        channels: Width of the blocks.
        dilations: Dilation of each block, in frames; 0 for a recurrence.
        bands_per_position: Of a network on a grid, as all that follow: see `build_grid`.
        encoder_channels: Width of the encoder.
        squeeze_channels: Width of each position on its way into the bottleneck.
        bottleneck_channels: Width of the bottleneck.
        bottleneck_dilations: Dilation of each block of the bottleneck, in frames.
        recurrent_channels: Width of the recurrence at the end of the bottleneck; 0 for none.
    """

    architecture: str = "nano"
    num_bands: int | None = None
    channels: int | None = None
    dilations: tuple[int, ...] | None = None
    bands_per_position: int | None = None
    encoder_channels: int | None = None
    squeeze_channels: int | None = None
    bottleneck_channels: int | None = None
    bottleneck_dilations: tuple[int, ...] | None = None
    recurrent_channels: int | None = None

    def __post_init__(self) -> None:
        for name in SHRINKABLE:
            _require_positive_or_none(name, getattr(self, name))
        for name in ("dilations", "bottleneck_dilations"):
            value = getattr(self, name)
            _require(
                value is None or min(value, default=0) >= 0,
                f"`{name}` must hold numbers of frames, 0 for a recurrence.",
                f"{value}",
                "Use for example (1, 2, 4, 8).",
            )
        _require(
            self.dilations != () or self.architecture != "tcn",
            "`dilations` must hold at least one block of `tcn`.",
            "()",
            "Use for example (1, 2, 4, 8).",
        )
        _require(
            self.recurrent_channels is None or self.recurrent_channels >= 0,
            "`recurrent_channels` must not be negative.",
            f"{self.recurrent_channels}",
            "Use for example 32, or 0 for no recurrence.",
        )

    @property
    def size(self) -> dict[str, Any]:
        """Size arguments that differ from the architecture's own."""
        sizes = {name: getattr(self, name) for name in self.__dataclass_fields__}
        sizes.pop("architecture")
        return {name: value for name, value in sizes.items() if value is not None}


# What a stage may choose its best epoch by -> whether more of it is better.
MONITORS = {"val_loss": False, "val_pesq_wb": True, "val_si_sdr_db": True}


@dataclass(frozen=True)
class TrainConfig:
    """Length and pace of one training stage.

    Args:
        epochs: Number of epochs.
        steps_per_epoch: Optimizer steps per epoch.
        batch_size: Pairs per step.
        learning_rate: Highest learning rate of the cosine schedule.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Decoupled weight decay (AdamW).
        clip_norm: Largest global norm of the gradient.
        ema_momentum: Momentum of the moving average of the weights that is validated and
            saved, such as 0.999; 0 saves the weights themselves.
        num_scored_clips: Clips of the `valid` split that are scored by PESQ and SI-SDR after
            every epoch; 0 scores none.
        monitor: Value in `MONITORS` whose best epoch is saved, or `""`: the last epoch is.
        patience: Epochs without a better value after which the stage ends; 0 never ends it.
        metric_weight: Weight of a discriminator that learns PESQ (`MetricTrainer`); 0 has
            none. For networks that train without a teacher.
    """

    epochs: int = 10
    steps_per_epoch: int = 100
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 1e-4
    clip_norm: float = 5.0
    ema_momentum: float = 0.0
    num_scored_clips: int = 0
    monitor: str = ""
    patience: int = 0
    metric_weight: float = 0.0

    def __post_init__(self) -> None:
        _require_fraction("ema_momentum", self.ema_momentum)
        for name in ("epochs", "steps_per_epoch", "batch_size", "learning_rate", "clip_norm"):
            _require_positive(name, getattr(self, name))
        for name in (
            *("warmup_steps", "weight_decay", "num_scored_clips", "patience"),
            "metric_weight",
        ):
            _require(
                getattr(self, name) >= 0,
                f"`{name}` must not be negative.",
                f"{getattr(self, name)}",
                "Use 0 to switch it off.",
            )
        _require(
            self.monitor in ("", *MONITORS),
            f"`monitor` must be one of {', '.join(MONITORS)}, or empty.",
            f"{self.monitor!r}",
            "Use for example 'val_pesq_wb'.",
        )
        _require(
            self.num_scored_clips > 0 or self.monitor in ("", "val_loss"),
            "`monitor` must name a value that there is: scores need `num_scored_clips`.",
            f"monitor={self.monitor!r}, num_scored_clips=0",
            "Use num_scored_clips=8, or monitor='val_loss'.",
        )
        _require(
            self.patience == 0 or self.monitor != "",
            "`patience` must have a value to wait for, in `monitor`.",
            f"patience={self.patience}, monitor=''",
            "Use for example monitor='val_loss'.",
        )


@dataclass(frozen=True)
class LossConfig:
    """The supervised loss of teacher and student; see `lmkd_tf.SpeechLoss`.

    Args:
        exponent: Magnitude compression, in (0, 1].
        magnitude_weight: Weight of the compressed magnitudes.
        complex_weight: Weight of the compressed spectra.
        si_sdr_weight: Weight of SI-SDR, per dB.
        waveform_weight: Weight of the absolute error of the samples.
        resolutions: Windows of further transforms, in samples.
        magnitude_asymmetry: From -1, where among the magnitudes only what is too loud counts, to
            1, where only what is too soft does.
        pesq_shaped_weight: Weight of `PesqShapedLoss`. Scores of networks trained with
            it never go into one column with those of others.
    """

    exponent: float = 0.3
    magnitude_weight: float = 0.7
    complex_weight: float = 0.3
    si_sdr_weight: float = 0.01
    waveform_weight: float = 0.0
    resolutions: tuple[int, ...] = ()
    magnitude_asymmetry: float = 0.0
    pesq_shaped_weight: float = 0.0

    def __post_init__(self) -> None:
        _require(
            -1.0 <= self.magnitude_asymmetry <= 1.0,
            "`loss.magnitude_asymmetry` must lie in [-1, 1].",
            f"{self.magnitude_asymmetry}",
            "Use 0.0 to weigh both directions alike.",
        )
        for name in (n for n in self.__dataclass_fields__ if n.endswith("_weight")):
            _require(
                getattr(self, name) >= 0,
                f"`loss.{name}` must not be negative.",
                f"{getattr(self, name)}",
                "Use 0 to switch a term off.",
            )
        _require(
            0.0 < self.exponent <= 1.0,
            "`loss.exponent` must lie in (0, 1].",
            f"{self.exponent}",
            "Use 0.3 for the usual compression.",
        )
        _require(
            all(window >= 2 and window % 2 == 0 for window in self.resolutions),
            "`loss.resolutions` must be even window lengths in samples.",
            f"{self.resolutions}",
            "Use for example (256, 1024).",
        )


@dataclass(frozen=True)
class DistillConfig:
    """The distillation objective; symbols as in `docs/formula.md`.

    `method` names a whole objective in `lmkd_tf.distill.METHODS`, such as "latent_mixup",
    "fitnets" or "no_kd". A setting that is None is the method's own; what each means,
    `lmkd_tf.distill.Objective` says, which also checks names and combinations.

    Args:
        method: Name of the method.
        taps: Triples `(name, teacher_layer, student_layer)`, input to output.
        mixup_alpha: λ ~ Beta(mixup_alpha, mixup_alpha). Reconstructed.
        distillation_weight: Factor on all terms but the supervised one; 0 trains the
            plain student on the same pairs.
        pairing: Which signals are mixed.
        mixing: Where the mixture is made.
        propagation: Which network decodes the mixed latent.
        mix_tap: Tap that is mixed.
        lambda_law: Law of λ.
        lambda_range: Range of the uniform law.
        granularity: What has a λ of its own.
        mix_prob: Share of the examples that is mixed.
        distance: Distance of the latents.
        projector: From the student's width to the teacher's.
        tap_weights: Weight c_l of each tap.
        position_weight: Weight of each frame.
        noise_specific_weight: ρ of the control without λ.
        output_loss: Distance of the outputs.
        mixed_weight: Weight w_m of the decoded mixed latent. Reconstructed.
        latent_weight: Weight w_f of the latent distance. Reconstructed.
        output_weight: Weight w_o of output distillation. Reconstructed.
        schedule: How the weights change over the steps.
        schedule_steps: Steps until the schedule is through.
    """

    method: str = "latent_mixup"
    taps: tuple[tuple[str, str, str], ...] = (
        ("bottleneck", "bottleneck", "bottleneck"),
        ("decoder", "decoder", "decoder"),
    )
    mixup_alpha: float = 1.0
    distillation_weight: float = 1.0
    pairing: str | None = None
    mixing: str | None = None
    propagation: str | None = None
    mix_tap: str | None = None
    lambda_law: str | None = None
    lambda_range: tuple[float, float] | None = None
    granularity: str | None = None
    mix_prob: float | None = None
    distance: str | None = None
    projector: str | None = None
    tap_weights: tuple[float, ...] | None = None
    position_weight: str | None = None
    noise_specific_weight: float | None = None
    output_loss: str | None = None
    mixed_weight: float | None = None
    latent_weight: float | None = None
    output_weight: float | None = None
    schedule: str | None = None
    schedule_steps: int | None = None

    def __post_init__(self) -> None:
        _require_positive("distill.mixup_alpha", self.mixup_alpha)
        _require(
            self.distillation_weight >= 0,
            "`distill.distillation_weight` must not be negative.",
            f"{self.distillation_weight}",
            "Use 0 to switch distillation off.",
        )

    @property
    def changes(self) -> dict[str, Any]:
        """Settings that differ from the method's own."""
        own = ("method", "taps", "mixup_alpha", "distillation_weight")
        settings = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {n: v for n, v in settings.items() if n not in own and v is not None}


# Fewer do not fill the memory of a student and leave its ranges to chance.
MIN_CALIBRATION_FRAMES = 100
_PRUNING_CHOICES = {
    "pattern": ("unstructured", "1x4", "1x16", "2:4"),
    "schedule": ("polynomial", "constant"),
}


@dataclass(frozen=True)
class CompressConfig:
    """Pruning and quantization-aware training.

    Args:
        channels: Width of the blocks that structured pruning leaves before anything else; None
            leaves it alone.
        sparsity: Share of zeros in every pruned kernel, in [0, 1). With 0 and no size given
            there is nothing to prune, and the student goes on as it is.
        pattern: Where zeros may lie: `"unstructured"`, `"1x4"`, `"1x16"` or `"2:4"`.
        schedule: How the share grows: `"polynomial"` or `"constant"`.
        excluded: Layers that are not pruned.
        pruning: Training during pruning.
        quantization: Training with fake quantization.
        num_calibration_frames: Frames for post-training int16x8 calibration, at least 100.
        num_bands: Bands that structured pruning leaves, coarser than before; None: all.
        bands_per_position: The same for a network on a grid, as all that follow; only together
            with a smaller `num_bands`.
        encoder_channels: Width of the encoder that structured pruning leaves.
        squeeze_channels: Width of each position on its way into the bottleneck.
        bottleneck_channels: Width of the bottleneck.
    """

    channels: int | None = None
    sparsity: float = 0.5
    pattern: str = "unstructured"
    schedule: str = "polynomial"
    excluded: tuple[str, ...] = ()
    pruning: TrainConfig = field(default_factory=TrainConfig)
    quantization: TrainConfig = field(default_factory=TrainConfig)
    num_calibration_frames: int = 1000
    num_bands: int | None = None
    bands_per_position: int | None = None
    encoder_channels: int | None = None
    squeeze_channels: int | None = None
    bottleneck_channels: int | None = None

    def __post_init__(self) -> None:
        _require_fraction("compress.sparsity", self.sparsity)
        for name, setting in product(
            ("pruning", "quantization"), ("ema_momentum", "num_scored_clips", "monitor")
        ):
            value = getattr(getattr(self, name), setting)
            _require(
                not value,
                f"`compress.{name}.{setting}` must be left alone: the weights of an average or "
                "of an earlier epoch are not as sparse or have other ranges than the last ones.",
                f"{value!r}",
                "Set it for the stages before.",
            )
        for name in SHRINKABLE:
            _require_positive_or_none(f"compress.{name}", getattr(self, name))
        for name, known in _PRUNING_CHOICES.items():
            _require(
                getattr(self, name) in known,
                f"`compress.{name}` must be one of {', '.join(known)}.",
                f"{getattr(self, name)!r}",
                f"Use {known[0]!r}.",
            )
        _require(
            self.pattern != "2:4" or (self.sparsity == 0.5 and self.schedule == "constant"),
            "The pattern 2:4 has half of the weights zero from the first step on.",
            f"sparsity={self.sparsity}, schedule={self.schedule!r}",
            "Use 0.5 and 'constant'.",
        )
        name = "compress.num_calibration_frames"
        _require_at_least(name, self.num_calibration_frames, MIN_CALIBRATION_FRAMES)

    @property
    def size(self) -> dict[str, int]:
        """Size arguments that structured pruning makes smaller."""
        sizes = {name: getattr(self, name) for name in SHRINKABLE}
        return {name: value for name, value in sizes.items() if value is not None}


@dataclass(frozen=True)
class ExperimentConfig:
    """A whole experiment, from corpus to exported student.

    Args:
        name: Name in records and reports.
        seed: Seed of weights, pairs and λ.
        stft: Frame of the transform.
        data: Training pairs and evaluation clips.
        teacher_preset: Trained teacher to load instead of training one, or `""`.
        teacher: Network of the teacher.
        student: Network of the student.
        student_start: `.keras` file of the same network whose weights the student starts
            from, or `""`.
        teacher_training: Training of the teacher.
        distillation_training: Training of the student.
        network: Network that `lmkd-train --network` trains on its own.
        network_start: `.keras` file of the same network to start from, or `""`.
        network_start_is_partial: Whether that file may hold another network, of which only the
            layers of the same name and shape are taken; the others start from random weights.
        network_training: Training of that network.
        loss: Supervised loss.
        distill: Distillation objective.
        compress: Pruning and quantization-aware training.
    """

    name: str = "default"
    seed: int = 0
    stft: StftConfig = field(default_factory=StftConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher_preset: str = ""
    teacher: ModelConfig = field(default_factory=lambda: ModelConfig(architecture="base"))
    student: ModelConfig = field(default_factory=ModelConfig)
    student_start: str = ""
    teacher_training: TrainConfig = field(default_factory=TrainConfig)
    distillation_training: TrainConfig = field(default_factory=TrainConfig)
    network: ModelConfig = field(default_factory=ModelConfig)
    network_start: str = ""
    network_start_is_partial: bool = False
    network_training: TrainConfig = field(default_factory=TrainConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    compress: CompressConfig = field(default_factory=CompressConfig)

    def __post_init__(self) -> None:
        _require(
            self.stft.sample_rate_hz == 16000,
            "`stft.sample_rate_hz` must be 16000: the scores and the presets know no other rate.",
            f"{self.stft.sample_rate_hz}",
            "Use 16000; recordings of any rate are resampled.",
        )
        _require(
            not self.teacher_preset or self.teacher == ModelConfig(self.teacher_preset),
            "`teacher` must be left alone when `teacher_preset` names a trained one.",
            f"teacher_preset={self.teacher_preset!r}, {self.teacher}",
            "Set teacher_preset to an empty text to train a teacher of your own.",
        )
        _require(
            bool(self.network_start) or not self.network_start_is_partial,
            "`network_start_is_partial` needs a `network_start`.",
            "network_start=''",
            "Name the file to start from.",
        )
        for name, train in (
            ("distillation_training", self.distillation_training),
            ("compress.pruning", self.compress.pruning),
            ("compress.quantization", self.compress.quantization),
        ):
            _require(
                train.metric_weight == 0.0,
                f"`{name}.metric_weight` must be 0: only a network without a teacher trains "
                "against a metric discriminator.",
                f"{train.metric_weight}",
                "Set it in teacher_training or network_training.",
            )
