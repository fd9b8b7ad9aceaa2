# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import re
import socket
import struct
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from lmkd_tf.demo.server import Limits, open_socket
from lmkd_tf.dsp.pcm import float_to_int16, int16_to_float
from lmkd_tf.evaluate.streaming import StreamingEnhancer
from tests.demo.browser import wait_for

HOP = bytes(512)


def _open(served, address=None, origin=None):
    chosen = Origin(origin or f"http://{served.host}")
    return connect(address or served.stream, origin=chosen, proxy=None)


def _get(address, **headers):
    request = urllib.request.Request(address, headers=headers)
    return urllib.request.urlopen(request, timeout=60)


def _listen(connection, samples):
    """Sends a recording hop by hop and returns what came back."""
    padded = np.pad(samples, (0, -len(samples) % 256)).reshape(-1, 256)
    heard = []
    for hop in padded:
        connection.send(hop.astype("<i2").tobytes())
        heard.append(connection.recv(timeout=60))
    connection.send('{"is_finished": true}')
    heard.append(connection.recv(timeout=60))
    assert json.loads(connection.recv(timeout=60)) == {"is_finished": True}
    return np.frombuffer(b"".join(heard), "<i2")[: len(samples)]


def _farewell(connection):
    """Returns the error and the close code that end a stream."""
    messages = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(connection.recv(timeout=60))
    return json.loads(messages[-1])["error"], connection.protocol.close_code


def test_page_loads_nothing_and_may_connect_to_its_own_stream_only(serve):
    served = serve(model_name="a <b>")
    with _get(served.page) as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "a &lt;b&gt;" in text
    assert "default-src 'none'" in policy
    assert f"connect-src ws://{served.host} blob:;" in policy
    assert not re.search(r"""(src|href)=["']?https?:|@import|url\(""", text)
    (nonce,) = set(re.findall(r'nonce="([^"]+)"', text))
    assert f"script-src 'nonce-{nonce}'" in policy
    with _get(served.page) as answer:
        assert nonce not in answer.read().decode()


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%00"])
def test_page_without_the_token_is_refused(serve, query):
    served = serve()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        _get(f"http://{served.host}/{query}")


def test_every_demo_has_a_token_of_its_own(serve):
    assert serve().demo.token != serve().demo.token


def test_foreign_host_is_refused(serve):
    """A name that another site lets point to this machine."""
    with pytest.raises(urllib.error.HTTPError, match="400"):
        _get(serve().page, Host="evil.example")


@pytest.mark.parametrize("token", ["", "wrong"])
def test_stream_without_the_token_is_refused(serve, token):
    served = serve()
    with pytest.raises(InvalidStatus, match="403"):
        _open(served, f"ws://{served.host}/stream?token={token}")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_stream_of_a_foreign_page_is_refused(serve, origin):
    with pytest.raises(InvalidStatus, match="403"):
        _open(serve(), origin=origin)


def test_stream_without_an_origin_is_refused(serve):
    with pytest.raises(InvalidStatus, match="403"):
        connect(serve().stream, proxy=None)


def test_upload_is_refused_before_it_is_read(serve):
    served = serve()
    with socket.create_connection(tuple(served.host.split(":"))) as connection:
        head = f"POST /?token={served.demo.token} HTTP/1.1\r\nHost: {served.host}\r\n"
        connection.sendall(f"{head}Content-Length: 10000000000\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 405")


def test_stream_gives_back_the_enhanced_recording(serve, make_backend, recording):
    expected = float_to_int16(StreamingEnhancer(make_backend()).enhance(int16_to_float(recording)))
    served = serve()
    with _open(served) as connection:
        assert json.loads(connection.recv()) == {"sample_rate_hz": 16000, "hop_length": 256}
        np.testing.assert_array_equal(_listen(connection, recording), expected)
    with _open(served) as connection:  # the same network, of which nothing is left
        connection.recv()
        connection.send('{"attenuation_limit_db": 0, "is_bypassed": false}')
        np.testing.assert_array_equal(_listen(connection, recording), expected)


