"""Nobody sees, changes or finds out about what is another's: every route with an id, as somebody else and as nobody."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fireside.server.chat.runs.hub import MAX_RUNS_EACH
from fireside.server.db.base import new_id
from fireside.server.errors import ApiError
from tests.server.chat.people import Person

BODIES: dict[str, dict[str, Any]] = {
    "/messages": {"content": "Hi"},
    "/edit": {"content": "Hi"},
    "/api/conversations/{conversation_id}": {"title": "Mine"},
    "/api/projects/{project_id}": {"name": "Mine"},
    "/api/prompts/{prompt_id}": {"content": "Mine"},
    "/rating": {"verdict": "up"},
    "/preference": {"verdict": "better"},
    "/vote": {"verdict": "left"},
}


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Of this room and of feedback's, those with an id."""
    found = [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]
    named = re.compile(r"\{(conversation|message|run|project|prompt|feedback)_id\}")
    return sorted((method, path) for method, path in found if named.search(path))


async def test_every_route(ada: Person, bob: Person, app: FastAPI) -> None:
    conversation = await ada.converse(title="Secret")
    question, answer = await ada.asked(conversation, "a secret question")
    ids = {
        "conversation_id": conversation,
        "message_id": answer["id"],
        "run_id": answer["run_id"],
        "project_id": (await ada.post("projects", {"name": "Secret"}))["id"],
        "prompt_id": (await ada.post("prompts", {"name": "secret", "content": "x"}))["id"],
        "feedback_id": (await ada.post(f"messages/{answer['id']}/comparison"))["feedback"]["id"],
    }
    for run in [m["run_id"] for m in (await ada.get(f"conversations/{conversation}"))["messages"] if m["run_id"]]:
        await ada.events(run)
    before = [await ada.get(f"conversations/{conversation}"), await ada.get("feedback")]
    assert len(routes(app)) >= 21
    for method, path in routes(app):
        body = next((body for end, body in BODIES.items() if path.endswith(end)), {})
        request = {"json": body} if method in ("POST", "PATCH", "PUT") else {}
        theirs = await bob.http.request(method, path.format(**ids), **request)  # type: ignore[arg-type]
        unknown = await bob.http.request(method, path.format(**dict.fromkeys(ids, new_id())), **request)  # type: ignore[arg-type]
        assert theirs.status_code == 404, (method, path, theirs.text)
        assert (theirs.status_code, theirs.text) == (unknown.status_code, unknown.text), (method, path)
        malformed = await bob.http.request(method, path.format(**dict.fromkeys(ids, "1' OR '1'='1")), **request)  # type: ignore[arg-type]
        assert malformed.status_code in (400, 404), (method, path)
        nobody = httpx.AsyncClient(transport=bob.http._transport, base_url="http://localhost:8000")
        refused = await nobody.request(method, path.format(**ids), headers={"X-Fireside": "1"}, **request)  # type: ignore[arg-type]
        assert refused.status_code == 401, (method, path)
    assert [await ada.get(f"conversations/{conversation}"), await ada.get("feedback")] == before
    assert question["content"] == "a secret question"


async def test_lists_and_searches_hold_ones_own_only(ada: Person, bob: Person) -> None:
    conversation = await ada.converse(title="Secret 中文")
    _, answer = await ada.asked(conversation, "a secret question 学习")
    await ada.post("projects", {"name": "Secret"})
    await ada.post("prompts", {"name": "secret", "content": "x"})
    await ada.http.put(f"/api/messages/{answer['id']}/rating", json={"verdict": "up"})
    for path in ("conversations", "projects", "prompts", "feedback"):
        assert (await bob.get(path))["items"] == []
    assert (await bob.get("feedback", conversation=conversation))["items"] == []
    for query in ("secret", "学习", "中文", "%", "_"):
        assert (await bob.get("conversations", q=query))["items"] == []


async def test_anothers_things_cannot_be_pointed_to(ada: Person, bob: Person) -> None:
    project = (await ada.post("projects", {"name": "Secret", "instructions": "Secret"}))["id"]
    theirs = await ada.converse()
    question, answer = await ada.asked(theirs, "a secret question")
    own = await bob.converse()
    await bob.post("conversations", {"project_id": project}, 404)
    await bob.patch(f"conversations/{own}", {"project_id": project}, 404)
    await bob.patch(f"conversations/{own}", {"current_leaf_id": answer["id"]}, 404)
    await bob.post(f"conversations/{own}/messages", {"content": "Hi", "parent_id": answer["id"]}, 404)
    assert (await bob.post("conversations/delete", {"ids": [theirs]}, 200)) == {"deleted": 0}
    assert (await bob.get("conversations", project=project))["items"] == []
    assert question["id"]


@pytest.mark.parametrize("kind", ["projects", "prompts"])
async def test_projects_and_prompts(ada: Person, kind: str) -> None:
    field, limit = ("instructions", 32_000) if kind == "projects" else ("content", 32_000)
    made = [await ada.post(kind, {"name": f"n{number}", field: "x"}) for number in range(3)]
    page = await ada.get(kind, limit=2)
    rest = await ada.get(kind, limit=2, cursor=page["next_cursor"])
    assert {item["id"] for item in page["items"] + rest["items"]} == {item["id"] for item in made}
    one = f"{kind}/{made[0]['id']}"
    changed = await ada.patch(one, {field: "y"})
    assert (changed["name"], changed[field]) == ("n0", "y") and await ada.get(one) == changed
    await ada.patch(one, {field: "y" * (limit + 1)}, 400)
    await ada.patch(one, {"name": ""}, 400)
    await ada.patch(one, {"user_id": new_id()}, 400)
    await ada.delete(one)
    await ada.get(one, 404)
    await ada.delete(one, 404)


async def test_names_of_prompts_are_ones_own(ada: Person, bob: Person) -> None:
    first = await ada.post("prompts", {"name": "shorten", "content": "Shorten this:"})
    assert (await ada.post("prompts", {"name": "shorten", "content": "x"}, 409))["error"]["code"] == "name_taken"
    other = await ada.post("prompts", {"name": "other", "content": "x"})
    await ada.patch(f"prompts/{other['id']}", {"name": "shorten"}, 409)
    await bob.post("prompts", {"name": "shorten", "content": "x"})
    assert (await ada.get(f"prompts/{first['id']}"))["content"] == "Shorten this:"
    await ada.post("prompts", {"name": "two words", "content": "x"}, 400)


async def test_no_more_runs_than_allowed_begin_at_once(ada: Person, app: FastAPI) -> None:
    conversations = [await ada.converse() for _ in range(MAX_RUNS_EACH + 8)]
    asked = [ada.http.post(f"/api/conversations/{c}/messages", json={"content": "Hi"}) for c in conversations]
    codes = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert set(codes) <= {201, 429} and codes.count(201) >= MAX_RUNS_EACH
    with ExitStack() as places:
        for _ in range(MAX_RUNS_EACH):
            places.enter_context(app.state.context.runs.room("somebody"))
        with pytest.raises(ApiError, match="are being written"):
            places.enter_context(app.state.context.runs.room("somebody"))
    with app.state.context.runs.room("somebody"):
        assert app.state.context.runs._reserved == {"somebody": 1}


async def test_a_stranger_sends_little(ada: Person) -> None:
    large = {"email": "a@example.org", "password": "x" * 20_000}
    async with httpx.AsyncClient(transport=ada.http._transport, base_url="http://localhost:8000") as nobody:
        refused = await nobody.post("/api/session", json=large, headers={"X-Fireside": "1"})
    assert refused.status_code == 413 and "16,384" in refused.text
