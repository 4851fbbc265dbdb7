"""What others do between two steps of one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.tables import User
from fireside.server.chat import conversations, messages
from fireside.server.chat.tables import Message
from fireside.server.db.base import new_id
from fireside.server.feedback import comparisons, service
from tests.server.accounts.people import context_of
from tests.server.chat.people import Person
from tests.server.chat.test_messages import ENDLESS
from tests.server.scripted_app import Scripted
from tests.waiting import Pause, until


@pytest.fixture
def pause() -> Pause:
    return Pause()


@pytest.fixture
def committed(pause: Pause, monkeypatch: pytest.MonkeyPatch) -> Pause:
    """Behind the commit of the first question, which others see from then on."""
    monkeypatch.setattr(messages, "send", commits_by(pause.behind(AsyncSession.commit), monkeypatch))
    return pause


def commits_by(commit: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`send`, behind which commits are others."""
    send = messages.send

    async def sent(*args: Any, **options: Any) -> Any:
        begun = await send(*args, **options)
        monkeypatch.setattr(AsyncSession, "commit", commit)
        return begun

    return sent


@pytest.mark.parametrize("what", ["stop", "delete", "delete some", "disable", "remove"])
async def test_a_run_is_stopped_that_is_just_about_to_begin(
    ada: Person, bob: Person, app: FastAPI, script: Scripted, committed: Pause, what: str
) -> None:
    script.answer = ENDLESS
    context = context_of(app)
    async with context.database.session() as session:
        await session.execute(update(User).where(User.name == "ada").values(role="admin"))
        user_id = (await session.scalars(select(User.id).where(User.name == "bob"))).one()
    conversation = await bob.converse(title="t")
    asking = asyncio.create_task(bob.ask(conversation, "Hi"))
    await committed.is_there.wait()
    run_id = (await bob.get(f"conversations/{conversation}"))["messages"][-1]["run_id"]
    doing = asyncio.create_task(
        {
            "stop": lambda: bob.post(f"runs/{run_id}/stop", status=200),
            "delete": lambda: bob.delete(f"conversations/{conversation}"),
            "delete some": lambda: bob.post("conversations/delete", {"ids": [conversation]}, 200),
            "disable": lambda: ada.patch(f"admin/users/{user_id}", {"disabled": True}),
            "remove": lambda: ada.delete(f"admin/users/{user_id}"),
        }[what]()
    )
    await until(lambda: doing.done() or any(run.stopped_as for run in context.runs._runs.values()), 5)
    committed.go.set()
    assert (await asking)["run"]["id"] == run_id
    done = await doing
    await until(lambda: context.runs.find(run_id) is None, 2)
    assert script.client.requests == []
    if what == "stop":
        assert done["status"] == "stopped"
        assert (await bob.get(f"conversations/{conversation}"))["messages"][-1]["status"] == "stopped"


