# SPDX-License-Identifier: Apache-2.0
import dataclasses
from typing import Any

import pytest

from lmkd_tf.config.schema import (
    SHRINKABLE,
    CompressConfig,
    DataConfig,
    DistillConfig,
    ExperimentConfig,
    LossConfig,
    ModelConfig,
    StftConfig,
    TrainConfig,
)
from lmkd_tf.data.mixing import MixSettings
from lmkd_tf.models.builder import ARCHITECTURES


def make(config: Any, values: dict[str, Any]) -> Any:
    return config(**values)


@pytest.mark.parametrize("name", ["sample_rate_hz", "window_length", "hop_length", "fft_length"])
@pytest.mark.parametrize("value", [0, -16])
def test_stft_lengths_must_be_positive(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be positive\. Received {value}\. Use"):
        make(StftConfig, {name: value})


@pytest.mark.parametrize("hop", [128, 200, 255, 512])
def test_hop_must_be_half_of_the_window(hop):
    with pytest.raises(ValueError, match=f"`hop_length` must be half .*={hop}, .*=512. Use 256."):
        StftConfig(hop_length=hop)


@pytest.mark.parametrize("fft_length", [510, 513])
def test_fft_must_be_even_and_cover_the_window(fft_length):
    with pytest.raises(ValueError, match=f"`fft_length` must be even .*fft_length={fft_length}"):
        StftConfig(fft_length=fft_length)


@pytest.mark.parametrize(("fft_length", "num_bins"), [(512, 257), (1024, 513)])
def test_num_bins_is_half_the_transform_plus_one(fft_length, num_bins):
    assert StftConfig(fft_length=fft_length).num_bins == num_bins


@pytest.mark.parametrize("name", ["num_validation_batches", "num_evaluation_clips"])
@pytest.mark.parametrize("value", [0, -1])
def test_data_counts_must_be_positive(name, value):
    with pytest.raises(ValueError, match=rf"`data\.{name}` must be positive\. Received {value}\."):
        make(DataConfig, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "lowest"),
    [("crop_seconds", 0.05, 0.1), ("max_noises", 1, 2), ("early_ms", -1.0, 0.0)],
)
def test_data_that_cannot_be_mixed_is_refused(name, value, lowest):
    message = rf"`data\.{name}` must be at least {lowest}\. Received {value}\. Use {lowest}\."
    with pytest.raises(ValueError, match=message):
        make(DataConfig, {name: value})
    settings = MixSettings(**{name: lowest})  # what the schema lets pass can be mixed
    assert getattr(settings, name) == getattr(make(DataConfig, {name: lowest}), name)


def test_data_above_full_scale_is_refused():
    with pytest.raises(ValueError, match=r"`data\.level_max_dbfs` must not exceed .*Received 1\.0"):
        DataConfig(level_max_dbfs=1.0)
    assert DataConfig(level_max_dbfs=0.0).level_max_dbfs == 0.0


@pytest.mark.parametrize(
    ("low", "high"), [("snr_min_db", "snr_max_db"), ("level_min_dbfs", "level_max_dbfs")]
)
def test_data_ranges_must_not_be_upside_down(low, high):
    message = rf"`data\.{low}` must not exceed `data\.{high}`\. Received 1\.0 and -1\.0\. Swap"
    with pytest.raises(ValueError, match=message):
        make(DataConfig, {low: 1.0, high: -1.0})


@pytest.mark.parametrize(("name", "value"), [("speech_level", "loud"), ("sampling", "all")])
def test_data_choices_are_listed(name, value):
    with pytest.raises(ValueError, match=rf"`data\.{name}` must be one of .*Received '{value}'"):
        make(DataConfig, {name: value})


@pytest.mark.parametrize(
    "name",
    [
        f"{effect}_probability"
        for effect in ("room", "clip", "band_limit", "speed", "speech_tilt", "codec")
    ],
)
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_data_shares_must_be_shares(name, value):
    with pytest.raises(
        ValueError, match=rf"`data\.{name}` must lie in \[0, 1\]\. Received {value}"
    ):
        make(DataConfig, {name: value})


@pytest.mark.parametrize("speeds", [(), (1.0, 2.1), (0.4,)])
def test_speeds_of_noise_are_factors(speeds):
    with pytest.raises(ValueError, match=r"`data\.noise_speeds` must hold factors.*Received \("):
        DataConfig(noise_speeds=speeds)
    assert DataConfig(noise_speeds=(0.5, 2.0)).noise_speeds == (0.5, 2.0)


@pytest.mark.parametrize("codecs", [(), ("ulaw", "mp3")])
def test_codecs_are_listed(codecs):
    with pytest.raises(ValueError, match=r"`data\.codecs` must hold names out of ulaw.*Received"):
        DataConfig(codecs=codecs)