@pytest.mark.parametrize(
    ("message", "reason"),
    [(bytes(510), "one hop of 256 samples"), ("{", "must be a JSON object")],
)
def test_wrong_message_ends_the_stream_with_the_reason(serve, message, reason):
    with _open(serve()) as connection:
        connection.recv()
        connection.send(message)
        error, code = _farewell(connection)
    assert reason in error
    assert code == 1003


def test_oversized_message_ends_the_stream(serve):
    served = serve()
    with _open(served) as connection:
        connection.recv()
        connection.send(bytes(5000))
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=60)
    assert "1009" in str(closed.value)
    wait_for(lambda: served.demo.num_active == 0, "stream")


def test_of_twenty_listeners_four_are_served_and_the_others_told_to_wait(serve, recording):
    served = serve()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(_open(served)) for _ in range(20)]
        _check_that_four_are_served(connections, recording)
    wait_for(lambda: served.demo.num_active == 0, "streams")
    with _open(served) as connection:
        assert "error" not in json.loads(connection.recv())


def _check_that_four_are_served(connections, recording):
    greetings = [json.loads(connection.recv(timeout=60)) for connection in connections]
    assert [("error" in greeting) for greeting in greetings] == [False] * 4 + [True] * 16
    for connection in connections[4:]:
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=60)
        assert "1013" in str(closed.value)
    first = _listen(connections[0], recording)
    np.testing.assert_array_equal(_listen(connections[3], recording), first)


def test_listener_that_sends_nothing_is_ended(serve):
    served = serve(Limits(idle_seconds=0.2))
    with _open(served) as connection:
        connection.recv()
        assert _farewell(connection) == ("The stream stood still.", 1001)
    wait_for(lambda: served.demo.num_active == 0, "stream")


def test_listener_that_takes_nothing_is_ended_and_frees_its_place(serve):
    served = serve(Limits(num_streams=1, send_seconds=0.3))
    host, port = served.host.split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(_handshake(served))
        wait_for(lambda: served.demo.num_active == 1, "stream")
        connection.settimeout(0.5)
        frame = b"\x82\xfe" + struct.pack(">H", 512) + bytes(4) + HOP
        sent = 0
        while served.demo.num_active == 1 and sent < 50_000_000:
            try:
                connection.sendall(64 * frame)
                sent += 64 * 512
            except (TimeoutError, ConnectionError):
                continue
        wait_for(lambda: served.demo.num_active == 0, "stalled stream")
        assert sent < 20_000_000
    with _open(served) as other:
        assert "error" not in json.loads(other.recv())


def _handshake(served):
    lines = [
        f"GET /stream?token={served.demo.token} HTTP/1.1", f"Host: {served.host}",
        f"Origin: http://{served.host}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


def test_stream_has_a_longest_time(serve):
    with _open(serve(Limits(stream_seconds=0.05))) as connection:  # three hops
        connection.recv()
        for _ in range(4):
            connection.send(HOP)
        assert _farewell(connection)[1] == 1001


def test_stream_without_audio_has_a_longest_time_as_well(serve):
    with _open(serve(Limits(stream_seconds=0.5))) as connection:
        connection.recv()
        with contextlib.suppress(ConnectionClosed):
            for _ in range(200):  # 20 s of changes of a setting, each in time
                connection.send('{"is_bypassed": false}')
                time.sleep(0.1)
        error, code = _farewell(connection)
    assert "lasted as long as it may" in error
    assert code == 1001


def test_network_that_failed_is_told_and_not_used_again(serve, make_backend, monkeypatch):
    used, gains = [], make_backend.gains

    def fails_once(self, features):
        used.append(self)
        if len(used) == 1:
            raise RuntimeError("the process ended")
        return gains(self, features)

    monkeypatch.setattr(make_backend, "gains", fails_once)
    served = serve()
    with _open(served) as connection:
        connection.recv()
        connection.send(HOP)
        assert _farewell(connection) == ("The network failed: the process ended", 1011)
    with _open(served) as connection:
        connection.recv()
        connection.send(HOP)
        assert isinstance(connection.recv(timeout=60), bytes)
    assert used[0] is not used[1]


def test_taken_port_is_an_error_that_names_it():
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"needs a free port. Received 127.0.0.1:{port}"):
            open_socket("127.0.0.1", port)
