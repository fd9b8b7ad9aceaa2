# SPDX-License-Identifier: Apache-2.0
"""A local HTTP server with ranges, whose connections can be made to break off."""

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What the server offers and how it behaves.

    Args:
        files: Path -> content.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.has_ranges = True
        self.breaks_after: list[int] = []  # bytes after which the next answers break off
        self.errors: list[int] = []  # HTTP status of the next answers
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""


@contextlib.contextmanager
def serve_site(files: dict[str, bytes]) -> Iterator[Site]:
    """Serves files on a free port of this machine."""
    site = Site(files)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.requests.append((self.path, asked))
            content = site.files.get(self.path)
            if site.errors or content is None:
                self.send_error(site.errors.pop(0) if site.errors else 404)
                return
            match = re.fullmatch(r"bytes=(\d+)-", asked or "")
            start = int(match[1]) if match and site.has_ranges else 0
            if start >= len(content) and start:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                total = len(content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.end_headers()
            length = site.breaks_after.pop(0) if site.breaks_after else len(content)
            self.wfile.write(content[start : start + length])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
