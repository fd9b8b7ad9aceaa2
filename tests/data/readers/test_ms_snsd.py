# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.data.readers import read_corpus


@pytest.fixture
def snsd(tmp_path, add_audio):
    for number in range(1, 13):
        add_audio(tmp_path / "clean_train" / f"p2{number:02d}_001.wav")
        add_audio(tmp_path / "noise_train" / f"AirConditioner_{number}.wav")
    for number in range(1, 4):
        add_audio(tmp_path / "clean_test" / f"clnsp{number}.wav")
        add_audio(tmp_path / "noise_test" / f"Babble_{number}.wav")
    add_audio(tmp_path / "CleanSpeech_training" / "clnsp1.wav")
    for snr_db in ("0.0", "10.0"):
        add_audio(tmp_path / "NoisySpeech_training" / f"noisy1_SNRdb_{snr_db}_clnsp1.wav")
    return tmp_path


def test_its_folders_give_the_splits(snsd):
    corpus = read_corpus(snsd)
    assert corpus.layout == "MS-SNSD"
    for clips, test_folder in ((corpus.speech, "clean_test"), (corpus.noise, "noise_test")):
        assert {c.path.parent.name for c in clips if c.split == "test"} == {test_folder}
        assert {c.split for c in clips} == {"train", "valid", "test"}


def test_the_name_of_a_noise_gives_its_kind(snsd):
    assert {clip.category for clip in read_corpus(snsd).noise} == {"AirConditioner", "Babble"}


def test_mixtures_are_paired_with_their_clean_file(snsd):
    pairs = read_corpus(snsd).pairs
    assert [(p.snr_db, p.clean.name, p.split) for p in pairs] == [
        (0.0, "clnsp1.wav", "train"),
        (10.0, "clnsp1.wav", "train"),
    ]
