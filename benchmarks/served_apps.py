"""Fireside's app and Open WebUI, served for a browser: each with an empty home, one account and a long conversation."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
from benchmarks.http import BenchmarkError, served
from sqlalchemy import select
from tests.server.chat.people import sign_up
from tests.server.scripted_app import MODEL, Scripted, running, says, scripted_app

from fireside.engine.scripted import DEFAULT_INFO, ScriptedClient
from fireside.server.accounts.tables import User
from fireside.server.chat.tables import Conversation, Message
from fireside.server.db.base import new_id
from fireside.server.db.database import Database
from fireside.settings import Settings

PEER = Path(".peers/app/bin/open-webui")
_KEY = "benchmark"
_PATIENCE_SECONDS = 180.0
_SETTLE_SECONDS = 2.0  # after which memory is read
_CONTEXT = 1 << 22  # tokens: nothing of the conversation is left out
_LONG_ANSWER = 16_000  # tokens that an answer may take
_CHARACTERS_PER_SECOND = 400  # some hundred tokens

# What the two read as text, told once and again until the answer is long enough.
_PARAGRAPH = """\
## Lighthouses

A lighthouse **warns** ships of rocks, and tells them `where` they are:

- by the colour of its light,
- by its rhythm.

| light | seen from |
|---|--:|
| white | 25 miles |
| red | 14 miles |

"""


@dataclass(frozen=True)
class Served:
    """An app for a browser to visit. storage: what a browser keeps of somebody who has signed in.

    composer: where a message is written, as CSS selects it. long_path: the page of the long conversation.
    """

    name: str
    url: str
    storage: dict[str, Any]
    composer: str
    long_path: str = ""


@dataclass(frozen=True)
class Start:
    """Of the web server's own process. cpu_seconds: until it was ready; resident_bytes: a little later."""

    ready_seconds: float
    cpu_seconds: float
    resident_bytes: int


def _start_of(process: psutil.Process, started: float) -> Start:
    ready, times = time.perf_counter() - started, process.cpu_times()
    time.sleep(_SETTLE_SECONDS)
    return Start(ready, times.user + times.system, process.memory_info().rss)


@contextmanager
def fireside(model: Path) -> Iterator[tuple[Served, Start]]:
    """`fireside serve`, as anybody starts it."""
    with tempfile.TemporaryDirectory() as home, served(model, Path(home)) as (url, pid, started):
        start = _start_of(psutil.Process(pid), started)
        token, _ = asyncio.run(_account(Path(home), []))
        yield _ours(url, token), start


