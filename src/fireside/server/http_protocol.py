"""uvicorn's HTTP parser with bounds on what a client may send, and how slowly, before anybody knows who it is.

Headers are kept in memory from the first byte, before any API key is looked at; uvicorn bounds neither their number nor
their size, nor the time that a request may take to arrive, nor how many connections one address may hold.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fireside.server.accounts.limits import network_of

MAX_HEAD_BYTES = 64 * 1024  # of request line and headers together
HEAD_SECONDS = 15.0  # from the first byte of a request, or the connection, to the end of its head
BODY_SECONDS = 30.0  # that a body may take, and one more for every so many bytes of it:
BODY_BYTES_PER_SECOND = 8 * 1024
MAX_CONNECTIONS = 4096
MAX_CONNECTIONS_EACH = 512  # of an address that is not this machine's, behind which a proxy speaks for everybody


def _answer(status: bytes, code: str, message: str) -> bytes:
    body = b'{"error":{"message":"%s","type":"invalid_request_error","param":null,"code":"%s"}}' % (
        message.encode(),
        code.encode(),
    )
    head = b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


_TOO_LARGE = _answer(
    b"431 Request Header Fields Too Large",
    "headers_too_large",
    f"the request line and headers are longer than {MAX_HEAD_BYTES} bytes",
)
_TOO_SLOW = _answer(b"408 Request Timeout", "request_timeout", "the request took too long to arrive")
_TOO_MANY = _answer(b"503 Service Unavailable", "too_many_connections", "too many connections; try again shortly")

_connections: Counter[str] = Counter()  # by network, of this process


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431, and closes the connection, when `MAX_HEAD_BYTES` have not completed a request's head.

    The trailers of a chunked body, which are headers too, have the same bound. Answers 408 to a request that takes too
    long to arrive, and 503 to one connection too many.
    """

    _head_bytes = 0  # received since the last head was complete, or the last piece of a body came
    _body_bytes = 0
    _since = 0.0  # of the loop's clock: when what is being received began
    _is_receiving = True  # a head or a body; False between a request's end and the next one's beginning
    _timer: asyncio.TimerHandle | None = None
    _network: str | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin()
        address = self.client[0] if self.client else ""
        self._network = network_of(address)
        _connections[self._network] += 1
        is_one_too_many = _connections[self._network] > MAX_CONNECTIONS_EACH and not _is_local(address)
        if is_one_too_many or len(self.connections) > MAX_CONNECTIONS:
            transport.write(_TOO_MANY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._network is not None:
            _connections[self._network] -= 1
            if not _connections[self._network]:
                del _connections[self._network]
            self._network = None
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._is_receiving, self._body_bytes, self._since = True, 0, self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._check_pace)

    def _check_pace(self) -> None:
        """One timer a connection, which is moved on when it goes off and not with every piece."""
        self._timer = None
        if not self._is_receiving or self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            allowed = BODY_SECONDS + self._body_bytes / BODY_BYTES_PER_SECOND
            if self.flow.read_paused:  # it is us who are slow
                self._since, allowed = self.loop.time(), BODY_SECONDS
        else:
            allowed = HEAD_SECONDS
        left = self._since + allowed - self.loop.time()
        if left <= 0:
            self._refuse(_TOO_SLOW)
        else:
            self._timer = self.loop.call_later(left + 0.01, self._check_pace)

    def data_received(self, data: bytes) -> None:
        if not self._is_receiving:
            self._begin()
        start = 0
        while start < len(data) and not self.transport.is_closing():
            piece = data[start : start + MAX_HEAD_BYTES - self._head_bytes]
            start += len(piece)
            self._head_bytes += len(piece)
            super().data_received(piece)
            if self._head_bytes == MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        self._since = self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._is_receiving = False
        super().on_message_complete()

    def _refuse(self, answer: bytes) -> None:
        if self.transport.is_closing():  # it was no HTTP, which has been said
            return
        is_waited_for = answer is _TOO_SLOW and self.cycle is not None and not self.cycle.response_started
        if (
            self.cycle is None or self.cycle.response_complete or is_waited_for
        ):  # else it would land amid another answer
            self.transport.write(answer)
        self.transport.close()


def _is_local(address: str) -> bool:
    return address.startswith("127.") or address in ("", "::1")
