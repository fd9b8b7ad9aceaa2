# SPDX-License-Identifier: Apache-2.0
import pytest

from lmkd_tf.data.readers import read_corpus
from lmkd_tf.data.shards import verify_shards, write_shards

beam = pytest.importorskip("apache_beam")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def poisoned(noisy_corpus):
    """A corpus with an empty, a truncated and a foreign file among 24."""
    paths = sorted((noisy_corpus / "noise").rglob("*.wav"))
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:30])
    paths[2].write_text("poison")
    return read_corpus(noisy_corpus), [path.name for path in paths[:3]]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_any_number_of_workers_writes_the_bytes_of_one(poisoned, tmp_path, num_workers):
    from lmkd_tf.data.beam import shard_corpus

    corpus, bad_names = poisoned
    options = {"num_shards": 2, "max_failed_fraction": 0.5}
    write_shards(corpus, tmp_path / "local", **options)
    letters = shard_corpus(corpus, tmp_path / "beam", num_workers=num_workers, **options)
    assert sorted(name.rsplit("/", 1)[1] for name, _ in letters) == sorted(bad_names)
    for name in (
        *(path.name for path in (tmp_path / "local").glob("*.tfrecord")),
        "shards.json",
        "dead_letter.csv",
    ):
        assert (tmp_path / "beam" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert verify_shards(tmp_path / "beam") == 24 - 3


def test_clip_that_a_retried_bundle_delivers_twice_is_written_once(noisy_corpus, tmp_path):
    from lmkd_tf.data.beam import WriteShard
    from lmkd_tf.data.packed import entry_of, list_sources
    from lmkd_tf.data.shards import plan_shards, read_shard
    from lmkd_tf.data.store import try_decode

    corpus = read_corpus(noisy_corpus)
    source = list_sources(corpus)[0]
    signal = try_decode(source.clip, 16000)
    assert not isinstance(signal, str)
    clip = (entry_of(source, signal), signal.tobytes())
    plan = plan_shards(corpus, tmp_path / "shards")
    (name,) = WriteShard(plan).process(("speech.tfrecord", [clip, clip]))
    assert len(read_shard(tmp_path / "shards" / name).records) == 1


def test_too_many_poisoned_files_leave_no_index(poisoned, tmp_path):
    from lmkd_tf.data.beam import shard_corpus

    corpus, _ = poisoned
    with pytest.raises(ValueError, match=r"At most 5% .* Received 3 unusable of 24"):
        shard_corpus(corpus, tmp_path / "beam", num_workers=1)
    assert not (tmp_path / "beam" / "shards.json").exists()
    assert (tmp_path / "beam" / "dead_letter.csv").is_file()
