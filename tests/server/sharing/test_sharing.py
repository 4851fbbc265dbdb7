"""Links: what they show and to whom, and that they end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from fireside.server.accounts.tables import Role, User
from fireside.server.db.base import new_id, now
from fireside.server.documents import page
from fireside.server.sharing import service, snapshots
from fireside.server.sharing.tables import Share
from tests.server.accounts.people import context_of
from tests.server.chat.people import Person
from tests.server.chat.test_messages import ENDLESS
from tests.server.moving.uploads import thought
from tests.server.scripted_app import Scripted, says
from tests.waiting import until


@pytest.fixture
async def nobody(ada: Person, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that is not signed in."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        yield client


async def talk(person: Person, script: Scripted, title: str = "Candles") -> tuple[str, Any]:
    script.answer = says("**Wax** burns.")
    conversation = await person.converse(title=title, parameters={"system": "Secret system"})
    _, answer = await person.asked(conversation, "How?")
    await thought(person, answer["id"], "Secret thought")
    return conversation, answer


async def share(person: Person, conversation: str, **wish: Any) -> Any:
    return await person.post(f"conversations/{conversation}/shares", wish)


async def test_a_link_shows_the_branch_to_whoever_has_it(
    ada: Person, nobody: httpx.AsyncClient, script: Scripted
) -> None:
    conversation, answer = await talk(ada, script)
    again = await ada.post(f"messages/{answer['id']}/regenerate")
    script.answer = says("Other branch")
    await ada.events(again["run"]["id"])
    link = await share(ada, conversation, leaf_id=answer["id"])
    shown = await nobody.get(f"/s/{link['token']}")
    assert shown.status_code == 200 and shown.headers["content-type"] == "text/html; charset=utf-8"
    assert "<strong>Wax</strong> burns." in shown.text and "How?" in shown.text
    assert shown.text.count("<article") == 2
    for secret in ("Secret", "ada", "example.org", link["id"], conversation):
        assert secret not in shown.text
    assert not nobody.cookies and "set-cookie" not in shown.headers
    assert f'href="/continue#{link["token"]}"' in shown.text


async def test_the_page_runs_nothing_and_is_kept_nowhere(
    ada: Person, nobody: httpx.AsyncClient, script: Scripted
) -> None:
    script.answer = says("<script>owned</script> ![x](https://evil.example/x.png)")
    conversation = await ada.converse(title="</title><script>owned</script>")
    await ada.asked(conversation, "<img src=x onerror=owned>")
    link = await share(ada, conversation)
    shown = await nobody.get(f"/s/{link['token']}")
    assert "<script" not in shown.text and "<img" not in shown.text
    policy = shown.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "script" not in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert shown.headers["cache-control"] == "no-store" and "noindex" in shown.headers["x-robots-tag"]
    assert shown.headers["referrer-policy"] == "no-referrer"
    style = re.search(r"<style>(.*?)</style>", shown.text, re.DOTALL)
    assert style and style[1] == page.style()
    assert " style=" not in shown.text


async def test_it_is_frozen_until_it_is_taken_anew(ada: Person, nobody: httpx.AsyncClient, script: Scripted) -> None:
    conversation, answer = await talk(ada, script)
    link = await share(ada, conversation)
    await ada.asked(conversation, "And then?", answer["id"])
    assert "And then?" not in (await nobody.get(f"/s/{link['token']}")).text
    changed = await ada.post(
        f"shares/{link['id']}/update", {"expires": "never", "reasoning": True, "instructions": True}, 200
    )
    assert changed["token"] == link["token"] and changed["expires_at"] is None
    assert changed["updated_at"] > link["updated_at"]
    shown = (await nobody.get(f"/s/{link['token']}")).text
    assert "And then?" in shown and "Secret thought" in shown and "Secret system" in shown
    assert (await ada.get("shares"))["items"] == [changed]


@pytest.mark.parametrize("is_revoked", [False, True])
async def test_of_two_updates_at_once_one_is_shown_and_told(
    is_revoked: bool, ada: Person, nobody: httpx.AsyncClient, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or neither, once the link has been revoked."""
    conversation, _ = await talk(ada, script)
    await ada.patch("me", {"instructions": "Secret instructions"})
    link = await share(ada, conversation, instructions=True)
    take = snapshots.take
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(*of: Any) -> Any:
        snapshot = await take(*of)
        if not taken.is_set():
            taken.set()
            await go_on.wait()
        return snapshot

    monkeypatch.setattr(service, "take", slowly)
    path = f"shares/{link['id']}/update"
    slow = asyncio.create_task(ada.post(path, {"instructions": True}, status=404 if is_revoked else 200))
    await taken.wait()
    if is_revoked:
        await ada.delete(f"shares/{link['id']}")
    else:
        await ada.post(path, {"instructions": False}, status=200)
    go_on.set()
    told = await slow
    shown = (await nobody.get(f"/s/{link['token']}")).text
    if is_revoked:
        assert (await ada.get("shares"))["items"] == [] and "Wax" not in shown
    else:
        assert (await ada.get("shares"))["items"] == [told] and told["options"]["instructions"]
        assert "Secret instructions" in shown