def test_data_range_of_one_value_is_allowed():
    assert DataConfig(snr_min_db=5.0, snr_max_db=5.0).snr_min_db == 5.0


def test_data_of_low_ratios_and_high_levels_can_be_asked_for():
    data = DataConfig(snr_min_db=-5.0, snr_max_db=20.0, level_min_dbfs=-40.0, level_max_dbfs=-5.0)
    assert (data.snr_max_db, data.level_max_dbfs) == (20.0, -5.0)


def test_evaluation_needs_at_least_one_ratio():
    with pytest.raises(ValueError, match=r"`data\.evaluation_snrs_db` must hold at least one"):
        DataConfig(evaluation_snrs_db=())


@pytest.mark.parametrize("name", SHRINKABLE)
def test_model_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=rf"`{name}` must be positive\. Received 0\."):
        make(ModelConfig, {name: 0})


@pytest.mark.parametrize("name", ["dilations", "bottleneck_dilations"])
def test_dilations_must_not_be_negative(name):
    with pytest.raises(ValueError, match=rf"`{name}` must hold numbers of frames.*\(1, -2\)"):
        make(ModelConfig, {name: (1, -2)})


def test_a_network_has_at_least_one_block_but_its_bottleneck_may_have_none():
    with pytest.raises(ValueError, match="`dilations` must hold at least one block"):
        ModelConfig("tcn", dilations=())
    assert ModelConfig(dilations=(0,), bottleneck_dilations=()).size["bottleneck_dilations"] == ()


def test_a_recurrence_has_no_negative_width():
    with pytest.raises(ValueError, match=r"`recurrent_channels` must not be negative.*-1"):
        ModelConfig(recurrent_channels=-1)


def test_model_size_holds_only_what_differs_from_the_architecture():
    assert ModelConfig().size == {}
    assert ModelConfig(channels=8, dilations=(1,)).size == {"channels": 8, "dilations": (1,)}
    assert ModelConfig(squeeze_channels=4).size == {"squeeze_channels": 4}


def test_every_size_of_a_student_can_be_recorded():
    for name in ("nano", "tcn", "gru"):
        size = ARCHITECTURES[name][1]
        assert ModelConfig(name, **size).size == size


def test_compress_size_holds_what_structured_pruning_makes_smaller():
    assert CompressConfig().size == {}
    compress = CompressConfig(channels=8, bottleneck_channels=16)
    assert compress.size == {"channels": 8, "bottleneck_channels": 16}


@pytest.mark.parametrize(
    "name", ["epochs", "steps_per_epoch", "batch_size", "learning_rate", "clip_norm"]
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_training_lengths_and_pace_must_be_positive(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be positive\. Received {value}\."):
        make(TrainConfig, {name: value})


@pytest.mark.parametrize("name", ["warmup_steps", "weight_decay"])
def test_warmup_and_weight_decay_must_not_be_negative(name):
    with pytest.raises(ValueError, match=rf"`{name}` must not be negative\. Received -1\. Use 0"):
        make(TrainConfig, {name: -1})
    make(TrainConfig, {name: 0})


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_momentum_of_averaged_weights_must_be_a_fraction(momentum):
    message = rf"`ema_momentum` must lie in \[0, 1\)\. Received {momentum}\."
    with pytest.raises(ValueError, match=message):
        TrainConfig(ema_momentum=momentum)


@pytest.mark.parametrize("name", ["num_scored_clips", "patience"])
def test_counts_of_validation_must_not_be_negative(name):
    with pytest.raises(ValueError, match=rf"`{name}` must not be negative\. Received -1\. Use 0"):
        make(TrainConfig, {name: -1})


def test_the_best_epoch_is_told_by_a_value_that_there_is():
    with pytest.raises(ValueError, match=r"`monitor` must be one of val_loss.*Received 'pesq'"):
        TrainConfig(monitor="pesq")
    message = r"scores need `num_scored_clips`\. Received monitor='val_pesq_wb', num_.*=0\. Use"
    with pytest.raises(ValueError, match=message):
        TrainConfig(monitor="val_pesq_wb")
    with pytest.raises(ValueError, match=r"`patience` must have a value to wait for.*patience=3"):
        TrainConfig(patience=3)
    assert TrainConfig(monitor="val_loss", patience=3).patience == 3


@pytest.mark.parametrize("name", ["pruning", "quantization"])
@pytest.mark.parametrize(
    "settings",
    [{"ema_momentum": 0.999}, {"num_scored_clips": 4}, {"monitor": "val_loss"}],
)
def test_compressed_weights_are_those_of_the_last_step(name, settings):
    ((setting, value),) = settings.items()
    message = rf"`compress\.{name}\.{setting}` must be left alone.*Received {value!r}\. Set it for"
    with pytest.raises(ValueError, match=message):
        make(CompressConfig, {name: make(TrainConfig, settings)})


@pytest.mark.parametrize("alpha", [0.0, -0.5])
def test_mixup_alpha_must_be_positive(alpha):
    with pytest.raises(ValueError, match=rf"`distill\.mixup_alpha` must be .* Received {alpha}\."):
        DistillConfig(mixup_alpha=alpha)


def test_distillation_weight_must_not_be_negative_but_may_be_zero():
    message = r"`distill\.distillation_weight` must not be negative\..*Use 0"
    with pytest.raises(ValueError, match=message):
        DistillConfig(distillation_weight=-0.1)
    assert DistillConfig(distillation_weight=0.0).distillation_weight == 0.0


def test_changes_are_the_settings_that_are_not_left_to_the_method():
    assert DistillConfig(method="fitnets", mixup_alpha=0.4).changes == {}
    config = DistillConfig(distance="cosine", mixed_weight=0.0)
    assert config.changes == {"distance": "cosine", "mixed_weight": 0.0}


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 2.0])
def test_sparsity_must_be_a_fraction(sparsity):
    message = rf"`compress\.sparsity` must lie in \[0, 1\)\. Received {sparsity}\."
    with pytest.raises(ValueError, match=message):
        CompressConfig(sparsity=sparsity)


