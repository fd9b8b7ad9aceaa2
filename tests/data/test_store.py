# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.folder import read_folder
from lmkd_tf.data.index import Clip
from lmkd_tf.data.store import AudioStore, at_speeds, lift_treble, load_store


def tone(seconds=1.0, sample_rate_hz=16000, frequency_hz=440.0):
    time = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    return 0.5 * np.sin(2 * np.pi * frequency_hz * time)


@pytest.fixture
def write_clip(tmp_path):
    def write(name, samples, sample_rate_hz=16000, subtype=None):
        path = tmp_path / name
        soundfile.write(path, samples, sample_rate_hz, subtype=subtype)
        return Clip(path, len(samples) / sample_rate_hz, "train", name)

    return write


def load_leniently(clips):
    return load_store(clips, max_failed_fraction=0.9)


def test_flac_is_decoded_sample_for_sample(write_clip):
    samples = np.random.default_rng(0).integers(-32768, 32767, 16000).astype(np.int16)
    store = load_store([write_clip("a.flac", samples)])
    assert np.array_equal(store.signals[0], samples)
    assert store.seconds == 1.0


def test_channels_are_averaged(write_clip):
    stereo = np.stack([tone(), np.zeros(16000)], axis=1)
    signal = load_store([write_clip("a.wav", stereo)]).signals[0]
    assert signal == pytest.approx(tone() * 0.5 * 32768, abs=1.01)


@pytest.mark.parametrize("sample_rate_hz", [8000, 44100, 48000])
def test_other_sample_rates_are_resampled_without_delay(write_clip, sample_rate_hz):
    clip = write_clip("a.wav", tone(1.0, sample_rate_hz), sample_rate_hz)
    signal = load_store([clip]).signals[0]
    assert abs(signal.size - 16000) <= 1
    middle = slice(4000, 12000)
    assert signal[middle] / 32768 == pytest.approx(tone()[middle], abs=2e-3)


def test_eight_bit_files_are_read(write_clip):
    signal = load_store([write_clip("a.wav", tone(), subtype="PCM_U8")]).signals[0]
    # One step of 8 bits is 1/128 of full scale.
    assert np.abs(signal / 32768 - tone()).max() <= 1 / 128


def test_clipped_files_are_read(write_clip):
    signal = load_store([write_clip("a.wav", np.clip(9 * tone(), -1, 1))]).signals[0]
    assert signal.max() == 32767


def test_float_samples_beyond_full_scale_are_scaled_down_and_not_wrapped(write_clip):
    signal = load_store([write_clip("a.wav", 3 * tone(), subtype="FLOAT")]).signals[0]
    assert np.corrcoef(signal, tone())[0, 1] > 0.9999


def test_bad_files_are_skipped_with_a_reason(write_clip, tmp_path):
    good = write_clip("good.wav", tone())
    with_nan = tone()
    with_nan[5] = np.nan
    empty = Clip(tmp_path / "empty.wav", 1.0, "train", "e")
    empty.path.touch()
    text = Clip(tmp_path / "text.wav", 1.0, "train", "t")
    text.path.write_text("this is not audio")
    cut = write_clip("cut.wav", tone())
    cut.path.write_bytes(cut.path.read_bytes()[:16000])
    cases = {
        Clip(tmp_path / "absent.wav", 1.0, "train", "x"): "does not exist",
        empty: "is empty",
        text: "could not be decoded",
        cut: "is truncated: 0.50 s of the 1.00 s listed",
        write_clip("nan.wav", with_nan, subtype="FLOAT"): "holds NaN",
        write_clip("zero.wav", np.zeros(16000)): "is all zero",
        write_clip("short.wav", tone(0.01)): "is shorter than 0.05 s",
        write_clip("nothing.wav", np.zeros(0)): "holds no samples",
        write_clip("faint.wav", tone() * 1e-7, subtype="FLOAT"): "is silent once stored",
    }
    store = load_leniently([*cases, good])
    assert [clip.path for clip in store.clips] == [good.path]
    assert [path for path, _ in store.skipped] == [clip.path for clip in cases]
    for (_, reason), expected in zip(store.skipped, cases.values(), strict=True):
        assert reason.startswith(expected)
    assert "zero.wav: is all zero" in store.describe_skipped()


