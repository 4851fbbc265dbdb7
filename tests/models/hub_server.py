"""A local stand-in for the Hugging Face hub's HTTP API: model info, and files with ranges."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".gguf", ".bin")  # what the hub keeps in LFS, with a SHA-256


@dataclass
class FakeHub:
    """Serves `repositories[name][file] -> bytes`. The other fields make it misbehave."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    licence: str = "apache-2.0"
    break_after: list[int] = field(default_factory=list)  # bytes after which the next large transfers break off
    announced: dict[str, str] = field(default_factory=dict)  # file -> SHA-256 in place of its own
    status: int = 200  # of every answer
    error_code: str = ""
    ranges: list[tuple[str, str | None]] = field(default_factory=list)  # file and Range header of every GET
    tokens: list[str | None] = field(default_factory=list)

    def info(self, name: str) -> dict[str, object]:
        return {
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "tags": ["text-generation", f"license:{self.licence}"],
            "siblings": [self._sibling(file, data) for file, data in self.repositories[name].items()],
        }

    def _sibling(self, file: str, data: bytes) -> dict[str, object]:
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        sibling: dict[str, object] = {"rfilename": file, "size": len(data), "blobId": blob}
        if file.endswith(LARGE):
            sha256 = self.announced.get(file, hashlib.sha256(data).hexdigest())
            sibling["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
        return sibling


@contextmanager
def serve_hub(hub: FakeHub) -> Iterator[str]:
    """The address of a server that answers for `hub`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.tokens.append(self.headers.get("authorization"))
            if hub.status != 200:
                self._answer(hub.status, b"{}", {"X-Error-Code": hub.error_code})
            elif info := re.fullmatch(r"/api/models/([^/]+/[^/?]+)/revision/[^?]+\?blobs=true", self.path):
                if info[1] in hub.repositories:
                    self._answer(200, json.dumps(hub.info(info[1])).encode(), {"Content-Type": "application/json"})
                else:
                    self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif file := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", self.path):
                self._file(file[2], hub.repositories[file[1]][file[2]])
            else:
                self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        def _file(self, name: str, data: bytes) -> None:
            wanted = self.headers.get("range")
            hub.ranges.append((name, wanted))
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if wanted else {}
            stop = hub.break_after.pop(0) if hub.break_after and name.endswith(LARGE) else None
            self._answer(206 if wanted else 200, data[start:], headers, stop)

        def _answer(self, status: int, body: bytes, headers: dict[str, str], stop: int | None = None) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if stop is None else body[:stop])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: pytest shows what fails."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
