# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import soundfile

from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.store import load_store

TRAIN_28 = ("p226", "p287", "p228", "p230")


@pytest.fixture
def voicebank(tmp_path, add_audio):
    """The official folders with a few utterances of each kind of speaker."""
    folder = tmp_path / "VoiceBank"
    for side in ("clean", "noisy"):
        for speaker in TRAIN_28:
            add_audio(folder / f"{side}_trainset_28spk_wav" / f"{speaker}_001.wav", 0.2, 48000)
        for speaker in ("p232", "p257"):
            add_audio(folder / f"{side}_testset_wav" / f"{speaker}_001.wav", 0.2, 48000)
    (folder / "log_testset.txt").write_text("p232_001 bus 17.5\np257_001 living 2.5\n")
    (folder / "log_trainset_28spk.txt").write_text("p226_001 babble 0\np228_001 ssn 15\n")
    return folder


def test_official_folders_are_recognized_and_split_by_speaker(voicebank):
    corpus = read_corpus(voicebank)
    assert corpus.layout == "VoiceBank+DEMAND"
    splits = {clip.group: clip.split for clip in corpus.speech}
    assert splits == {
        **{"p226": "valid", "p287": "valid", "p228": "train", "p230": "train"},
        **{"p232": "test", "p257": "test"},
    }


def test_logs_give_noise_and_snr(voicebank):
    facts = {p.noisy.stem: (p.category, p.snr_db) for p in read_corpus(voicebank).pairs}
    assert facts["p232_001"] == ("bus", 17.5)
    assert facts["p226_001"] == ("babble", 0.0)
    assert facts["p230_001"] == ("", None)


def test_test_noise_is_in_the_test_split_only(voicebank):
    noise = read_corpus(voicebank).noise
    assert {c.path.parent.name for c in noise if c.split == "test"} == {"noisy_testset_wav"}
    assert {c.path.parent.name for c in noise if c.split != "test"} == {"noisy_trainset_28spk_wav"}


def test_56_speaker_set_holds_out_two_speakers(tmp_path, add_audio):
    for side in ("clean", "noisy"):
        for number in range(5):
            add_audio(tmp_path / f"{side}_trainset_56spk_wav" / f"p30{number}_001.wav")
    corpus = read_corpus(tmp_path, required_splits=("train", "valid"))
    assert sorted(c.group for c in corpus.speech if c.split == "valid") == ["p303", "p304"]


def test_the_copy_at_16_khz_is_preferred(voicebank, add_audio):
    for side in ("clean", "noisy"):
        for speaker in ("p232", "p257"):
            add_audio(voicebank / f"{side}_testset_wav_16k" / f"{speaker}_001.flac")
    paths = [pair.noisy for pair in read_corpus(voicebank).pairs if pair.split == "test"]
    assert {path.parent.name for path in paths} == {"noisy_testset_wav_16k"}


def test_a_half_unpacked_set_is_refused(voicebank, add_audio):
    add_audio(voicebank / "noisy_testset_wav" / "p232_002.wav")
    with pytest.raises(ValueError, match=r"clean one of the same name.*counterpart: p232_002"):
        read_corpus(voicebank)


def test_noise_is_what_noisy_has_more_than_clean(voicebank):
    path = "p228_001.wav"
    clean, rate_hz = soundfile.read(voicebank / "clean_trainset_28spk_wav" / path)
    hum = 0.05 * np.sin(np.arange(clean.size) * 0.05)
    soundfile.write(voicebank / "noisy_trainset_28spk_wav" / path, clean + hum, rate_hz)
    clip = next(c for c in read_corpus(voicebank).noise if c.path.name == path)
    store = load_store([clip], rate_hz)
    assert store.signals[0] / 32768 == pytest.approx(hum, abs=2 / 32768)


def test_noisy_file_of_another_length_is_skipped_with_its_reason(voicebank, add_audio):
    add_audio(voicebank / "noisy_trainset_28spk_wav" / "p228_001.wav", 0.3, 48000)
    noise = read_corpus(voicebank).noise
    store = load_store(noise, max_failed_fraction=0.5)
    assert [path.name for path, _ in store.skipped] == ["p228_001.wav"]
    assert "differs from its clean file in length" in store.skipped[0][1]
