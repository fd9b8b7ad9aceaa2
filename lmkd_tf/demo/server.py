# SPDX-License-Identifier: Apache-2.0
"""The web server of the demo: a page, and one WebSocket per listener.

Nothing is stored and nothing leaves the machine. Only who knows the token gets in, only a
page of this server may open a stream, and all that a listener can use up is bounded.
"""

import asyncio
import contextlib
import importlib.resources
import json
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from string import Template

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from lmkd_tf.demo.stream import MAX_ATTENUATION_LIMIT_DB, Stream
from lmkd_tf.evaluate.streaming import Backend

# Close codes of WebSockets (RFC 6455 and its registry).
BAD_MESSAGE, TRY_LATER, TIMED_OUT, FAILED = 1003, 1013, 1001, 1011
MAX_MESSAGE_BYTES = 4096


@dataclass(frozen=True)
class Limits:
    """What a listener may use up.

    Args:
        num_streams: Streams at once; further ones are told to come back later.
        idle_seconds: A stream that sends nothing for so long is ended.
        send_seconds: A stream that takes nothing for so long is ended.
        stream_seconds: Longest stream, in seconds of audio and on the clock.
    """

    num_streams: int = 4
    idle_seconds: float = 30.0
    send_seconds: float = 10.0
    stream_seconds: float = 3600.0


class Demo:
    """Serves the page and the streams.

    Args:
        make_backend: Opens the network; called once per stream that runs at the same time.
        model_name: Name of the network, shown on the page.
        hosts: `name:port` under which the server is reached.
        limits: What a listener may use up.
    """

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        model_name: str,
        hosts: Sequence[str],
        limits: Limits | None = None,
    ):
        self.token = secrets.token_urlsafe(24)
        self.limits = limits or Limits()
        self.num_active = 0
        self._make_backend, self._model_name, self._hosts = make_backend, model_name, hosts
        self._free: list[Backend] = []

    def app(self) -> Starlette:
        """Returns the ASGI application."""
        names = sorted({host.rpartition(":")[0] for host in self._hosts})
        return Starlette(
            routes=[Route("/", self._page), WebSocketRoute("/stream", self._stream)],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=names)],
        )

    async def _page(self, request: Request) -> Response:
        if not self._is_known(request.query_params.get("token")):
            return PlainTextResponse("Open the address that lmkd-demo printed.", 403, _HEADERS)
        nonce = secrets.token_urlsafe(16)
        text = Template(_resource("page.html")).substitute(
            nonce=nonce,
            model=escape(self._model_name),
            max_limit=f"{MAX_ATTENUATION_LIMIT_DB:g}",
            css=_resource("page.css"),
            script=_resource("page.js"),
            worklet=_resource("worklet.js"),
        )
        sockets = " ".join(f"ws://{host}" for host in self._hosts)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}' blob:; style-src 'nonce-{nonce}'; "
            f"connect-src {sockets} blob:; img-src data:; media-src blob:; worker-src blob:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(text, headers={**_HEADERS, "Content-Security-Policy": policy})

    async def _stream(self, websocket: WebSocket) -> None:
        origins = {f"http://{host}" for host in self._hosts}
        is_known = self._is_known(websocket.query_params.get("token"))
        if not is_known or websocket.headers.get("origin") not in origins:
            await websocket.close()  # before it is accepted: status 403
            return
        await websocket.accept()
        if self.num_active >= self.limits.num_streams:
            await self._end(websocket, TRY_LATER, "All streams are in use. Try again later.")
            return
        self.num_active += 1
        try:
            await self._serve(websocket)
        finally:
            self.num_active -= 1

    async def _serve(self, websocket: WebSocket) -> None:
        try:
            backend = (
                self._free.pop() if self._free else await asyncio.to_thread(self._make_backend)
            )
            await self._answer(websocket, Stream(backend))
        except (RuntimeError, OSError) as error:  # a back-end that failed is not used again
            await self._end(websocket, FAILED, f"The network failed: {error}")
        else:
            self._free.append(backend)

    async def _answer(self, websocket: WebSocket, stream: Stream) -> None:
        """Runs a stream to its end; what the listener does wrong ends it with the reason."""
        try:
            await self._run(websocket, stream)
        except ValueError as error:
            await self._end(websocket, BAD_MESSAGE, str(error))
        except TimeoutError as error:
            await self._end(websocket, TIMED_OUT, str(error) or "The stream stood still.")
        except WebSocketDisconnect:
            pass

    async def _run(self, websocket: WebSocket, stream: Stream) -> None:
        frame = {"sample_rate_hz": stream.sample_rate_hz, "hop_length": stream.hop_length}
        await self._send(websocket, json.dumps(frame))
        max_hops = self.limits.stream_seconds * stream.sample_rate_hz / stream.hop_length
        num_hops, end_s = 0, time.monotonic() + self.limits.stream_seconds
        while True:
            message = await asyncio.wait_for(websocket.receive(), self.limits.idle_seconds)
            if message["type"] == "websocket.disconnect":
                return
            num_hops += message.get("bytes") is not None
            if num_hops > max_hops or time.monotonic() > end_s:
                raise TimeoutError("The stream has lasted as long as it may. Open another.")
            if message.get("bytes") is not None:
                answer = await asyncio.to_thread(stream.process, message["bytes"])
                await self._send(websocket, answer)
            elif "is_finished" in stream.change(message["text"]):
                await self._send(websocket, await asyncio.to_thread(stream.finish))
                await self._send(websocket, json.dumps({"is_finished": True}))

    async def _send(self, websocket: WebSocket, message: str | bytes) -> None:
        send = websocket.send_text if isinstance(message, str) else websocket.send_bytes
        await asyncio.wait_for(send(message), self.limits.send_seconds)  # type: ignore[arg-type]

    async def _end(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Closes a stream; one that takes nothing is left to the server's own time limit."""
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            await self._send(websocket, json.dumps({"error": reason}))
            await asyncio.wait_for(websocket.close(code), self.limits.send_seconds)

    def _is_known(self, token: str | None) -> bool:
        return secrets.compare_digest((token or "").encode(), self.token.encode())


def open_socket(host: str, port: int) -> socket.socket:
    """Takes a port of this machine.

    Args:
        host: Address to listen on.
        port: Port, or 0 for any free one.

    Raises:
        OSError: If the port is taken or may not be used.
    """
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise OSError(
            "The demo needs a free port. "
            f"Received {host}:{port}, which cannot be used ({error.strerror}). "
            "Give another --port, or 0 for any."
        ) from error


def server_of(app: Starlette) -> uvicorn.Server:
    """Returns the server that runs an application; `run(sockets=[...])` starts it."""
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_max_queue=8,
        ws_per_message_deflate=False,
        access_log=False,  # it would hold the token
        log_level="warning",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=16384,
    )
    return uvicorn.Server(config)


def _resource(name: str) -> str:
    return (importlib.resources.files("lmkd_tf.demo") / name).read_text("utf-8")


_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "microphone=(self)",
}
