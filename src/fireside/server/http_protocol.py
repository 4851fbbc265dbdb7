"""uvicorn's HTTP parser with a bound on what a client may send before its request is known.

Headers are kept in memory from the first byte, before any API key is looked at; uvicorn bounds neither their number nor
their size.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024  # of request line and headers together

_BODY = (
    b'{"error":{"message":"the request line and headers are longer than %d bytes","type":"invalid_request_error",'
    b'"param":null,"code":"headers_too_large"}}' % MAX_HEAD_BYTES
)
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431, and closes the connection, when `MAX_HEAD_BYTES` have not completed a request's head.

    The trailers of a chunked body, which are headers too, have the same bound.
    """

    _head_bytes = 0  # received since the last head was complete, or the last piece of a body came

    def data_received(self, data: bytes) -> None:
        start = 0
        while start < len(data) and not self.transport.is_closing():
            piece = data[start : start + MAX_HEAD_BYTES - self._head_bytes]
            start += len(piece)
            self._head_bytes += len(piece)
            super().data_received(piece)
            if self._head_bytes == MAX_HEAD_BYTES:
                self._refuse()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def _refuse(self) -> None:
        if self.transport.is_closing():  # it was no HTTP, which has been said
            return
        if self.cycle is None or self.cycle.response_complete:  # else it would land amid another answer
            self.transport.write(_ANSWER)
        self.transport.close()
