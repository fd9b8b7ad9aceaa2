# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from lmkd_tf.demo.stream import Stream
from lmkd_tf.dsp.pcm import float_to_int16, int16_to_float
from lmkd_tf.evaluate.streaming import StreamingEnhancer


def _hops(samples):
    padded = np.pad(samples, (0, -len(samples) % 256))
    return [hop.astype("<i2").tobytes() for hop in padded.reshape(-1, 256)]


def _through(stream, samples):
    parts = [stream.process(hop) for hop in _hops(samples)] + [stream.finish()]
    return np.frombuffer(b"".join(parts), "<i2")[: len(samples)]


def test_hops_come_back_as_the_enhanced_file(make_backend, recording):
    expected = StreamingEnhancer(make_backend()).enhance(int16_to_float(recording))
    stream = Stream(make_backend())
    np.testing.assert_array_equal(_through(stream, recording), float_to_int16(expected))
    np.testing.assert_array_equal(_through(stream, recording), float_to_int16(expected))


def test_settings_hold_from_the_next_hop_on(make_backend, recording):
    limited = Stream(make_backend())
    assert limited.change('{"attenuation_limit_db": 3}') == {"attenuation_limit_db": 3}
    expected = StreamingEnhancer(make_backend(), attenuation_limit_db=3.0)
    enhanced = float_to_int16(expected.enhance(int16_to_float(recording)))
    np.testing.assert_array_equal(_through(limited, recording), enhanced)
    assert not np.array_equal(_through(Stream(make_backend()), recording), enhanced)


def test_bypass_gives_back_what_came_in(make_backend, recording):
    stream = Stream(make_backend())
    stream.change('{"is_bypassed": true}')
    heard = _through(stream, recording)
    np.testing.assert_allclose(heard, recording, atol=1)


@pytest.mark.parametrize("num_bytes", [0, 2, 511, 513, 4096])
def test_message_that_is_no_hop_is_refused(make_backend, num_bytes):
    with pytest.raises(ValueError, match=rf"one hop of 256 samples.*Received {num_bytes} bytes"):
        Stream(make_backend()).process(bytes(num_bytes))


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "[]", "null", '{"volume": 1}', '{"attenuation_limit_db": -1}',
        '{"attenuation_limit_db": 61}', '{"attenuation_limit_db": "12"}',
        '{"attenuation_limit_db": true}', '{"attenuation_limit_db": NaN}', '{"is_bypassed": 1}',
        '{"is_finished": false}', "[" * 3000, f'{{"attenuation_limit_db": {"9" * 400}}}',
        f'{{"attenuation_limit_db": {"9" * 5000}}}',
    ],
)  # fmt: skip
def test_text_that_is_no_setting_is_refused(make_backend, text):
    with pytest.raises(ValueError, match="must be a JSON object of attenuation_limit_db"):
        Stream(make_backend()).change(text)


def test_all_settings_may_come_in_one_message(make_backend):
    settings = {"attenuation_limit_db": 60, "is_bypassed": False, "is_finished": True}
    assert Stream(make_backend()).change(json.dumps(settings)) == settings
