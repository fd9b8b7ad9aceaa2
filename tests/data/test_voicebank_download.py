# SPDX-License-Identifier: Apache-2.0
import hashlib
import io
import re
import shutil
import zipfile

import numpy as np
import pytest
import soundfile

from lmkd_tf.data.download import RemoteFile
from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.voicebank_download import download_voicebank, list_archives
from tests.data.server import serve_site

SPEAKERS = {"testset": ("p232", "p257"), "trainset_28spk": ("p226", "p228", "p230")}


def zip_of(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def wav_of(seed):
    """Half a second at 48 kHz: 1 kHz, which 16 kHz can hold, and 15 kHz, which it cannot."""
    time = np.arange(24000) / 48000
    tone = 0.2 * np.sin(2 * np.pi * 1000 * time) + 0.2 * np.sin(2 * np.pi * 15000 * time)
    stream = io.BytesIO()
    soundfile.write(stream, tone * (0.5 + 0.1 * seed), 48000, format="WAV")
    return stream.getvalue()


@pytest.fixture
def archives():
    found = {"logfiles.zip": zip_of({"log_testset.txt": "p232_001 bus 17.5\n"})}
    for part, speakers in SPEAKERS.items():
        for seed, side in enumerate(("clean", "noisy")):
            name = f"{side}_{part}_wav"
            files = {f"{name}/{s}_001.wav": wav_of(seed) for s in speakers}
            found[f"{name}.zip"] = zip_of(files)
    return found


@pytest.fixture
def site(archives):
    with serve_site({f"/{name}": content for name, content in archives.items()}) as site:
        yield site


def remotes(site, archives):
    return [
        RemoteFile(name, (f"{site.url}/{name}",), hashlib.md5(content).hexdigest(), len(content))
        for name, content in archives.items()
    ]


def test_corpus_is_downloaded_unpacked_and_resampled(site, archives, tmp_path):
    seen = []
    listed = remotes(site, archives)
    download_voicebank(tmp_path, archives=listed, on_progress=lambda *n: seen.append(n))
    corpus = read_corpus(tmp_path, ("train", "test"))
    assert corpus.layout == "VoiceBank+DEMAND"
    assert {c.group: c.split for c in corpus.speech}["p226"] == "valid"
    assert next(p for p in corpus.pairs if p.noisy.stem == "p232_001").snr_db == 17.5
    samples, rate_hz = soundfile.read(corpus.pairs[0].clean)
    assert (rate_hz, samples.size) == (16000, 8000)
    spectrum = np.abs(np.fft.rfft(samples[2000:6000])) / 2000
    assert spectrum[250] == pytest.approx(0.1, rel=0.02)  # 1 kHz at half of 0.2
    assert np.delete(spectrum, range(240, 261)).max() < 1e-3  # nothing of 15 kHz, folded or not
    assert seen[-1][0] == seen[-1][1]
    assert [
        p.name for p in tmp_path.iterdir() if p.name.startswith(".") or p.suffix == ".zip"
    ] == []


def test_interrupted_download_goes_on_and_finished_archives_are_kept(site, archives, tmp_path):
    listed = remotes(site, archives)
    broken = [*listed[:3], RemoteFile(listed[3].name, listed[3].urls, "0" * 32)]
    with pytest.raises(ValueError, match="must have MD5"):
        download_voicebank(tmp_path, archives=broken)
    site.requests.clear()
    download_voicebank(tmp_path, archives=listed)
    assert [path for path, _ in site.requests] == [f"/{name}" for name in list(archives)[3:]]
    assert len(read_corpus(tmp_path, ("train", "test")).pairs) == 5


def test_what_was_deleted_since_is_downloaded_again(site, archives, tmp_path):
    listed = remotes(site, archives)
    download_voicebank(tmp_path, archives=listed)
    site.requests.clear()
    download_voicebank(tmp_path, archives=listed)
    assert site.requests == []
    shutil.rmtree(tmp_path / "clean_testset_wav_16k")
    (tmp_path / "log_testset.txt").unlink()
    download_voicebank(tmp_path, archives=listed)
    assert {path for path, _ in site.requests} == {"/logfiles.zip", "/clean_testset_wav.zip"}
    assert len(read_corpus(tmp_path, ("train", "test")).pairs) == 5


def test_official_archives_have_mirrors_checksums_and_names():
    for speakers in ("28", "56"):
        listed = list_archives(speakers)
        assert len(listed) == 5
        for remote in listed:
            assert re.fullmatch(r"[0-9a-f]{32}", remote.md5)
            assert all(url.startswith("https://") for url in remote.urls)
            assert remote.md5 in remote.describe()
    assert len({r.md5 for s in ("28", "56") for r in list_archives(s)}) == 7