@contextmanager
def scripted_fireside(messages: int) -> Iterator[Served]:
    """In this process, before an engine that tells of lighthouses."""
    answer = says(_PARAGRAPH * 40, delay=0.02, tokens_per_output=_CHARACTERS_PER_SECOND // 50)
    with tempfile.TemporaryDirectory() as folder:
        script = Scripted(answer=answer)
        script.client = ScriptedClient([answer], info=msgspec.structs.replace(DEFAULT_INFO, max_context=_CONTEXT))
        app = scripted_app(script, home=Path(folder), api_keys=(_KEY,), context_length=_CONTEXT)
        with running(app) as url:
            token, conversation_id = asyncio.run(_account(Path(folder), _long_conversation(messages)))
            yield _ours(url, token, f"/c/{conversation_id}")


def _ours(url: str, token: str, path: str = "") -> Served:
    cookie = {"name": "fireside_session", "value": f'"{token}"', "url": url}
    return Served("Fireside", url, {"cookies": [cookie], "origins": []}, "#composer", path)


def _long_conversation(messages: int) -> list[tuple[str, str]]:
    """Roles and contents."""
    both = (("user", "Tell me of lighthouse {n}"), ("assistant", _PARAGRAPH))
    return [(role, content.format(n=n)) for n in range(messages // 2) for role, content in both]


async def _account(home: Path, messages: list[tuple[str, str]]) -> tuple[str, str]:
    """Makes one in a server's database, with one conversation. Gives its session's token and the conversation's id."""
    database = Database(Settings(home=home).database)
    await database.open()
    try:
        token = await sign_up(database, "ada")
        async with database.session() as session:
            owner = (await session.scalars(select(User))).one()
            conversation = Conversation(
                id=new_id(),
                user_id=owner.id,
                title="Lighthouses",
                has_own_title=True,
                parameters={"max_tokens": _LONG_ANSWER},
            )
            session.add(conversation)
            parent = None
            for role, content in messages:
                session.add(
                    node := Message(
                        id=new_id(), conversation_id=conversation.id, parent_id=parent, role=role, content=content
                    )
                )
                parent = node.id
            conversation.current_leaf_id = parent
        return token, conversation.id
    finally:
        await database.close()


@contextmanager
def open_webui(backend: str, messages: int) -> Iterator[tuple[Served, Start]]:
    """As `make peers` installed it. It asks `backend`, an address of ours, for answers, and fetches nothing."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as log:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        url, started = f"http://127.0.0.1:{port}", time.perf_counter()
        process = psutil.Popen(
            [PEER.resolve(), "serve", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home, stdout=log, stderr=subprocess.STDOUT, env=_slim(home, backend),
        )  # fmt: skip
        try:
            _await_health(f"{url}/health", process)
            start = _start_of(process, started)
            account = {"name": "Ada", "email": "ada@example.org", "password": "correct horse battery"}
            token = _post(f"{url}/api/v1/auths/signup", account)["token"]
            chat = _post(f"{url}/api/v1/chats/new", {"chat": _their_chat(_long_conversation(messages))}, token)
            origin = {"origin": url, "localStorage": [{"name": "token", "value": token}]}
            storage = {"cookies": [{"name": "token", "value": token, "url": url}], "origins": [origin]}
            yield Served("Open WebUI", url, storage, "#chat-input", f"/c/{chat['id']}"), start
        except (BenchmarkError, urllib.error.URLError):
            log.seek(0)
            print(log.read()[-4000:])
            raise
        finally:
            process.terminate()
            process.wait()


def _slim(home: str, backend: str) -> dict[str, str]:
    """Its environment: no models of its own for documents and speech, and nothing that looks for updates."""
    return {
        "PATH": os.environ["PATH"], "HOME": home, "DATA_DIR": f"{home}/data", "WEBUI_SECRET_KEY": "benchmark",
        "OFFLINE_MODE": "true", "HF_HUB_OFFLINE": "1", "ENABLE_VERSION_UPDATE_CHECK": "false",
        "ANONYMIZED_TELEMETRY": "false", "DO_NOT_TRACK": "true", "ENABLE_OLLAMA_API": "false",
        "RAG_EMBEDDING_ENGINE": "openai", "ENABLE_TITLE_GENERATION": "false", "ENABLE_TAGS_GENERATION": "false",
        "ENABLE_FOLLOW_UP_GENERATION": "false", "OPENAI_API_BASE_URL": f"{backend}/v1", "OPENAI_API_KEY": _KEY,
    }  # fmt: skip


def _await_health(url: str, process: psutil.Popen) -> None:
    for _ in range(int(_PATIENCE_SECONDS / 0.1)):
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise BenchmarkError("Open WebUI did not start")


def _post(url: str, body: dict[str, Any], token: str = "") -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
        return json.load(answer)


def _their_chat(messages: list[tuple[str, str]]) -> dict[str, Any]:
    ids = [f"message-{n}" for n in range(len(messages))]
    nodes = {
        ids[n]: {
            "id": ids[n],
            "parentId": ids[n - 1] if n else None,
            "childrenIds": ids[n + 1 : n + 2],
            "role": role,
            "content": content,
            "timestamp": 1_790_000_000 + n,
            **({"models": [MODEL]} if role == "user" else {"model": MODEL, "modelName": MODEL, "done": True}),
        }
        for n, (role, content) in enumerate(messages)
    }
    history = {"currentId": ids[-1] if ids else None, "messages": nodes}
    return {
        "title": "Lighthouses",
        "models": [MODEL],
        "params": {"max_tokens": _LONG_ANSWER},
        "history": history,
        "messages": list(nodes.values()),
    }