async def test_nothing_is_stopped_for_a_deletion_that_fails(
    ada: Person, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.answer = ENDLESS
    conversation = await ada.converse(title="t")
    started = await ada.ask(conversation, "Hi")
    monkeypatch.setattr(conversations, "delete_all", _fail)
    await ada.delete(f"conversations/{conversation}", 503)
    await ada.post("conversations/delete", {"ids": [conversation]}, 503)
    assert (await ada.get(f"runs/{started['run']['id']}"))["status"] == "running"


async def test_what_was_not_committed_never_runs(
    ada: Person, app: FastAPI, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await ada.converse(title="t")
    monkeypatch.setattr(messages, "send", commits_by(_fail, monkeypatch))
    await ada.post(f"conversations/{conversation}/messages", {"content": "Hi"}, 503)
    monkeypatch.undo()
    await asyncio.sleep(0)
    assert context_of(app).runs._runs == {} and script.client.requests == []
    assert (await ada.get(f"conversations/{conversation}"))["messages"] == []


async def _fail(*_: Any) -> None:
    raise OperationalError("", {}, ConnectionResetError("gone"), connection_invalidated=True)


async def test_an_answer_that_has_grown_is_not_gone_on_with_as_it_was(
    ada: Person, app: FastAPI, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await ada.converse(title="t")
    _, answer = await ada.asked(conversation, "Hi")
    monkeypatch.setattr(messages, "_nodes", pause.behind(messages._nodes))
    going_on = asyncio.create_task(ada.post(f"messages/{answer['id']}/continue", status=409))
    await pause.is_there.wait()
    async with context_of(app).database.session() as session:  # what another device's run leaves
        grown = (
            update(Message).where(Message.id == answer["id"]).values(content="Hello there. And more.", run_id=new_id())
        )
        await session.execute(grown)
    pause.go.set()
    assert (await going_on)["error"]["code"] == "still_running"
    message = await ada.message(conversation, answer["id"])
    assert (message["status"], message["content"]) == ("complete", "Hello there. And more.")


async def test_a_name_given_while_the_first_question_is_written_stays(
    ada: Person, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await ada.converse()
    monkeypatch.setattr(messages, "_nodes", pause.behind(messages._nodes))
    asking = asyncio.create_task(ada.asked(conversation, "What is it called?"))
    await pause.is_there.wait()
    await ada.patch(f"conversations/{conversation}", {"title": "Mine"})
    pause.go.set()
    await asking
    assert (await ada.get(f"conversations/{conversation}"))["title"] == "Mine"


@pytest.mark.parametrize("what", ["ask", "regenerate", "rename", "file", "vote", "list feedback"])
async def test_what_another_tab_deletes_is_not_there(
    ada: Person, pause: Pause, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    conversation = await ada.converse(title="t")
    _, answer = await ada.asked(conversation, "Hi")
    gone = f"conversations/{conversation}"
    if what == "file":
        project = (await ada.post("projects", {"name": "p"}))["id"]
        gone = f"projects/{project}"
        conversation = await ada.converse()
    if what == "list feedback":
        await ada.http.put(f"/api/messages/{answer['id']}/rating", json={"verdict": "up"})
    if what == "vote":
        begun = await ada.post(f"messages/{answer['id']}/comparison", {"models": []})
        for side in ("left", "right"):
            await ada.events(begun[side]["run_id"])
    module, name, request = {
        "ask": (messages, "_nodes", lambda: ada.post(f"{gone}/messages", {"content": "Hi"}, 404)),
        "regenerate": (messages, "_nodes", lambda: ada.post(f"messages/{answer['id']}/regenerate", status=404)),
        "rename": (conversations, "get", lambda: ada.patch(gone, {"title": "x"}, 404)),
        "file": (
            conversations,
            "_check_project",
            lambda: ada.patch(f"conversations/{conversation}", {"project_id": project}, 404),
        ),
        "vote": (
            comparisons,
            "find",
            lambda: ada.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 404),
        ),
        "list feedback": (service, "newest_first", lambda: ada.get("feedback")),
    }[what]
    monkeypatch.setattr(module, name, pause.behind(getattr(module, name)))
    asking = asyncio.create_task(request())
    await pause.is_there.wait()
    await ada.delete(gone)
    pause.go.set()
    told = await asking
    assert told["items"] == [] if what == "list feedback" else told["error"]["code"] == "not_found"


async def test_two_tabs_change_different_parameters(ada: Person, pause: Pause, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = await ada.converse(parameters={"max_tokens": 9})
    path = f"conversations/{conversation}"
    monkeypatch.setattr(conversations, "get", pause.behind(conversations.get))
    first = asyncio.create_task(ada.patch(path, {"parameters": {"temperature": None, "seed": 1}}))
    await pause.is_there.wait()
    await ada.patch(path, {"parameters": {"temperature": 0.5, "system": "Be kind.", "max_tokens": None}})
    pause.go.set()
    assert _given(await first) == _given(await ada.get(path)) == {"seed": 1, "system": "Be kind."}
    assert _given(await ada.patch(path, {"parameters": {"seed": None, "system": None}})) == {}


def _given(conversation: Any) -> dict[str, Any]:
    return {name: value for name, value in conversation["parameters"].items() if value is not None}
