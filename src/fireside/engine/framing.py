"""Frames on a stream socket: a length of four bytes, big-endian, then so many bytes of msgpack.

A frame that is too long or cannot be decoded is a `FrameError`: after it the stream has no meaning any more, and the
connection must be given up.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import TypeVar

import msgspec

_HEADER = 4
_RECEIVE_BYTES = 1 << 18
MAX_FRAME = 64 * 1024 * 1024  # bytes; the largest real frame, 20 logprobs for each token of a long prompt, is a tenth

Message = TypeVar("Message")


class FrameError(Exception):
    """What arrived is no frame of this protocol, or what is to be sent does not fit one."""


def encode_frame(message: msgspec.Struct) -> bytes:
    """Header and payload. Raises `FrameError` if the message is too long, or holds what msgpack cannot."""
    frame = bytearray(_HEADER)
    try:
        msgspec.msgpack.Encoder().encode_into(message, frame, _HEADER)
    except (ValueError, OverflowError) as error:  # half a surrogate pair, an integer of more than 64 bits
        raise FrameError(f"a message cannot be encoded: {error}") from error
    length = len(frame) - _HEADER
    if length > MAX_FRAME:
        raise FrameError(f"a message of {length} bytes is longer than a frame may be ({MAX_FRAME} bytes)")
    frame[:_HEADER] = length.to_bytes(_HEADER, "big")
    return bytes(frame)


def decode_payload(payload: bytes, decoder: msgspec.msgpack.Decoder[Message]) -> Message:
    """The message of one frame. Raises `FrameError` if it is not of the decoder's type."""
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"a frame cannot be decoded: {error}") from error


class FrameSplitter:
    """From bytes, in pieces of any size, to the payloads of whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def incomplete(self) -> bool:
        """Whether a frame has begun that has not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes. Raises `FrameError` as soon as a header claims too much."""
        buffer = self._buffer
        buffer += data
        payloads: list[bytes] = []
        start = 0
        while len(buffer) - start >= _HEADER:
            length = int.from_bytes(buffer[start : start + _HEADER], "big")
            if length > MAX_FRAME:
                raise FrameError(f"a frame claims {length} bytes; the most allowed is {MAX_FRAME}")
            end = start + _HEADER + length
            if len(buffer) < end:
                break
            payloads.append(bytes(buffer[start + _HEADER : end]))
            start = end
        del buffer[:start]
        return payloads


def read_frames(sock: socket.socket) -> Iterator[bytes]:
    """Payloads from a blocking socket until the other side closes it. Raises OSError, and `FrameError`."""
    splitter = FrameSplitter()
    while data := sock.recv(_RECEIVE_BYTES):
        yield from splitter.feed(data)
    if splitter.incomplete:
        raise FrameError("the connection ended within a frame")


class FrameSender:
    """Sends frames over a blocking socket from any thread, each of them whole."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()

    def send(self, message: msgspec.Struct) -> None:
        """Raises OSError if the other side is gone, `FrameError` if the message is too long."""
        frame = encode_frame(message)
        with self._lock:
            self._socket.sendall(frame)
