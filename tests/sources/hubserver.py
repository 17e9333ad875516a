"""The few endpoints of a Hugging Face hub that a download needs, on 127.0.0.1."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Repository:
    """Files by name, the commit that they are, what else ``model_info`` says; a status that all requests answer."""

    files: dict[str, bytes]
    commit: str = "1" * 40
    info: dict[str, Any] = field(default_factory=dict)
    refuse: tuple[int, str] | None = None
    claims: dict[str, int] = field(default_factory=dict)


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    ranges: list[tuple[str, int]] = field(default_factory=list)  # file and bytes of each range that was sent

    def fetched(self) -> set[str]:
        """Names of the files that were downloaded."""
        return {path.rpartition("/")[2] for verb, path in self.requests if verb == "GET" and "/resolve/" in path}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def json(self, content: object, **headers: str) -> None:
            self.answer(200, json.dumps(content).encode(), Content_Type="application/json", **headers)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path))
            hub.tokens.add(self.headers.get("authorization", ""))
            name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
            repository = hub.repositories.get(name)
            if repository is None:
                return self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            if repository.refuse:
                return self.answer(repository.refuse[0], b"{}", X_Error_Code=repository.refuse[1])
            rest = path.partition(name)[2].strip("/").split("/", 2)
            if len(rest) > 1 and rest[1] not in ("main", repository.commit):
                return self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
            listed = {file: repository.claims.get(file, len(data)) for file, data in repository.files.items()}
            if rest[0] == "resolve":
                if rest[2] not in repository.files:
                    return self.answer(404, b"", X_Error_Code="EntryNotFound")
                data = repository.files[rest[2]]
                etag = hashlib.sha256(data).hexdigest()
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if asked and int(asked[1]) < len(data):
                    part = data[int(asked[1]) : int(asked[2]) + 1]
                    hub.ranges.append((rest[2], len(part)))
                    said = f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}"
                    return self.answer(206, part, ETag=f'"{etag}"', Content_Range=said)
                return self.answer(200, data, ETag=f'"{etag}"', X_Repo_Commit=repository.commit)
            if rest[0] == "tree":
                return self.json([{"type": "file", "path": f, "size": s, "oid": "0" * 40} for f, s in listed.items()])
            siblings = [{"rfilename": f, "size": s} for f, s in listed.items()]
            return self.json({"id": name, "sha": repository.commit, "siblings": siblings, **repository.info})

    return Handler


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub without repositories; put some into it."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
