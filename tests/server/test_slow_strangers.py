"""Who sends slowly, or opens more connections than anybody needs, gets no further."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fireside.server import http_protocol
from fireside.server.http_protocol import BoundedHttpProtocol
from tests.server.scripted_app import Scripted, running, scripted_app


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.4)
    monkeypatch.setattr(http_protocol, "BODY_BYTES_PER_SECOND", 1000)
    with running(scripted_app(Scripted()), http=BoundedHttpProtocol) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


def dripped(address: tuple[str, int], first: bytes, rest: bytes, every: float) -> tuple[bytes, float]:
    """What comes back to one who sends `rest` byte by byte, and after how long the connection was over."""
    with socket.create_connection(address, timeout=5) as connection:
        begin = time.monotonic()
        connection.sendall(first)
        connection.settimeout(every)
        answer = b""
        for byte in (*rest, None):
            try:
                if byte is None:
                    connection.settimeout(5)
                else:
                    connection.sendall(bytes([byte]))
                while piece := connection.recv(4096):
                    answer += piece
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        return answer, time.monotonic() - begin


POST = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nX-Fireside: 1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"", b""),  # a connection that says nothing
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: " + b"x" * 100),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 100),  # the second one
        (POST + b"Content-Length: 1000\r\n\r\n{", b" " * 100),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n" * 30),
    ],
    ids=["silent", "head", "second-head", "body", "chunks"],
)
def test_what_comes_too_slowly_is_cut(first: bytes, rest: bytes, address: tuple[str, int]) -> None:
    answer, seconds = dripped(address, first, rest, 0.05)
    assert b"HTTP/1.1 408 " in answer and b'"code":"request_timeout"' in answer
    assert 0.3 < seconds < 3


def test_what_comes_at_its_pace_may_take_longer(address: tuple[str, int]) -> None:
    """A second and a half at twice the slowest pace, which is a body of 3,000 bytes."""
    body = b'{"email": "a@example.com", "password": "x"' + b" " * 3000 + b"}"
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 200):
            connection.sendall(body[start : start + 200])
            time.sleep(0.08)
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_an_answer_may_last(address: tuple[str, int]) -> None:
    """Bounds are on what is received."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.6)  # idle, as a browser's connection is until uvicorn's own limit
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch, address: tuple[str, int]) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 30)
    monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS", 5)
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(address, timeout=5))
        refused = stack.enter_context(socket.create_connection(address, timeout=5))
        assert refused.recv(4096).startswith(b"HTTP/1.1 503 ")
    time.sleep(0.2)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_one_address_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch, address: tuple[str, int]) -> None:
    """As if 127.0.0.1 were not this machine."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 30)
    monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS_EACH", 3)
    monkeypatch.setattr(http_protocol, "_is_local", lambda address: False)
    with ExitStack() as stack:
        open_ones = [stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(4)]
        assert open_ones[3].recv(4096).startswith(b"HTTP/1.1 503 ")
    time.sleep(0.2)
    assert not http_protocol._connections
