"""The app before an engine that gives every request a token at a steady pace: `benchmarks.app` starts it as a process.

    python -m benchmarks.paced_app RATE TOKENS PEOPLE HOME

Prints one line of JSON once it serves: its address and a session's token for each of the people. Reads nothing but the
end of its input, which ends it; then it prints when each token of each run was due.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from sqlalchemy import update
from tests.server.chat.people import sign_up
from tests.server.scripted_app import Scripted, scripted_app

from fireside.engine.messages import FinishReason, GenerationOutput, GenerationRequest
from fireside.engine.scripted import ScriptedClient
from fireside.server.accounts.tables import Role, User
from fireside.server.deps import Context

_GROUPS = 10  # that get their tokens in turn, as if by as many engines: no step of one engine is as wide as all
_TOKEN = ord("x")


class PacedClient(ScriptedClient):
    """due: by request, the time (of time.monotonic) at which each token was to come, whether this process had the time
    to hand it on or not: so what the server takes too long for counts as its delay."""

    def __init__(self, rate: float, tokens: int) -> None:
        super().__init__([()])
        self._rate = rate
        self._tokens = tokens
        self._groups: list[list[asyncio.Queue[float]]] = [[] for _ in range(_GROUPS)]
        self._requests = 0
        self._pace: asyncio.Task[None] | None = None
        self.due: dict[str, list[float]] = {}

    async def start(self) -> None:
        await super().start()
        self._pace = asyncio.create_task(self._step())

    async def _step(self) -> None:
        begin, step = time.monotonic(), 0
        while True:
            due = begin + step / (self._rate * _GROUPS)
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            for queue in self._groups[step % _GROUPS]:
                queue.put_nowait(due)
            step += 1

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationOutput]:
        queue: asyncio.Queue[float] = asyncio.Queue()
        group = self._groups[self._requests % _GROUPS]
        self._requests += 1
        group.append(queue)
        times = self.due[request.id] = []
        try:
            while len(times) < self._tokens:
                times.append(await queue.get())
                is_last = len(times) == self._tokens
                yield GenerationOutput(
                    request_id=request.id,
                    token_ids=(_TOKEN,),
                    finish_reason=FinishReason.LENGTH if is_last else None,
                )
        finally:
            group.remove(queue)


async def serve(rate: float, tokens: int, people: int, home: Path) -> None:
    script = Scripted()
    script.client = client = PacedClient(rate, tokens)
    app = scripted_app(script, home=home)
    context: Context = app.state.context
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
        gc.freeze()  # as `fireside serve` does
        tokens_of_people = [await sign_up(context.database, f"person{n}") for n in range(people)]
        async with context.database.session() as session:  # as every server has one that so many people use
            await session.execute(update(User).where(User.name == "person0").values(role=Role.ADMIN))
        print(
            json.dumps({"port": listener.getsockname()[1], "pid": os.getpid(), "people": tokens_of_people}), flush=True
        )
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "due": {name.removeprefix("run-"): times for name, times in client.due.items()},
                "cpu_seconds": used.ru_utime + used.ru_stime,
                "peak_mib": used.ru_maxrss / 1024,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
