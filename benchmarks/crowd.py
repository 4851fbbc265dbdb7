"""How does the app hold up when a whole company streams at once?

Everybody asks at once and reads their own answer, over HTTP and real sockets, from a server in a process of its own
with SQLite on disk. The engine is scripted: every request gets a token at a steady pace. A token's delay is from the
moment when it was due to the moment when its reader has it; reader and server share the machine. Every event is
checked: none lost, none doubled, the whole text in the database.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import uvloop

_SETTLE_SECONDS = 1.0  # in which what was late by then is caught up with


@dataclass
class Stream:
    """What one reader got. arrivals: time.monotonic() and how many characters had come by then."""

    run_id: str = ""
    conversation_id: str = ""
    begun: float = 0.0  # when the request that began it was sent
    asked: float = 0.0  # when it was answered
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    events: int = 0
    is_done: bool = False


@dataclass(frozen=True)
class Result:
    """Delays in milliseconds. asking_seconds: from the moment when all ask until the last one has been answered; the
    beginning lasts a second longer."""

    people: int
    rate: float
    tokens: int
    events: int
    delay_median: float
    delay_p99: float
    delay_max: float
    asking_seconds: float
    beginning_delay_p99: float
    server_cpu_share: float
    server_peak_mib: float
    reader_cpu_share: float

    def __str__(self) -> str:
        return (
            f"{self.people} people at {self.rate:g} tokens/s: {self.tokens:,} tokens in {self.events:,} events, none "
            f"lost\ndelay added by the server: median {self.delay_median:.0f} ms, p99 {self.delay_p99:.0f} ms, "
            f"most {self.delay_max:.0f} ms\nwhile they all asked at once, which took {self.asking_seconds:.1f} s: "
            f"p99 {self.beginning_delay_p99:.0f} ms\nserver: {self.server_cpu_share:.2f} processors, "
            f"{self.server_peak_mib:.0f} MiB; readers: {self.reader_cpu_share:.2f} processors"
        )


async def _request(
    port: int, method: str, path: str, token: str, body: Any = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """What follows the head of an answer that says yes; any other is raised whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else json.dumps(body).encode()
    writer.write(
        f'{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Fireside: 1\r\nCookie: fireside_session="{token}"\r\n'
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
        + data
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 20"):
        raise RuntimeError(f"{method} {path}: {head.decode()}{(await reader.read()).decode()}")
    return reader, writer


async def _json(port: int, method: str, path: str, token: str, body: Any = None) -> Any:
    reader, writer = await _request(port, method, path, token, body)
    content = await reader.read()
    writer.close()
    return json.loads(content)


async def _converse(port: int, token: str, begin: asyncio.Barrier) -> Stream:
    stream = Stream()
    conversation = await _json(port, "POST", "/api/conversations", token, {"title": "Benchmark"})
    stream.conversation_id = conversation["id"]
    await begin.wait()
    stream.begun = time.monotonic()
    path = f"/api/conversations/{stream.conversation_id}/messages"
    stream.run_id = (await _json(port, "POST", path, token, {"content": "Hello"}))["run"]["id"]
    stream.asked = time.monotonic()
    reader, writer = await _request(port, "GET", f"/api/runs/{stream.run_id}/events", token)
    rest, characters = b"", 0
    while data := await reader.read(1 << 16):
        now = time.monotonic()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"id: "):
                stream.events += 1
                if int(line[4:]) != stream.events:
                    raise RuntimeError(f"event {stream.events} was lost or doubled: {line!r}")
            elif line.startswith(b"data: "):
                event = json.loads(line[6:])
                characters += len(event.get("text", ""))
                stream.is_done = stream.is_done or event["type"] == "done"
        stream.arrivals.append((now, characters))
    writer.close()
    return stream


async def _everybody(port: int, people: list[str], tokens: int) -> list[Stream]:
    begin = asyncio.Barrier(len(people))
    streams = await asyncio.gather(*(_converse(port, token, begin) for token in people))
    for token, stream in zip(people, streams, strict=True):
        tree = await _json(port, "GET", f"/api/conversations/{stream.conversation_id}", token)
        written = tree["messages"][1]
        if not stream.is_done or stream.arrivals[-1][1] != tokens or written["content"] != "x" * tokens:
            raise RuntimeError(f"an answer is incomplete: {stream.arrivals[-1]}, {written['status']}")
    return streams


def _delays(stream: Stream, due: list[float]) -> list[tuple[float, float]]:
    """When each token was due, and how late it came."""
    delays: list[tuple[float, float]] = []
    for arrived, characters in stream.arrivals:
        delays += [(time_due, 1000 * (arrived - time_due)) for time_due in due[len(delays) : characters]]
    return delays


def measure(people: int, rate: float, seconds: float) -> Result:
    tokens = round(rate * seconds)
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "benchmarks.paced_app", str(rate), str(tokens), str(people), home]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdin is not None and server.stdout is not None
            started = json.loads(server.stdout.readline())
            begin, begin_cpu = time.monotonic(), time.process_time()
            before = _cpu_seconds(started["pid"])
            streams = uvloop.run(_everybody(started["port"], started["people"], tokens))
            wall, used = time.monotonic() - begin, _cpu_seconds(started["pid"]) - before
            reader_cpu = time.process_time() - begin_cpu
            server.stdin.close()
            ended = json.loads(server.stdout.readline())
    delays = [delay for stream in streams for delay in _delays(stream, ended["due"][stream.run_id])]
    assert len(delays) == people * tokens
    all_asked = max(stream.asked for stream in streams) + _SETTLE_SECONDS
    beginning = [delay for due, delay in delays if due < all_asked] or [0.0]
    steady = [delay for due, delay in delays if due >= all_asked]
    percentiles = quantiles(steady, n=100)
    return Result(
        people=people,
        rate=rate,
        tokens=len(delays),
        events=sum(stream.events for stream in streams),
        delay_median=percentiles[49],
        delay_p99=percentiles[98],
        delay_max=max(steady),
        asking_seconds=all_asked - _SETTLE_SECONDS - min(stream.begun for stream in streams),
        beginning_delay_p99=quantiles(beginning, n=100)[98] if len(beginning) > 1 else beginning[0],
        server_cpu_share=used / wall,
        server_peak_mib=ended["peak_mib"],
        reader_cpu_share=reader_cpu / wall,
    )


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
