# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.data.readers import read_corpus


@pytest.fixture
def dns(tmp_path, add_audio):
    root = tmp_path / "DNS-Challenge" / "datasets"
    for reader in range(12):
        for part in range(2):
            add_audio(root / "clean" / f"book_{part}_chp_1_reader_{reader:05d}_{part}.wav")
    for number in range(12):
        add_audio(root / "noise" / f"clip{chr(97 + number)}_0.wav")
        add_audio(root / "noise" / f"clip{chr(97 + number)}_1.wav")
        add_audio(root / "impulse_responses" / "SLR26" / f"Room{number}" / "rir-1.wav")
    synthetic = root / "test_set" / "synthetic" / "no_reverb"
    for number in (3, 20, 100):
        add_audio(synthetic / "clean" / f"clean_fileid_{number}.wav")
        add_audio(synthetic / "noisy" / f"clnsp{number}_x_snr{number}_tl-21_fileid_{number}.wav")
    return root.parent


def test_trees_are_recognized_from_above_and_from_within(dns):
    for path in (dns, dns / "datasets"):
        corpus = read_corpus(path)
        assert corpus.layout == "DNS Challenge"
        assert (len(corpus.speech), len(corpus.noise), len(corpus.responses)) == (24, 24, 12)


def test_a_reader_and_a_recording_stay_in_one_split(dns):
    corpus = read_corpus(dns)
    for clips in (corpus.speech, corpus.noise):
        splits = {}
        for clip in clips:
            splits.setdefault(clip.group, set()).add(clip.split)
        assert len(splits) == 12
        assert all(len(found) == 1 for found in splits.values())


def test_synthetic_test_files_are_paired_by_their_fileid(dns):
    pairs = read_corpus(dns).pairs
    assert [(p.clean.name, p.snr_db, p.split) for p in pairs] == [
        ("clean_fileid_3.wav", 3.0, "test"),
        ("clean_fileid_20.wav", 20.0, "test"),
        ("clean_fileid_100.wav", 100.0, "test"),
    ]
    assert all(f"fileid_{p.clean.stem.split('_')[-1]}.wav" in p.noisy.name for p in pairs)


def test_test_files_are_never_speech_to_train_on(dns):
    assert not [c for c in read_corpus(dns).speech if "test_set" in c.path.parts]


def test_noisy_file_without_its_clean_one_is_named(dns, add_audio):
    noisy = dns / "datasets" / "test_set" / "synthetic" / "no_reverb" / "noisy"
    add_audio(noisy / "lonely_snr5_fileid_7.wav")
    with pytest.raises(ValueError, match=r"of its `fileid`. Received 4 .*lonely_snr5_fileid_7"):
        read_corpus(dns)


def test_fullband_trees_are_read(tmp_path, add_audio):
    root = tmp_path / "datasets_fullband"
    for number in range(4):
        add_audio(root / "clean_fullband" / "read_speech" / f"a_reader_{number}_0.wav", 0.2, 48000)
        add_audio(root / "noise_fullband" / f"n{number}x.wav", 0.2, 48000)
    corpus = read_corpus(tmp_path, required_splits=())
    assert (len(corpus.speech), len(corpus.noise)) == (4, 4)
    assert {clip.split for clip in corpus.speech} == {"train", "valid", "test"}
