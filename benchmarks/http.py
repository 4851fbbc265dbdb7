"""How does the server feel to its clients, from one to 128 at once? And what does it cost to have it up?

    .venv/bin/python -m benchmarks.http [--model MODEL] [--clients 1 8 32 128] [--json FILE]
    .venv/bin/python -m benchmarks.http --url http://127.0.0.1:8000

Without --url it starts `fireside serve` on a free port with a home folder of its own, several times: what a start takes
is of interest too. The engine is a process of its own, so the server's memory and CPU time are without it. Clients hold
one streaming chat each and begin all at once; answers have a fixed length. They run beside the server on the same
cores: the CPU time that they take is printed, for it is missing elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import uvloop
from benchmarks.machine import Machine, first_fields

from fireside.errors import FiresideError
from fireside.models.local import DEFAULT_ALIAS, resolve_model
from fireside.settings import load_settings

_READY = "Fireside is ready on "  # the line of `fireside serve`, before its address
_MOST_REQUESTS = 16  # that one client sends in turn, and
_FEWEST_REQUESTS = 2


class BenchmarkError(Exception):
    pass


@dataclass
class Answer:
    """Times of time.perf_counter(). arrivals: of every piece of text. tokens: as the server counts them."""

    sent: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0


@dataclass(frozen=True)
class Level:
    """What so many clients saw, in seconds."""

    clients: int
    requests: int
    tokens_per_second: float
    first_token: dict[str, float]  # by "median", "p95", "p99"
    between_tokens: dict[str, float]
    client_cpu_share: float  # of one core


@dataclass(frozen=True)
class Start:
    """One `fireside serve`, from its start. The server's process alone, without its engine's."""

    ready_seconds: float
    first_token_seconds: float
    server_cpu_seconds: float  # until ready
    server_resident_bytes: int  # when ready


async def ask(url: str, key: str, prompt: str, tokens: int) -> Answer:
    """One streamed answer of exactly `tokens` tokens, over a connection of its own.

    No HTTP library: at hundreds of pieces a second one would take more of the processor than the server does.
    """
    request = {
        "model": DEFAULT_ALIAS, "messages": [{"role": "user", "content": prompt}], "temperature": 0,
        "max_tokens": tokens, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    body = json.dumps(request).encode()
    address = urlsplit(url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    answer = Answer(time.perf_counter())
    reader, writer = await asyncio.open_connection(address.hostname, address.port or 80)
    try:
        writer.write(head.encode() + body)
        status = await reader.readline()
        if b" 200 " not in status:
            raise BenchmarkError(f"the server answered {(status + await reader.read()).decode(errors='replace')}")
        # Headers and the sizes of chunks pass by: an event is written at once, so no chunk ends inside its line.
        while line := await reader.readline():
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                raise BenchmarkError(event["error"]["message"])
            if any(choice["delta"].get("content") for choice in event["choices"]):
                answer.arrivals.append(time.perf_counter())
            if event.get("usage"):
                answer.tokens = event["usage"]["completion_tokens"]
    finally:
        writer.close()
    if answer.tokens != tokens:
        raise BenchmarkError(f"an answer ended after {answer.tokens} of {tokens} tokens")
    return answer


async def drive(url: str, key: str, clients: int, tokens: int, chance: random.Random) -> Level:
    """`clients` at once, each with some requests one after the other."""
    requests = max(_FEWEST_REQUESTS, _MOST_REQUESTS // clients)

    async def client() -> list[Answer]:
        # The number comes first, so that prompts share their template and no more in the prefix cache.
        prompts = [f"{chance.random()}: tell me the story of a lighthouse keeper." for _ in range(requests)]
        return [await ask(url, key, prompt, tokens) for prompt in prompts]

    started, cpu = time.perf_counter(), time.process_time()
    answers = [answer for own in await asyncio.gather(*(client() for _ in range(clients))) for answer in own]
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return Level(
        clients=clients,
        requests=len(answers),
        tokens_per_second=sum(answer.tokens for answer in answers) / seconds,
        first_token=_spread([answer.arrivals[0] - answer.sent for answer in answers]),
        between_tokens=_spread(
            [b - a for answer in answers for a, b in zip(answer.arrivals, answer.arrivals[1:], strict=False)]
        ),
        client_cpu_share=cpu / seconds,
    )


def _spread(values: list[float]) -> dict[str, float]:
    percentiles = quantiles(values, n=100, method="inclusive")
    return {"median": median(values), "p95": percentiles[94], "p99": percentiles[98]}


@contextmanager
def served(model: Path, home: Path) -> Iterator[tuple[str, int, float]]:
    """`fireside serve`, once it is ready: its address, process id, and when it was started."""
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "fireside.cli.main", "serve", "--port", "0", "--model", str(model.resolve())],
            env=os.environ | {"FIRESIDE_HOME": str(home)}, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.startswith(_READY):
                log.seek(0)
                raise BenchmarkError(f"fireside serve did not start: {line}{log.read().strip()}")
            yield line.removeprefix(_READY).strip(), server.pid, started
        finally:
            server.terminate()
            server.wait()


def start_once(model: Path) -> Start:
    with tempfile.TemporaryDirectory() as home, served(model, Path(home)) as (url, process, started):
        ready = time.perf_counter() - started
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        status = first_fields(Path(f"/proc/{process}/status"))
        answer = uvloop.run(ask(url, "none", "Hello", 2))  # two, for the first may be half a character
        return Start(
            ready_seconds=ready,
            first_token_seconds=answer.arrivals[0] - started,
            server_cpu_seconds=(int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),  # user and system: proc(5)
            server_resident_bytes=int(status["VmRSS"].split()[0]) * 1024,
        )


def report(starts: list[Start], levels: list[Level]) -> Iterator[str]:
    if starts:
        memory = median(start.server_resident_bytes for start in starts) / (1 << 20)
        yield f"fireside serve, median of {len(starts)} starts:"
        yield f"  to the first token      {median(start.first_token_seconds for start in starts):6.2f} s"
        yield f"  to ready                {median(start.ready_seconds for start in starts):6.2f} s"
        yield "  of the server's process, without the engine's:"
        yield f"    CPU time to ready     {median(start.server_cpu_seconds for start in starts):6.2f} s"
        yield f"    resident memory       {memory:6.1f} MiB"
    yield ""
    yield f"{'':8}{'':9}{'':10}{'first token, ms':^27}{'between tokens, ms':^27}{'clients':>9}"
    names = f"{'median':>9}{'p95':>9}{'p99':>9}"
    yield f"{'clients':>8}{'requests':>9}{'tokens/s':>10}{names}{names}{'CPU':>9}"
    for level in levels:
        figures = [*level.first_token.values(), *level.between_tokens.values()]
        times = "".join(f"{seconds * 1e3:9.1f}" for seconds in figures)
        yield (
            f"{level.clients:8}{level.requests:9}{level.tokens_per_second:10.1f}{times}{level.client_cpu_share:9.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_ALIAS, help="name or path; the default model if not given")
    parser.add_argument("--url", help="of a server that is running already, http://HOST:PORT")
    parser.add_argument("--key", default="none", help="an API key for it")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--tokens", type=int, default=64, help="of every answer")
    parser.add_argument("--starts", type=int, default=3, help="how often the server is started to time that")
    parser.add_argument("--quick", action="store_true", help="1 and 8 clients, short answers: to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    if options.quick:
        options.clients, options.tokens, options.starts = [1, 8], 8, 1

    facts: dict[str, Any] = {"machine": asdict(Machine.here()), "tokens": options.tokens}
    print(Machine.here())
    starts: list[Start] = []
    with ExitStack() as stack:
        url = options.url
        if url is None:
            model = resolve_model(options.model, load_settings())
            facts["model"] = model.name
            starts = [start_once(model.path) for _ in range(options.starts)]
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url, _, _ = stack.enter_context(served(model.path, home))
        chance = random.Random(0)
        uvloop.run(drive(url, options.key, 1, 8, chance))  # warms up
        levels = [uvloop.run(drive(url, options.key, n, options.tokens, chance)) for n in options.clients]
    print(*report(starts, levels), sep="\n")
    if options.json:
        facts |= {"starts": [asdict(start) for start in starts], "levels": [asdict(level) for level in levels]}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (FiresideError, BenchmarkError, OSError) as error:
        raise SystemExit(f"benchmarks.http: {error}") from None
