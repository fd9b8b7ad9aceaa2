# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import butter, sosfiltfilt

from lmkd_tf.data.graph_audio import decoded_files, tensorflow_io_works

FORMATS = [
    ("pcm16.wav", "WAV", "PCM_16"),
    ("pcm24.wav", "WAV", "PCM_24"),
    ("float.wav", "WAV", "FLOAT"),
    ("pcm16.flac", "FLAC", "PCM_16"),
    ("pcm24.flac", "FLAC", "PCM_24"),
    ("vorbis.ogg", "OGG", "VORBIS"),
    ("layer3.mp3", "MP3", "MPEG_LAYER_III"),
    ("opus.opus", "OGG", "OPUS"),
]
RATES_HZ = (8000, 22050, 44100, 48000)


@pytest.fixture(scope="module")
def voice():
    """Two seconds at 16 kHz of what has energy at all frequencies, less at high ones."""
    rng = np.random.default_rng(0)
    noise = np.cumsum(rng.standard_normal(32000)) * 0.98 ** np.arange(32000)
    tone = np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    bright = 0.05 * rng.standard_normal(32000)
    return 0.2 * (0.02 * noise + tone + bright) / 1.2


@pytest.fixture(scope="module")
def files(voice, tmp_path_factory):
    """Stereo files of every format at 16 kHz, and FLAC at other rates."""
    folder = tmp_path_factory.mktemp("audio")
    stereo = np.stack([voice, 0.5 * voice], axis=1)
    paths = []
    for name, container, subtype in FORMATS:
        soundfile.write(folder / name, stereo, 16000, format=container, subtype=subtype)
        paths.append(folder / name)
    for rate_hz in RATES_HZ:
        path = folder / f"rate{rate_hz}.flac"
        soundfile.write(path, soxr.resample(stereo, 16000, rate_hz), rate_hz)
        paths.append(path)
    return paths


def signals_of(paths, uses_tensorflow_io):
    return [s.numpy() for s in decoded_files(paths, uses_tensorflow_io=uses_tensorflow_io)]


def test_files_of_every_format_and_rate_are_decoded_outside(files, voice):
    for path, signal in zip(files, signals_of(files, False), strict=True):
        samples, rate_hz = soundfile.read(path, dtype="float32")
        expected = samples.mean(axis=1)
        if rate_hz != 16000:
            expected = soxr.resample(expected, rate_hz, 16000)
        assert signal == pytest.approx(expected, abs=1e-6), path.name
        assert abs(signal.size - voice.size) <= 1


def test_file_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"libsndfile can open. Received .*text\.wav"):
        decoded_files([tmp_path / "text.wav"], uses_tensorflow_io=False)


@pytest.mark.io
def test_operations_of_tensorflow_io_really_run():
    assert tensorflow_io_works()


@pytest.mark.io
def test_tensorflow_io_decodes_to_the_samples_of_soundfile(files):
    paths = files[: len(FORMATS)]
    inside, outside = signals_of(paths, True), signals_of(paths, False)
    for path, one, other in zip(paths, inside, outside, strict=True):
        assert one == pytest.approx(other, abs=1e-6), path.name


@pytest.mark.io
def test_tensorflow_io_resamples_to_the_signal_of_soxr_within_the_pass_band(files):
    paths = files[len(FORMATS) :]
    inside, outside = signals_of(paths, True), signals_of(paths, False)
    for rate_hz, one, other in zip(RATES_HZ, inside, outside, strict=True):
        assert one.size == other.size
        # 85 % of half of the lower rate; no shift, or the difference would be large.
        section = butter(10, 0.75 * min(rate_hz, 16000) / 2, fs=16000, output="sos")
        kept, error = (
            sosfiltfilt(section, x.astype(float))[200:-200] for x in (other, one - other)
        )
        snr_db = 10 * np.log10(np.sum(kept**2) / np.sum(error**2))
        assert snr_db > 70, rate_hz


@pytest.mark.io
def test_tensorflow_io_decodes_real_recordings_to_the_samples_of_soundfile(shared_data):
    folders = [shared_data / "speech" / "valid", shared_data / "noise" / "valid"]
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*.flac"))[:20]]
    for one, other in zip(signals_of(paths, True), signals_of(paths, False), strict=True):
        assert np.array_equal(one, other)
