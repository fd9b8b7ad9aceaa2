# SPDX-License-Identifier: Apache-2.0
import socket
import sys

import numpy as np
import pytest

from lmkd_tf import metrics
from lmkd_tf.metrics import p835


@pytest.fixture
def no_session():
    p835._session.cache_clear()
    yield
    p835._session.cache_clear()


def test_published_opinions_are_reproduced_without_a_network(published_pairs, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    for row, _, noisy in published_pairs[:2]:
        for name, value in metrics.dnsmos(noisy)._asdict().items():
            assert value == pytest.approx(float(row[f"dnsmos_{name}"]), abs=0.02)


def test_long_signals_are_judged_every_second(monkeypatch):
    asked = []

    class Session:
        def run(self, _, inputs):
            asked.append(inputs["input_1"])
            return [np.full((1, 3), float(len(asked)), np.float32)]

    monkeypatch.setattr(p835, "_session", Session)
    samples = np.linspace(-1, 1, 12 * 16000 + 5, dtype=np.float32)
    scores = metrics.dnsmos(samples)
    assert [window[0, 0] for window in asked] == [samples[0], samples[16000], samples[32000]]
    assert {window.shape for window in asked} == {(1, 144160)}
    expected = np.mean([-0.06766283 * k**2 + 1.11546468 * k + 0.04602535 for k in (1, 2, 3)])
    assert scores.ovrl == pytest.approx(expected, abs=1e-6)


def test_short_signals_are_repeated(monkeypatch):
    asked = []

    class Session:
        def run(self, _, inputs):
            asked.append(inputs["input_1"][0])
            return [np.ones((1, 3), np.float32)]

    monkeypatch.setattr(p835, "_session", Session)
    metrics.dnsmos(np.arange(100000) / 1e5)
    assert len(asked) == 3  # twice 6.25 s are 12.5 s
    assert asked[0][100000] == asked[0][0]


@pytest.mark.parametrize("package", ["onnxruntime", "speechmos"])
def test_missing_package_is_named_with_its_extra(monkeypatch, no_session, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'package {package}\..*pip install "lmkd-tf\[eval\]"'):
        metrics.dnsmos(np.ones(10))


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_other_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match="one channel of shape"):
        metrics.dnsmos(np.zeros(shape))