def test_truncated_flac_is_skipped(write_clip):
    good, cut = write_clip("good.flac", tone()), write_clip("cut.flac", tone())
    content = cut.path.read_bytes()
    cut.path.write_bytes(content[: len(content) // 2])
    assert [path for path, _ in load_leniently([good, cut]).skipped] == [cut.path]


def test_five_percent_of_unusable_files_are_put_up_with(write_clip, tmp_path):
    good = write_clip("good.wav", tone())
    absent = Clip(tmp_path / "absent.wav", 1.0, "train", "x")
    assert len(load_store([good] * 19 + [absent]).skipped) == 1


def test_more_than_five_percent_stop_with_the_first_five(write_clip, tmp_path):
    good = write_clip("good.wav", tone())
    absent = [Clip(tmp_path / f"absent_{index}.wav", 1.0, "train", "x") for index in range(6)]
    with pytest.raises(ValueError, match=r"At most 5% .* 6 unusable of 16.*absent_4.wav") as error:
        load_store([good] * 10 + absent)
    assert "absent_5" not in str(error.value)


def test_a_single_unusable_file_stops_even_if_all_may_fail(tmp_path):
    absent = Clip(tmp_path / "absent.wav", 1.0, "train", "x")
    with pytest.raises(ValueError, match="1 unusable of 1"):
        load_store([absent], max_failed_fraction=1.0)


def test_no_clips_at_all_are_refused():
    with pytest.raises(ValueError, match="at least one clip"):
        load_store([])


def test_progress_counts_every_clip(write_clip, tmp_path):
    absent = Clip(tmp_path / "absent.wav", 1.0, "train", "x")
    calls = []
    clips = [write_clip("good.wav", tone()), absent]
    load_store(clips, max_failed_fraction=0.5, on_progress=lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("frequency_hz", "expected_db"), [(200.0, 0.0), (1000.0, 0.05), (4000.0, 1.5), (7900.0, 3.0)]
)
def test_treble_lift_is_a_shelf_with_half_its_gain_at_four_khz(frequency_hz, expected_db):
    samples = tone(1.0, frequency_hz=frequency_hz).astype(np.float32)
    lifted = lift_treble(samples, 16000, 3.0)
    gain_db = 10 * np.log10(np.mean(lifted[800:] ** 2) / np.mean(samples[800:] ** 2))
    assert gain_db == pytest.approx(expected_db, abs=0.08)


def test_a_clip_with_treble_lift_is_lifted_when_loaded(write_clip):
    plain = write_clip("a.wav", 0.2 * tone(frequency_hz=7000.0))
    lifted = Clip(plain.path, plain.seconds, "train", "a", treble_lift_db=3.0)
    first, second = load_store([plain, lifted]).signals
    ratio_db = 20 * np.log10(np.std(second / 32768) / np.std(first / 32768))
    assert ratio_db == pytest.approx(2.9, abs=0.1)


def frequency_of(signal):
    """Frequency in Hz of the largest peak, to 2 Hz at half a second."""
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(signal.size)))
    return np.argmax(spectrum) * 16000 / signal.size


def test_another_speed_is_another_pitch_and_another_length(make_store):
    store = at_speeds(make_store([tone(frequency_hz=1000.0)]), (0.8, 1.0, 1.25))
    assert [signal.size for signal in store.signals] == [20000, 16000, 12800]
    found_hz = [frequency_of(signal) for signal in store.signals]
    assert found_hz == pytest.approx([800.0, 1000.0, 1250.0], abs=2.0)
    assert all(signal.dtype == np.int16 for signal in store.signals)
    peaks = [np.abs(signal[4000:-4000]).max() for signal in store.signals]
    assert peaks == pytest.approx([16384.0] * 3, rel=0.01)


def test_clips_at_other_speeds_keep_their_names_and_lose_their_levels(make_store):
    store = make_store([tone(), tone(0.5)], categories=["rain", "wind"])
    faster = at_speeds(store, (2.0, 1.0))
    assert [clip.category for clip in faster.clips] == ["rain", "wind", "rain", "wind"]
    assert [signal.size for signal in faster.signals] == [8000, 4000, 16000, 8000]
    assert at_speeds(replace(store, levels_dbfs=[-20.0, -20.0]), (0.5,)).levels_dbfs is None
    assert at_speeds(store, (1.0,)) is store


def test_clips_that_are_read_as_they_are_needed_have_one_speed(make_store):
    class Read:
        size = 16000

    store = make_store([tone()])
    lazy = AudioStore([Read()], store.clips, [], 16000)
    assert at_speeds(lazy, (1.0,)) is lazy
    with pytest.raises(ValueError, match=r"must be in memory or packed.*speeds \(0\.9, 1\.0\)"):
        at_speeds(lazy, (0.9, 1.0))


def test_shared_valid_split_loads_without_a_loss(shared_data):
    corpus = read_folder(shared_data)
    store = load_store(corpus.speech_in("valid") + corpus.noise_in("valid"))
    assert store.skipped == []
    listed = sum(clip.seconds for clip in store.clips)
    assert store.seconds == pytest.approx(listed, abs=0.2)