@pytest.mark.parametrize("count", [0, 99])
def test_calibration_needs_frames(count):
    message = rf"`compress\.num_calibration_frames` must be at least 100\. Received {count}\."
    with pytest.raises(ValueError, match=message):
        CompressConfig(num_calibration_frames=count)
    assert CompressConfig(num_calibration_frames=100).num_calibration_frames == 100


@pytest.mark.parametrize("exponent", [-0.1, 0.0, 1.1, 2.0])
def test_exponent_of_the_loss_compresses(exponent):
    message = rf"`loss\.exponent` must lie in \(0, 1\]\. Received {exponent}\. Use 0\.3"
    with pytest.raises(ValueError, match=message):
        LossConfig(exponent=exponent)
    assert LossConfig(exponent=1.0).exponent == 1.0


@pytest.mark.parametrize("window", [-2, 0, 255])
def test_resolutions_of_the_loss_are_even_windows(window):
    with pytest.raises(ValueError, match=r"`loss\.resolutions` must be even .*Use for example"):
        LossConfig(resolutions=(256, window))
    assert LossConfig(resolutions=(256, 1024)).resolutions == (256, 1024)


def test_weights_of_the_loss_must_not_be_negative():
    with pytest.raises(ValueError, match=r"`loss\.si_sdr_weight` must not be negative.*Use 0"):
        LossConfig(si_sdr_weight=-0.1)


def test_a_config_cannot_be_changed_after_its_checks():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExperimentConfig().seed = 1  # type: ignore[misc]


def test_the_default_experiment_is_causal_at_16_khz_with_32_ms_frames():
    frame = ExperimentConfig().stft
    assert 1000 * frame.window_length / frame.sample_rate_hz == 32
    assert 1000 * frame.hop_length / frame.sample_rate_hz == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "8x8"}, r"`compress\.pattern` must be one of unstructured.*Received '8x8'"),
        ({"schedule": "linear"}, r"`compress\.schedule` must be one of polynomial.*'linear'"),
        ({"pattern": "2:4"}, r"2:4 has half.*schedule='polynomial'"),
        ({"channels": 0}, r"`compress\.channels` must be positive"),
        ({"squeeze_channels": 0}, r"`compress\.squeeze_channels` must be positive"),
    ],
)
def test_compress_config_refuses_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        CompressConfig(**settings)


def test_compress_config_knows_the_patterns_and_schedules_of_pruning():
    from lmkd_tf.compress.pruning import PATTERNS, SCHEDULES

    for pattern in PATTERNS:
        CompressConfig(pattern=pattern, schedule="constant")
    for schedule in SCHEDULES:
        CompressConfig(schedule=schedule)


@pytest.mark.parametrize(
    "changes",
    [
        {"distillation_training": TrainConfig(metric_weight=0.1)},
        {"compress": CompressConfig(pruning=TrainConfig(metric_weight=0.1))},
        {"compress": CompressConfig(quantization=TrainConfig(metric_weight=0.1))},
    ],
)
def test_metric_discriminator_is_for_networks_without_a_teacher(changes):
    message = r"metric_weight` must be 0: .*Received 0\.1\. Set it in teacher_training"
    with pytest.raises(ValueError, match=message):
        ExperimentConfig(**changes)


def test_negative_weight_of_the_metric_discriminator_is_refused():
    with pytest.raises(ValueError, match=r"`metric_weight` must not be negative\. Received -1"):
        TrainConfig(metric_weight=-1.0)


def test_a_partial_start_needs_a_file():
    with pytest.raises(ValueError, match=r"needs a `network_start`\. .*Name the file"):
        ExperimentConfig(network_start_is_partial=True)
