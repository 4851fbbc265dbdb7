"""kill -9 of a real server in mid-answer: what somebody saw is there afterwards, once, and can be continued."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tests.server.chat.people import Person, headers, parsed, said

ROOT = Path(__file__).parents[3]
STORY = "Once upon a time there was a server that nobody could kill for good. "

SERVER = """
import asyncio, json, socket, sys
from pathlib import Path
import uvicorn
from tests.server.chat.people import sign_up
from tests.server.chat.test_crash import STORY
from tests.server.scripted_app import Scripted, says, scripted_app

async def main():
    script = Scripted()
    script.answer = lambda request: says(STORY * 25, delay=0.002)
    app = scripted_app(script, home=Path(sys.argv[1]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        if sys.argv[2] == "new":
            await sign_up(app.state.context.database, "ada")
        print(listener.getsockname()[1], flush=True)
        await serving

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def server(home: Path, how: str) -> AsyncIterator[tuple[Person, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVER,
        str(home),
        how,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), 60))
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers("token of ada"), timeout=20) as http:
            yield Person(http), process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_kill_nine(tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    answers: dict[str, tuple[str, str]] = {}
    async with server(tmp_path, "new") as (ada, pid):

        async def listen(run_id: str) -> None:
            data = ""
            with contextlib.suppress(httpx.HTTPError):
                async with ada.http.stream("GET", f"/api/runs/{run_id}/events") as stream:
                    async for text in stream.aiter_text():
                        data += text
                        seen[run_id] = parsed(data[: data.rfind("\n\n") + 2])

        for _ in range(3):
            conversation = await ada.converse(title="t")
            started = await ada.ask(conversation, "A story")
            answers[started["run"]["id"]] = conversation, started["answer"]["id"]
        listening = [asyncio.create_task(listen(run_id)) for run_id in answers]
        # One that ends takes nothing of the others along.
        short = await ada.ask(await ada.converse(title="t"), "Hi", parameters={"max_tokens": 5})
        await ada.events(short["run"]["id"])
        while not all(len(said(seen.get(run_id, []))) > 30 for run_id in answers):  # noqa: ASYNC110 - of a stream
            await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*listening)

    async with server(tmp_path, "again") as (ada, _):
        for run_id, (conversation, answer_id) in answers.items():
            answer = await ada.message(conversation, answer_id)
            assert (answer["status"], answer["error"]["code"]) == ("interrupted", "interrupted")
            assert answer["content"].startswith(said(seen[run_id])) and (STORY * 25).startswith(answer["content"])
            events = await ada.events(run_id)
            assert said(events) == answer["content"] and events[-1][1]["status"] == "interrupted"
            assert events[: len(seen[run_id])] == seen[run_id]
            # The reader who was cut off goes on behind the last number that it saw.
            last = seen[run_id][-1][0]
            assert await ada.events(run_id, last) == events[last:]
        more = await ada.post(f"messages/{answer_id}/continue", {"parameters": {"max_tokens": 20}})
        await ada.events(more["run"]["id"])
        tree = await ada.get(f"conversations/{conversation}")
        assert [message["role"] for message in tree["messages"]] == ["user", "assistant"]
        assert tree["messages"][1]["content"] == answer["content"] + STORY[:20]
