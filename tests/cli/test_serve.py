"""`fireside serve` from its first line to its end by signal."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fireside.cli.serving import address_of, bind
from fireside.errors import FiresideError
from fireside.server.http_protocol import MAX_HEAD_BYTES
from tests.cli.programs import SCRIPTED, environment


@contextmanager
def served(home: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running process and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPTED, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home, **settings),
        cwd=home,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Fireside is ready on http://127.0.0.1:"), process.communicate(timeout=30)[1]
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate()


def stream(address: str) -> Iterator[str]:
    body = {"model": "default", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as response:
        for line in response:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])["choices"][0]["delta"].get("content") or ""


def test_ready_means_ready(tmp_path: Path) -> None:
    with served(tmp_path, SAYS="Good day.") as (process, address):
        assert process.stdout is not None
        assert "It serves scripted (float32 on cpu, 2,048 tokens of context)" in process.stdout.readline()
        assert "".join(stream(address)) == "Good day."
        assert b"<html" in urllib.request.urlopen(address, timeout=30).read()


def exchange(address: str, *pieces: bytes) -> bytes:
    """What comes back for these bytes until the server closes the connection."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""  # closed while more was on its way


def head(
    size: int, *, method: bytes = b"GET /healthz", more: bytes = b"Connection: close\r\n", end: bytes = b"\r\n\r\n"
) -> bytes:
    """A request line and headers, `size` bytes in all."""
    start = method + b" HTTP/1.1\r\nHost: localhost\r\n" + more + b"X: "
    return start + b"x" * (size - len(start) - len(end)) + end


def test_heads_are_bounded_before_any_key_is_looked_at(tmp_path: Path) -> None:
    with served(tmp_path, FIRESIDE_API_KEYS="secret") as (_, address):
        assert exchange(address, head(MAX_HEAD_BYTES)).startswith(b"HTTP/1.1 200 ")
        half = head(MAX_HEAD_BYTES // 2, end=b"", more=b"")
        endless = [
            [head(MAX_HEAD_BYTES, end=b"")],  # one long header
            [half, b"\r\n" + b"a: b\r\n" * ((MAX_HEAD_BYTES - len(half)) // 6)],  # many, in several pieces
            [b"GET /" + b"a" * (MAX_HEAD_BYTES - 5)],  # a request line
        ]
        for pieces in endless:
            answer = exchange(address, *pieces)
            assert answer.startswith(b"HTTP/1.1 431 ") and b'"code":"headers_too_large"' in answer, pieces[0][:60]
        more = b"Connection: close\r\nAuthorization: Bearer secret\r\nContent-Type: application/json\r\n"
        body = json.dumps({"prompt": "x" * 3 * MAX_HEAD_BYTES}).encode()  # is no head
        length = b"Content-Length: %d\r\n" % len(body)
        assert exchange(address, head(300, method=b"POST /tokenize", more=more + length), body).startswith(
            b"HTTP/1.1 200 "
        )
        chunked = head(300, method=b"POST /tokenize", more=more + b"Transfer-Encoding: chunked\r\n")
        trailer = b"0\r\nA: " + b"a" * (2 * MAX_HEAD_BYTES)
        assert exchange(address, chunked, trailer) == b""  # closed: its answer would wait for the trailer's end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    with served(tmp_path) as (process, _):
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == "loading tiny …\nFireside has stopped.\n"


def test_ctrl_c_does_not_wait_for_an_endless_answer(tmp_path: Path) -> None:
    with served(tmp_path, SAYS="word " * 10_000) as (process, address):
        pieces = stream(address)
        assert next(piece for piece in pieces if piece)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_engine_that_cannot_start_ends_the_command(tmp_path: Path) -> None:
    broken = SCRIPTED.replace(
        "main.main()",
        """
from fireside.engine.client import EngineUnavailable
from fireside.engine.scripted import ScriptedClient
async def wait_ready(self): raise EngineUnavailable("the weights are of another planet")
ScriptedClient.wait_ready = wait_ready
main.main()""",
    )
    result = subprocess.run(
        [sys.executable, "-c", broken, "serve", "--port", "0"],
        capture_output=True, text=True, env=environment(tmp_path), timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "loading tiny …\nfireside: the weights are of another planet\n"


# The files of the model take a while, or are unusable, when its engine has been started already.
PREPARING = SCRIPTED.replace(
    "main.main()",
    """
import asyncio, time
from fireside.errors import ModelError
def registry_of(*arguments):
    print("reading", flush=True)
    time.sleep(SECONDS)
    raise ModelError("the tokenizer is of another planet")
web_server.registry_of = registry_of
async def close(): print("closed", flush=True)
model.engine.close = close
main.main()""",
)


def test_files_that_are_unusable_end_the_command_and_the_engine(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PREPARING.replace("SECONDS", "0"), "serve", "--port", "0"],
        capture_output=True, text=True, env=environment(tmp_path), timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (1, "reading\nclosed\n")
    assert result.stderr == "loading tiny …\nfireside: the tokenizer is of another planet\n"


@pytest.mark.parametrize(
    ("number", "is_in_background"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_signals_stop_it_while_it_starts(number: signal.Signals, is_in_background: bool, tmp_path: Path) -> None:
    """In the background of a script as well, where shells let what they start ignore SIGINT."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN if is_in_background else signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PREPARING.replace("SECONDS", "1"), "serve", "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path),
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, handler)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "closed\n")
    assert errors == "loading tiny …\nFireside has stopped.\n"


def test_bind_says_what_stands_in_the_way() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(FiresideError, match=f"port {port} of 127.0.0.1 is taken"):
            bind("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass  # who comes early waits in the queue
    with pytest.raises(FiresideError, match=r"'203\.0\.113\.1' is not an address of this machine"):
        bind("203.0.113.1", 0)  # of a range kept for documentation (RFC 5737)


def test_addresses_to_open() -> None:
    with bind("0.0.0.0", 0) as listener:
        assert address_of(listener).startswith("http://127.0.0.1:")
    if socket.has_ipv6:
        with bind("::1", 0) as listener:
            assert address_of(listener).startswith("http://[::1]:")
