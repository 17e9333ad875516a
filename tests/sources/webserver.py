"""A web server on 127.0.0.1 that reads by ranges, counts what it sends, and misbehaves as it is told."""

from __future__ import annotations

import base64
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Web:
    """Files by path, and what is wrong with the server. ``requests``: path with query, range, and bytes sent."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    ranges: bool = True
    lengths: bool = True  # states Content-Length
    etag: str | None = '"one"'
    etags: list[str] = field(default_factory=list)  # of the next answers, before ``etag``
    busy: list[int] = field(default_factory=list)  # statuses of the next answers
    break_after: list[int] = field(default_factory=list)  # bytes after which the next bodies break off
    content_range: str = ""  # stated in place of the true one; {start} {stop} {size}
    content_length: int | None = None
    extra: dict[str, str] = field(default_factory=dict)  # further headers
    moved: dict[str, str] = field(default_factory=dict)
    user: str = ""  # user:password that is asked for
    query: str = ""  # that is asked for

    @property
    def sent(self) -> int:
        """Bytes of bodies."""
        return sum(count for _, _, count in self.requests)

    def of(self, path: str) -> list[tuple[str, str, int]]:
        """The requests for a path."""
        return [request for request in self.requests if request[0].partition("?")[0] == path]


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            cut = web.break_after.pop(0) if web.break_after and status in (200, 206) else None
            self.send_response(status)
            stated = len(body) if web.content_length is None else web.content_length
            said = {**({"Content-Length": str(stated)} if web.lengths else {"Connection": "close"}), **headers}
            for name, value in {**said, **web.extra}.items():
                self.send_header(name, value)
            self.end_headers()
            sent = body if cut is None else body[:cut]
            web.requests.append((self.path, self.headers.get("Range", ""), len(sent)))
            self.wfile.write(sent)
            if cut is not None or not web.lengths:
                self.close_connection = True

        def do_GET(self) -> None:
            web.headers.append(dict(self.headers))
            if web.busy:
                return self.answer(web.busy.pop(0), b"busy", {})
            path, _, query = self.path.partition("?")
            if path in web.moved:
                return self.answer(302, b"", {"Location": web.moved[path]})
            wanted = "Basic " + base64.b64encode(web.user.encode()).decode()
            if (web.user and self.headers.get("Authorization") != wanted) or (web.query and query != web.query):
                return self.answer(403, b"no", {})
            if path not in web.files:
                return self.answer(404, b"none", {})
            data = web.files[path]
            etag = web.etags.pop(0) if web.etags else web.etag
            headers = {"ETag": etag} if etag else {}
            if "If-Match" in self.headers and self.headers["If-Match"] != etag:
                return self.answer(412, b"", headers)
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if not web.ranges or match is None:
                return self.answer(200, data, headers)
            start, stop = int(match[1]), min(int(match[2]) + 1, len(data))
            if start >= len(data):
                return self.answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
            said = web.content_range or "bytes {start}-{stop}/{size}"
            said = said.format(start=start, stop=stop - 1, size=len(data))
            return self.answer(206, data[start:stop], {**headers, "Content-Range": said})

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that closes its connection is no error."""


@contextmanager
def serving_files() -> Iterator[Web]:
    """A server without files; put some into it."""
    web = Web()
    server = _Server(("127.0.0.1", 0), _handler(web))
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
