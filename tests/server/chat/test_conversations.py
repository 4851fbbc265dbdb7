"""Lists, searches, changes and deletions of conversations."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import insert

from fireside.engine.scripted import ScriptedAnswer
from fireside.server.chat.search import SNIPPET, snippet
from fireside.server.chat.tables import Message, Role, Status
from fireside.server.db.base import new_id
from tests.server.chat.people import Person
from tests.server.scripted_app import Scripted, says


async def test_a_list_in_pages(ada: Person) -> None:
    ids = [await ada.converse(title=f"Talk {number}") for number in range(7)]
    await ada.asked(ids[2], "Hi")  # what was written to last comes first
    expected = [ids[2], *(i for i in ids[::-1] if i != ids[2])]
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    for size in (3, 3, 1):
        page = await ada.get("conversations", limit=3, **cursor)
        assert len(page["items"]) == size
        seen += [item["id"] for item in page["items"]]
        cursor = {"cursor": page["next_cursor"]}
    assert seen == expected and page["next_cursor"] is None
    for bad in ("x", "MjAyNg==", "é", "MjAyNi0wMS0wMVQwMDowMDowMA==", "MDAwMS0wMS0wMVQwMDowMDowMCsyMzo1OSB4"):
        assert (await ada.get("conversations", 400, cursor=bad))["error"]["param"] == "cursor"
    await ada.get("conversations", 400, limit=101)


async def test_pins_archive_and_projects(ada: Person) -> None:
    plain, pinned, archived = [await ada.converse() for _ in range(3)]
    project = (await ada.post("projects", {"name": " Cooking "}))["id"]
    filed = await ada.converse(project_id=project)
    await ada.patch(f"conversations/{pinned}", {"pinned": True})
    await ada.patch(f"conversations/{archived}", {"archived": True})

    async def listed(**query: Any) -> set[str]:
        return {item["id"] for item in (await ada.get("conversations", **query))["items"]}

    assert await listed() == {plain, pinned, filed}
    assert await listed(pinned=True) == {pinned}
    assert await listed(pinned=False) == {plain, filed}
    assert await listed(archived=True) == {archived}
    assert await listed(project=project) == {filed}
    again = await ada.patch(f"conversations/{archived}", {"archived": False, "project_id": project})
    assert again["archived_at"] is None and await listed(project=project) == {filed, archived}
    await ada.patch(f"conversations/{filed}", {"project_id": None})
    await ada.delete(f"projects/{project}")
    assert await listed() == {plain, pinned, filed, archived}
    assert (await ada.get(f"conversations/{archived}"))["project_id"] is None
    await ada.patch(f"conversations/{filed}", {"project_id": project}, 404)
    await ada.post("conversations", {"project_id": new_id()}, 404)


async def test_changes(ada: Person) -> None:
    conversation = await ada.converse()
    changed = await ada.patch(
        f"conversations/{conversation}",
        {"title": "  Plans ", "model": "tiny", "parameters": {"temperature": 0.5, "system": "Be kind."}},
    )
    assert (changed["title"], changed["has_own_title"], changed["model"]) == ("Plans", True, "tiny")
    assert changed["parameters"]["temperature"] == 0.5
    kept = await ada.patch(f"conversations/{conversation}", {"pinned": True})
    assert (kept["title"], kept["parameters"]) == ("Plans", changed["parameters"])
    assert (await ada.patch(f"conversations/{conversation}", {"model": None}))["model"] is None
    await ada.patch(f"conversations/{conversation}", {"title": ""}, 400)
    await ada.patch(f"conversations/{conversation}", {"parameters": {"temperature": 3}}, 400)
    await ada.patch(f"conversations/{conversation}", {"user_id": "somebody"}, 400)


async def test_a_model_that_is_gone_is_replaced_by_the_default(ada: Person) -> None:
    conversation = await ada.converse(model="of last year")
    _, answer = await ada.asked(conversation, "Hi")
    assert (answer["model"], answer["status"]) == ("tiny", "complete")


async def test_turning_to_a_branch(ada: Person) -> None:
    conversation = await ada.converse()
    first, answer = await ada.asked(conversation, "1")
    await ada.asked(conversation, "2", answer["id"])
    _, last = await ada.asked(conversation, "3", answer["id"])
    other = await ada.post(f"messages/{first['id']}/edit", {"content": "one", "run": False})
    assert (await ada.get(f"conversations/{conversation}"))["current_leaf_id"] == other["message"]["id"]
    turned = await ada.patch(f"conversations/{conversation}", {"current_leaf_id": first["id"]})
    assert turned["current_leaf_id"] == last["id"]
    await ada.patch(f"conversations/{conversation}", {"current_leaf_id": new_id()}, 404)


async def test_deleting(ada: Person, script: Scripted) -> None:
    ids = [await ada.converse(title="Secret plans") for _ in range(4)]
    _, answer = await ada.asked(ids[0], "a secret word")
    await ada.delete(f"conversations/{ids[0]}")
    await ada.delete(f"conversations/{ids[0]}", 404)
    await ada.get(f"conversations/{ids[0]}", 404)
    await ada.get(f"runs/{answer['run_id']}", 404)
    await ada.get(f"runs/{answer['run_id']}/events", 404)
    assert (await ada.post("conversations/delete", {"ids": [*ids[1:3], new_id(), ids[0]]}, 200)) == {"deleted": 2}
    assert [item["id"] for item in (await ada.get("conversations", q="secret"))["items"]] == ids[3:]


async def test_deleting_what_is_being_written_frees_the_engine(ada: Person, script: Scripted) -> None:
    script.answer = ScriptedAnswer(token_ids=itertools.repeat(ord("x")), delay=0.005)
    conversation, other = await ada.converse(title="a"), await ada.converse(title="b")
    started, going = await ada.ask(conversation, "Hi"), await ada.ask(other, "Hi")
    await asyncio.sleep(0.05)
    listening = asyncio.create_task(ada.events(started["run"]["id"]))
    await asyncio.sleep(0.05)
    await ada.delete(f"conversations/{conversation}")
    assert script.client.in_flight == 1
    await asyncio.wait_for(listening, 5)
    script.answer = says("done")
    await ada.post(f"runs/{going['run']['id']}/stop", status=200)
    assert (await ada.message(other, going["answer"]["id"]))["status"] == "stopped"


# Search


async def found(ada: Person, query: str, **more: Any) -> list[tuple[str | None, str]]:
    items = (await ada.get("conversations", q=query, **more))["items"]
    return [(item["hit"]["message_id"], item["hit"]["snippet"]) for item in items]


async def test_search_lands_on_the_message(ada: Person, script: Scripted, migrated_database: str) -> None:
    looks_past_accents = migrated_database.startswith("sqlite")  # PostgreSQL's needs an extension for that
    script.answer = says("In Zürich there is a café by the river, quite 100% good.")
    conversation = await ada.converse(title="Holiday plans")
    question, answer = await ada.asked(conversation, "Where shall I drink coffee?")
    everything = "In Zürich there is a café by the river, quite 100% good."
    for query in ("Zürich", "café riv", "RIVER café", "100%", "by the ri"):
        assert await found(ada, query) == [(answer["id"], everything)], query
    for query in ("zurich", "CAFÉ", "cafe riv"):
        assert await found(ada, query) == ([(answer["id"], everything)] if looks_past_accents else []), query
    assert await found(ada, "drink") == [(question["id"], "Where shall I drink coffee?")]
    assert await found(ada, "holiday") == [(None, "Holiday plans")]
    for query in ("ürich", "tea", "café tea", "iver", "drink river"):
        assert await found(ada, query) == [], query


async def test_search_takes_nothing_for_syntax(ada: Person, script: Scripted) -> None:
    script.answer = says("No.")
    conversation = await ada.converse(title="Plain")
    question, _ = await ada.asked(conversation, "NEAR the 50% mark a_b OR 'quoted'")
    hit = [(question["id"], "NEAR the 50% mark a_b OR 'quoted'")]
    for query in ("%", "50%", "_", "a_b", "'quoted'", "NEAR", "or", "the OR", "'", "NEAR the"):
        assert await found(ada, query) == hit, query
    for query in (
        "%%",
        "ne%rk",
        "axb",
        '"',
        "*",
        "content:no",
        "x' OR '1'='1",
        "(",
        "^",
        "-",
        "\\",
        "!",
        "&",
        ":*",
        "<->",
    ):
        assert await found(ada, query) == [], query


async def test_search_without_spaces_between_words(ada: Person, script: Scripted) -> None:
    script.answer = says("好的。")
    conversation = await ada.converse(title="x")
    question, _ = await ada.asked(conversation, "我想学习中文和日本語のことば")
    for query in ("学习", "中文", "ことば", "本語の"):
        assert [hit for hit, _ in await found(ada, query)] == [question["id"]], query
    assert await found(ada, "学中") == []


async def test_search_follows_edits_and_archives(ada: Person, script: Scripted) -> None:
    script.answer = says("Apples")
    conversation = await ada.converse(title="First name")
    _, answer = await ada.asked(conversation, "fruit?")
    await ada.patch(f"conversations/{conversation}", {"title": "Second name", "archived": True})
    assert await found(ada, "first") == [] and await found(ada, "second name") == [(None, "Second name")]
    assert await found(ada, "apples") == [(answer["id"], "Apples")]
    script.answer = says(" and pears")
    more = await ada.post(f"messages/{answer['id']}/continue")
    await ada.events(more["run"]["id"])
    assert await found(ada, "apples pears") == [(answer["id"], "Apples and pears")]


async def test_search_in_pages(ada: Person) -> None:
    ids = [await ada.converse(title=f"needle {number}") for number in range(5)]
    page = await ada.get("conversations", q="needle", limit=3)
    rest = await ada.get("conversations", q="needle", limit=3, cursor=page["next_cursor"])
    assert [item["id"] for item in page["items"] + rest["items"]] == ids[::-1]


@pytest.mark.parametrize(
    ("content", "query", "expected"),
    [
        ("short", "short", "short"),
        ("a\n  b", "b", "a b"),
        ("x" * 300, "y", "x" * SNIPPET + "…"),
        ("w " * 200 + "needle " + "z " * 200, "Needle", "…" + "w " * 25 + "needle " + "z " * 51 + "z…"),
        ("", "a", ""),
    ],
)
def test_snippets(content: str, query: str, expected: str) -> None:
    assert snippet(content, query) == expected


async def test_a_conversation_of_any_length_can_be_deleted(ada: Person, app: FastAPI) -> None:
    """Deeper than SQLite follows a chain of rows."""
    conversation = await ada.converse()
    number = (await ada.asked(conversation, "Hi"))[1]["id"]
    async with app.state.context.database.session() as session:
        rows = []
        for _ in range(1_500):
            rows.append(
                {
                    "id": new_id(),
                    "conversation_id": conversation,
                    "parent_id": number,
                    "role": Role.USER,
                    "content": "x",
                    "status": Status.COMPLETE,
                }
            )
            number = rows[-1]["id"]
        await session.execute(insert(Message), rows)
    await ada.delete(f"conversations/{conversation}")
    await ada.get(f"conversations/{conversation}", 404)
