# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lmkd_tf.config.schema import StftConfig
from lmkd_tf.evaluate.backends import BACKENDS, keras_backend, open_backend
from lmkd_tf.models import SpeechEnhancer, build
from tests.workflow.road import FinishedRoad, finished_road


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> FinishedRoad:
    return finished_road(tmp_path_factory)


@pytest.fixture
def model(seeded):
    return build("tcn", num_bands=32, channels=8, dilations=(1, 2))


def _path(road, kind):
    return road.workdir / "pruned" / "pruned.keras" if kind == "keras" else road.int8


@pytest.mark.parametrize("kind", BACKENDS)
def test_open_backend_gives_frame_bands_name_and_gains(road, kind):
    backend = open_backend(kind, _path(road, kind))
    bands = road.config.student.num_bands
    features = np.random.default_rng(0).normal(0, 0.4, (9, bands)).astype(np.float32)
    gains = backend.gains(features)
    assert (backend.name, backend.num_bands, backend.stft) == (kind, bands, StftConfig())
    assert (gains.shape, gains.dtype) == (features.shape, np.float32)
    backend.reset()
    np.testing.assert_array_equal(backend.gains(features), gains)


@pytest.mark.parametrize("kind", BACKENDS)
def test_backends_carry_the_past_until_reset(road, kind):
    backend = open_backend(kind, _path(road, kind))
    shape = (4, road.config.student.num_bands)
    loud, quiet = np.full(shape, 1.0, np.float32), np.full(shape, -1.0, np.float32)
    alone = backend.gains(quiet)
    backend.gains(loud)
    assert not np.array_equal(backend.gains(quiet), alone)
    backend.reset()
    np.testing.assert_allclose(backend.gains(quiet), alone, atol=1e-6)


def test_keras_backend_is_the_network_on_the_whole_utterance(model):
    rng = np.random.default_rng(1)
    model.core.set_weights([w + 0.3 * rng.uniform(size=w.shape) for w in model.core.get_weights()])
    features = rng.normal(0, 1, (40, 32)).astype(np.float32)
    whole = np.asarray(model.core(features[None, :, None], training=False))[0, :, 0]
    assert whole.std() > 0.01
    np.testing.assert_allclose(keras_backend(model).gains(features), whole, atol=1e-6)


def test_model_without_an_architecture_does_not_stream(model):
    with pytest.raises(ValueError, match=r"step graph of its architecture.*lmkd_tf\.models\.build"):
        keras_backend(SpeechEnhancer(model.core))


def test_unknown_backend_is_refused():
    with pytest.raises(
        ValueError, match=r"must be one of keras, tflite, tflm, firmware. Received 'onnx'"
    ):
        open_backend("onnx", "student.tflite")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("keras", "a.tflite"), ("keras", "a.h5"), ("tflm", "a.keras"), ("tflite", "a")],
)
def test_file_of_another_kind_is_refused(kind, name):
    with pytest.raises(ValueError, match=f"back-end {kind} needs a .*Choose another --backend"):
        open_backend(kind, name)


@pytest.mark.parametrize(("kind", "name"), [("keras", "a.keras"), ("tflm", "a.tflite")])
def test_missing_file_is_named(kind, name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{name}, which does not exist"):
        open_backend(kind, tmp_path / name)


def test_damaged_keras_file_is_refused(tmp_path):
    (tmp_path / "a.keras").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(ValueError, match=r"must hold a Keras model.*which cannot be read"):
        open_backend("keras", tmp_path / "a.keras")
