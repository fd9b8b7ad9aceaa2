# SPDX-License-Identifier: Apache-2.0
import importlib.util
import socket
from types import SimpleNamespace

import pytest
from absl import flags

from lmkd_tf.cli import demo
from lmkd_tf.demo import server


def _run(*arguments):
    values = flags.FlagValues()
    demo.define_flags(values)
    return demo.main(values(["lmkd-demo", *arguments]), values)


def test_program_takes_flags_only():
    with pytest.raises(ValueError, match=r"takes flags only. Received \['x'\]"):
        _run("x")


def test_missing_packages_are_named_with_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    with pytest.raises(ImportError, match=r'without uvicorn. Run: pip install "lmkd-tf\[demo\]"'):
        _run()


def test_network_that_cannot_be_opened_is_an_error_before_a_port_is_taken():
    with pytest.raises(ValueError, match="Received 'huge'"):
        _run("--preset=huge")


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_all_addresses_at_once_are_refused(host):
    with pytest.raises(ValueError, match=rf"Received --host='{host}', which is all of them"):
        _run(f"--host={host}", "--port=0")


def test_taken_port_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"Received 127.0.0.1:{port}, which cannot be used"):
            _run(f"--port={port}")


@pytest.mark.parametrize(
    ("host", "is_heard"), [("127.0.0.1", True), ("localhost", True), ("192.0.2.7", False)]
)
def test_address_without_sound_is_told_at_start(host, is_heard, monkeypatch, capsys):
    open_socket = server.open_socket
    monkeypatch.setattr(server, "open_socket", lambda _, port: open_socket("127.0.0.1", port))
    monkeypatch.setattr(
        server, "server_of", lambda app: SimpleNamespace(run=lambda sockets: sockets[0].close())
    )
    monkeypatch.setattr(demo, "choose_backend", lambda *_: lambda: None)
    _run(f"--host={host}", "--port=0")
    text = capsys.readouterr().out
    assert text.startswith("Open http://")
    assert ("Without HTTPS" not in text) == is_heard
