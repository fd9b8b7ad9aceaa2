# SPDX-License-Identifier: Apache-2.0
"""Serves a page on this machine on which a network is heard live.

Usage:
  lmkd-demo [--preset=NAME | --model=FILE] [--backend=keras|tflite|tflm|firmware]
            [--port=8765] [--max_streams=4]

Open the address that it prints: drop a recording there or speak into the microphone. The page
shows levels, spectrograms and dropouts, limits the attenuation and switches to what went in.
Only this machine can open it, and only with the token in the address. Ctrl-C ends it.

Browsers give sound only to pages of their own machine or over HTTPS. To listen on another
machine, start this program without --host, run `ssh -L 8765:127.0.0.1:8765 THIS_MACHINE` there
and open the printed address there.
"""

import importlib.util
import ipaddress
import sys
from collections.abc import Sequence

from absl import flags

from lmkd_tf.cli.common import run_program
from lmkd_tf.cli.enhance import choose_backend, default_preset, define_system_flags

FLAGS = ("preset", "model", "backend", "host", "port", "max_streams")
_LOOPBACK = {"127.0.0.1": ("127.0.0.1", "localhost"), "localhost": ("127.0.0.1", "localhost")}
_NO_SOUND = (
    "Without HTTPS browsers give no sound on this address, so the page will not work there. Start "
    "without --host and use an SSH tunnel to 127.0.0.1 instead: see lmkd-demo --help.\n"
)


def main(arguments: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> int:
    """Runs the program until it is interrupted.

    Args:
        arguments: Name of the program and nothing else.
        values: Parsed flags.

    Returns:
        0.

    Raises:
        ValueError: If the flags do not fit.
        ImportError: If the packages of the extra `demo` are missing.
        OSError: If the port is taken.
    """
    if len(arguments) > 1:
        raise ValueError(
            f"This program takes flags only. Received {list(arguments[1:])}. See lmkd-demo --help."
        )
    _check_packages()
    from lmkd_tf.demo.server import Demo, Limits, open_socket, server_of

    _check_host(values.host)
    make_backend = choose_backend(values.preset, values.model, values.backend)
    make_backend()  # a network that cannot be opened is an error now, not on the page
    socket = open_socket(values.host, values.port)
    port = socket.getsockname()[1]
    hosts = [f"{name}:{port}" for name in _LOOPBACK.get(values.host, (values.host,))]
    name = values.model or values.preset or default_preset(values.backend)
    demo = Demo(make_backend, name, hosts, Limits(num_streams=values.max_streams))
    sys.stdout.write(f"Open http://{hosts[0]}/?token={demo.token}\nCtrl-C ends it.\n")
    if not _is_loopback(values.host):
        sys.stdout.write(_NO_SOUND)
    sys.stdout.flush()
    server_of(demo.app()).run(sockets=[socket])
    return 0


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of this program."""
    define_system_flags(values)
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address to listen on. On another than 127.0.0.1 browsers give no sound without HTTPS, "
        "which this program does not speak: use an SSH tunnel to 127.0.0.1 instead.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "port", 8765, "Port, or 0 for any.", lower_bound=0, upper_bound=65535, flag_values=values
    )
    flags.DEFINE_integer("max_streams", 4, "Listeners at once.", lower_bound=1, flag_values=values)


def run() -> None:
    """Entry point of the console script."""
    define_flags()
    run_program(main, __doc__ or "", FLAGS)


def _check_host(host: str) -> None:
    """Refuses all addresses at once: the page is served under the one name that it knows."""
    if host in ("", "0.0.0.0", "::", "*"):
        raise ValueError(
            "The demo listens on one address, the one that browsers open. "
            f"Received --host={host!r}, which is all of them. Give one address of this machine."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_packages() -> None:
    names = ("starlette", "uvicorn", "websockets")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            "The demo needs the packages of its extra. "
            f"Received an installation without {', '.join(missing)}. "
            'Run: pip install "lmkd-tf[demo]".'
        )


if __name__ == "__main__":
    run()