async def test_taken_anew_it_expires_when_it_did_unless_told(ada: Person, script: Scripted) -> None:
    conversation, _ = await talk(ada, script)
    for expires in ("day", "never"):
        link = await share(ada, conversation, expires=expires)
        changed = await ada.post(f"shares/{link['id']}/update", {}, 200)
        assert changed["expires_at"] == link["expires_at"] and changed["updated_at"] > link["updated_at"]
    left = datetime.fromisoformat((await share(ada, conversation))["expires_at"]) - now()
    assert timedelta(days=29) < left <= timedelta(days=30)


@pytest.mark.parametrize(("expires", "days"), [("day", 1), ("week", 7), ("month", 30)])
async def test_it_expires(
    ada: Person, nobody: httpx.AsyncClient, app: FastAPI, script: Scripted, expires: str, days: int
) -> None:
    conversation, _ = await talk(ada, script)
    link = await share(ada, conversation, expires=expires)
    left = datetime.fromisoformat(link["expires_at"]) - now()
    assert timedelta(days=days) - timedelta(minutes=1) < left <= timedelta(days=days)
    assert (await nobody.get(f"/s/{link['token']}")).status_code == 200
    async with app.state.context.database.session() as session:
        await session.execute(update(Share).values(expires_at=now() - timedelta(seconds=1)))
    assert (await nobody.get(f"/s/{link['token']}")).status_code == 404
    assert (await ada.get("shares"))["items"][0]["id"] == link["id"]  # where its owner can renew it
    await ada.post(f"shares/{link['id']}/update", {"expires": expires}, 200)
    assert (await nobody.get(f"/s/{link['token']}")).status_code == 200


async def test_every_link_that_leads_nowhere_is_the_same(
    ada: Person, bob: Person, nobody: httpx.AsyncClient, app: FastAPI, script: Scripted
) -> None:
    """Unknown, revoked, expired, of a deleted conversation, of one who is disabled, malformed, and with sharing off."""
    kinds = {}
    for kind in ("revoked", "expired", "deleted", "off"):
        conversation, _ = await talk(ada, script)
        kinds[kind] = (conversation, await share(ada, conversation))
    theirs, _ = await talk(bob, script)
    disabled = await share(bob, theirs)
    for _, link in kinds.values():
        assert (await nobody.get(f"/s/{link['token']}")).status_code == 200  # and so all are in the cache
    assert (await nobody.get(f"/s/{disabled['token']}")).status_code == 200
    await ada.delete(f"shares/{kinds['revoked'][1]['id']}")
    await ada.delete(f"conversations/{kinds['deleted'][0]}")
    async with app.state.context.database.session() as session:
        await session.execute(update(Share).where(Share.id == kinds["expired"][1]["id"]).values(expires_at=now()))
        await session.execute(update(User).where(User.name == "bob").values(disabled_at=now()))
    object.__setattr__(app.state.context.settings, "sharing", True)
    tokens = [kinds[kind][1]["token"] for kind in ("revoked", "expired", "deleted")] + [disabled["token"]]
    tokens += ["x", "A" * 43, "%00", "..%2f..%2fetc", "' OR 1=1 --", "%ff", "é" * 43, "A" * 5000]
    answers = [await nobody.get(f"/s/{token}") for token in tokens]
    object.__setattr__(app.state.context.settings, "sharing", False)
    answers.append(await nobody.get(f"/s/{kinds['off'][1]['token']}"))
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1
    for token in tokens:
        answer = await ada.http.post("/api/shares/continue", json={"token": token})
        assert answer.status_code in (400, 404)


async def test_a_visitor_goes_on_with_it(ada: Person, bob: Person, script: Scripted) -> None:
    conversation, _ = await talk(ada, script)
    link = await share(ada, conversation, reasoning=True, instructions=True)
    made = await bob.post("shares/continue", {"token": link["token"]})
    tree = await bob.get(f"conversations/{made['id']}")
    assert [(m["role"], m["content"]) for m in tree["messages"]] == [("user", "How?"), ("assistant", "**Wax** burns.")]
    assert tree["messages"][1]["parent_id"] == tree["messages"][0]["id"] and tree["title"] == "Candles"
    assert tree["current_leaf_id"] == tree["messages"][1]["id"]
    assert tree["parameters"].get("system") is None and tree["messages"][1]["reasoning"] is None
    _, answer = await bob.asked(made["id"], "Why?", tree["messages"][1]["id"])
    assert answer["content"]
    assert len((await ada.get(f"conversations/{conversation}"))["messages"]) == 2
    await ada.get(f"conversations/{made['id']}", 404)


