# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium, driven through its DevTools socket."""

import json
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --mute-audio "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--autoplay-policy=no-user-gesture-required --use-fake-ui-for-media-stream "
    "--use-fake-device-for-media-stream --remote-debugging-port=0 --window-size=400,800"
)
# This machine under a name that browsers do not know as such, as in a local network.
OTHER_NAME = "demo.test"
_PATIENCE_SECONDS = 240.0


class Browser:
    """One page of a browser of its own.

    Args:
        chromium: Program.
        profile: Folder for its profile.
        microphone: wav file that the microphone hears, over and over.
    """

    def __init__(self, chromium: str, profile: Path, microphone: Path | None = None):
        sound = [f"--use-file-for-fake-audio-capture={microphone}"] if microphone else []
        self._process = subprocess.Popen(
            [
                chromium,
                *_FLAGS.split(),
                *sound,
                f"--host-resolver-rules=MAP {OTHER_NAME} 127.0.0.1",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._profile, self._count = profile, 0
        port = profile / "DevToolsActivePort"
        wait_for(lambda: port.exists() and len(port.read_text().splitlines()) == 2, "Chromium")
        number, path = port.read_text().splitlines()
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(
            connect(f"ws://127.0.0.1:{number}{path}", max_size=None, proxy=None)
        )
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the DevTools protocol and returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=_PATIENCE_SECONDS))
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            if "method" in answer and hasattr(self, "events"):
                self.events.append(answer)

    def open(self, address: str) -> None:
        """Opens a page and waits until it is loaded."""
        self.call("Page.navigate", url=address)
        wait_for(lambda: self.value("document.readyState") == "complete", address)

    def value(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression; waits for a promise."""
        result = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Puts a file into an input, as a person would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def addresses(self) -> list[str]:
        """Addresses of everything that was asked for."""
        requests = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        sockets = [e for e in self.events if e["method"] == "Network.webSocketCreated"]
        return [e["params"]["request"]["url"] for e in requests] + [
            e["params"]["url"] for e in sockets
        ]

    def complaints(self) -> list[str]:
        """Errors on the console of the page."""
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        thrown = [e for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        return [entry["text"] for entry in logged if entry["level"] == "error"] + [
            str(event["params"]) for event in thrown
        ]

    def close(self) -> None:
        """Ends the browser."""
        self._stack.close()
        self._process.terminate()
        self._process.wait(timeout=_PATIENCE_SECONDS)
        shutil.rmtree(self._profile, ignore_errors=True)


def wait_for(condition: Any, what: str) -> None:
    """Waits until a condition holds."""
    patience = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < patience, f"waited in vain: {what}"
        time.sleep(0.05)