async def test_a_copy_of_what_was_cut_says_so(app: FastAPI, ada: Person, bob: Person, script: Scripted) -> None:
    conversation = await ada.converse(title="t")
    _, cut = await ada.asked(conversation, "How?", parameters={"max_tokens": 4})
    script.answer = ENDLESS
    started = await ada.ask(conversation, "And?", cut["id"])
    run = context_of(app).runs.find(started["run"]["id"])
    assert run is not None
    await until(lambda: run.content != "", 10)
    await ada.post(f"runs/{run.id}/stop", status=200)
    link = await share(ada, conversation)
    made = await bob.post("shares/continue", {"token": link["token"]})
    copies = (await bob.get(f"conversations/{made['id']}"))["messages"]
    assert [(m["status"], m["finish_reason"]) for m in copies] == [
        ("complete", None), ("complete", "length"), ("complete", None), ("stopped", None),
    ]  # fmt: skip


async def test_links_are_listed_and_taken_back(
    ada: Person, bob: Person, nobody: httpx.AsyncClient, script: Scripted
) -> None:
    (one, _), (two, _) = await talk(ada, script, "One"), await talk(ada, script, "Two")
    links = [await share(ada, conversation) for conversation in (one, one, two)]
    listed = (await ada.get("shares"))["items"]
    assert [link["id"] for link in listed] == [link["id"] for link in links[::-1]]
    assert [link["title"] for link in (await ada.get("shares", conversation=two))["items"]] == ["Two"]
    assert len({link["token"] for link in links}) == 3 and all(len(link["token"]) == 43 for link in links)
    theirs = await share(bob, (await talk(bob, script))[0])
    answer = await ada.http.delete("/api/shares")
    assert answer.json() == {"revoked": 3} and (await ada.get("shares"))["items"] == []
    assert (await nobody.get(f"/s/{links[0]['token']}")).status_code == 404
    assert (await nobody.get(f"/s/{theirs['token']}")).status_code == 200


async def test_what_cannot_be_shared(
    ada: Person, app: FastAPI, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation, answer = await talk(ada, script)
    empty = await ada.converse()
    assert (await ada.post(f"conversations/{empty}/shares", {}, 409))["error"]["code"] == "nothing_to_share"
    await ada.post(f"conversations/{conversation}/shares", {"leaf_id": new_id()}, 404)
    for bad in ({"expires": "year"}, {"token": "x"}, {"leaf_id": "x"}, {"reasoning": "yes"}):
        await ada.post(f"conversations/{conversation}/shares", bad, 400)
    monkeypatch.setattr(snapshots, "MAX_CHARACTERS", 10)
    assert (await ada.post(f"conversations/{conversation}/shares", {}, 409))["error"]["code"] == "too_long_to_share"
    monkeypatch.undo()
    monkeypatch.setattr(service, "MAX_SHARES", 1)
    await share(ada, conversation, leaf_id=answer["id"])
    assert (await ada.post(f"conversations/{conversation}/shares", {}, 409))["error"]["code"] == "too_many_shares"
    object.__setattr__(app.state.context.settings, "sharing", False)
    await ada.post(f"conversations/{conversation}/shares", {}, 403)
    assert (await ada.get("session"))["sharing"] is False


async def test_guests_share_and_import_nothing(ada: Person, app: FastAPI, script: Scripted) -> None:
    conversation, _ = await talk(ada, script)
    async with app.state.context.database.session() as session:
        await session.execute(update(User).where(User.name == "ada").values(role=Role.GUEST))
    await ada.post(f"conversations/{conversation}/shares", {}, 403)
    assert (await ada.http.post("/api/imports", content=b"[]")).status_code == 403
    assert (await ada.http.get("/api/me/export")).status_code == 200  # what is theirs they may take along


async def test_pages_are_in_the_readers_language_and_kept_for_a_while(
    ada: Person, nobody: httpx.AsyncClient, app: FastAPI, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation, _ = await talk(ada, script)
    link = await share(ada, conversation)
    arabic = await nobody.get(f"/s/{link['token']}", headers={"Accept-Language": "ar"})
    assert '<html lang="ar" dir="rtl">' in arabic.text and 'dir="auto"' in arabic.text
    monkeypatch.setattr("fireside.server.sharing.pages._page", lambda *_: pytest.fail("rendered again"))
    assert (await nobody.get(f"/s/{link['token']}", headers={"Accept-Language": "ar"})).text == arabic.text
    pages = app.state.context.shared_pages
    assert 0 < pages._size == sum(map(len, pages._kept.values()))
    monkeypatch.setattr("fireside.server.sharing.pages._KEPT", 10)
    pages._keep(("x", now(), "en"), b"y" * 20)
    assert pages._size == 0 and not pages._kept
