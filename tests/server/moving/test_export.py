"""What leaves: conversations as files, and accounts as a whole; and that what leaves comes back as it was."""

from __future__ import annotations

import io
import json
import re
import zipfile
from datetime import UTC, datetime, timedelta
from email.message import Message as Headers
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.server.chat import tables
from fireside.server.moving import account, native
from fireside.server.moving.archive import read
from fireside.server.moving.export import disposition, file_name
from fireside.server.moving.parsed import Conversation
from tests.server.chat.people import Person
from tests.server.moving.exports import branched, encoded
from tests.server.moving.uploads import imported, thought, trees
from tests.server.scripted_app import Scripted, says

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Characters that can be kept: all but surrogates and NUL.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
times = st.integers(1, 4_102_444_799_000_000).map(lambda us: EPOCH + timedelta(microseconds=us))


@st.composite
def stored(draw: st.DrawFn) -> tuple[tables.Conversation, list[tables.Message]]:
    """A conversation of any shape, as the tables have it."""
    count = draw(st.integers(1, 12))
    ids = [f"{number:032x}" for number in range(1, count + 1)]
    messages = []
    for number in range(count):
        role = draw(st.sampled_from(["user", "assistant"]))
        status = (
            "complete" if role == "user" else draw(st.sampled_from(["complete", "stopped", "interrupted", "failed"]))
        )
        messages.append(
            tables.Message(
                id=ids[number],
                created_at=draw(times),
                parent_id=draw(st.sampled_from([None, *ids[:number]])),
                role=role,
                content=draw(texts),
                reasoning=draw(st.none() | texts),
                status=status,
                error=draw(st.none() | st.fixed_dictionaries({"message": texts, "code": st.none() | texts})),
                model=draw(st.none() | texts.filter(bool)),
                parameters=draw(
                    st.none() | st.fixed_dictionaries({"temperature": st.floats(0, 2), "seed": st.integers(0, 99)})
                ),
                finish_reason=draw(st.sampled_from([None, "length", "stop"])),
                usage=draw(st.none() | st.dictionaries(texts, st.integers(0, 2**53), max_size=3)),
            )
        )
    conversation = tables.Conversation(
        id="f" * 32,
        created_at=draw(times),
        updated_at=draw(times),
        title=draw(texts),
        has_own_title=draw(st.booleans()),
        model=draw(st.none() | texts.filter(bool)),
        parameters=draw(st.fixed_dictionaries({}, optional={"system": texts, "temperature": st.floats(0, 2)})),
        current_leaf_id=draw(st.sampled_from([None, *ids])),
        pinned_at=draw(st.none() | times),
        archived_at=draw(st.none() | times),
    )
    return conversation, messages


def read_back(data: bytes) -> Conversation:
    (found,) = read(io.BytesIO(data), "x", 1 << 20, lambda *_: None)
    assert isinstance(found, Conversation)
    return found


@given(stored())
@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_any_tree_comes_back_as_it_was(given_: tuple[tables.Conversation, list[tables.Message]]) -> None:
    conversation, messages = given_
    found = read_back(native.encode(native.dump(conversation, messages, None)))
    for name in ("title", "has_own_title", "created_at", "updated_at", "model"):
        assert getattr(found, name) == getattr(conversation, name), name
    assert json.loads(json.dumps(found.parameters, default=float)) == conversation.parameters
    assert found.current == conversation.current_leaf_id
    assert (found.is_pinned, found.is_archived) == (bool(conversation.pinned_at), bool(conversation.archived_at))
    assert [one.source_id for one in found.messages] == [one.id for one in messages]
    for one, message in zip(found.messages, messages, strict=True):
        assert one.parent == message.parent_id
        for name in (
            "role",
            "content",
            "reasoning",
            "created_at",
            "status",
            "model",
            "finish_reason",
            "error",
            "usage",
        ):
            assert getattr(one, name) == getattr(message, name), name
        assert one.parameters == message.parameters


def without_ids(tree: dict[str, Any]) -> dict[str, Any]:
    places = {message["id"]: place for place, message in enumerate(tree["messages"])}
    messages = [
        {k: v for k, v in m.items() if k not in ("id", "run_id")} | {"parent_id": places.get(m["parent_id"])}
        for m in tree["messages"]
    ]
    left_out = ("id", "project_id", "current_leaf_id", "pinned_at")
    return {k: v for k, v in tree.items() if k not in left_out} | {
        "messages": messages,
        "current": places.get(tree["current_leaf_id"]),
        "is_pinned": tree["pinned_at"] is not None,
    }


async def written(person: Person, script: Scripted) -> str:
    """A conversation with branches, reasoning and a project."""
    script.answer = says("**Bold** $x^2$ answer.")
    project = await person.post("projects", {"name": "Home", "instructions": "Be short."})
    conversation = await person.converse(
        title='A *title*\u202e with / and "quotes"', project_id=project["id"], parameters={"system": "Secret system"}
    )
    _, answer = await person.asked(conversation, "First question")
    await person.asked(conversation, "Second question", answer["id"])
    await thought(person, answer["id"], "Let me think")
    again = await person.post(f"messages/{answer['id']}/regenerate")
    await person.events(again["run"]["id"])
    await person.patch(f"conversations/{conversation}", {"pinned": True})
    return conversation


async def test_json_comes_back_on_another_account_and_is_known_on_the_same(
    ada: Person, bob: Person, script: Scripted
) -> None:
    conversation = await written(ada, script)
    data = (await ada.http.get(f"/api/conversations/{conversation}/export", params={"format": "json"})).content
    assert (await imported(ada, data))["unchanged"] == 1
    assert (await imported(bob, data))["conversations"] == 1
    ((mine,), (theirs,)) = await trees(ada), await trees(bob)
    assert without_ids(mine) == without_ids(theirs)
    assert {m["id"] for m in mine["messages"]}.isdisjoint(m["id"] for m in theirs["messages"])
    (project,) = (await bob.get("projects"))["items"]
    assert (theirs["project_id"], project["name"], project["instructions"]) == (project["id"], "Home", "Be short.")
    await ada.asked(conversation, "Later", mine["current_leaf_id"])
    newer = (await ada.http.get(f"/api/conversations/{conversation}/export", params={"format": "json"})).content
    assert (await imported(bob, newer))["messages"] == 2


async def test_a_newer_version_of_the_format_is_not_guessed_at(ada: Person) -> None:
    report = await imported(ada, encoded({"format": "fireside.conversation", "version": 2, "conversation": {}}))
    assert [one["reason"] for one in report["skipped"]] == ["unknown_format"]


async def test_markdown_and_page_are_of_one_branch(ada: Person, script: Scripted) -> None:
    conversation = await written(ada, script)
    tree = await ada.get(f"conversations/{conversation}")
    question = tree["messages"][0]["id"]
    first, second = [message["id"] for message in tree["messages"] if message["parent_id"] == question]

    async def export(format: str, **more: Any) -> Any:
        answer = await ada.http.get(f"/api/conversations/{conversation}/export", params={"format": format, **more})
        assert answer.status_code == 200, answer.text
        return answer

    shown = await export("markdown")
    assert shown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert shown.text.startswith("# A *title*") and "## Question\n\nFirst question\n\n## Answer (tiny)" in shown.text
    assert "Second question" not in shown.text and "think" not in shown.text and "Secret system" not in shown.text
    other = await export("markdown", leaf=first, reasoning=True)
    assert "Second question" in other.text and "> Let me think" in other.text
    page = await export("html", leaf=second)
    assert "<strong>Bold</strong>" in page.text and "<msup>" in page.text and "<script" not in page.text
    assert 'http-equiv="Content-Security-Policy"' in page.text and "@media print" in page.text
    assert not re.search(r'(src|href)="(?!data:)', page.text)  # it needs nothing but itself
    assert (
        "## Frage"
        in (
            await ada.http.get(
                f"/api/conversations/{conversation}/export?format=markdown",
                headers={"Accept-Language": "de-CH, en;q=0.5"},
            )
        ).text
    )
    for bad in ({"format": "exe"}, {"format": "html", "leaf": "x"}):
        assert (await ada.http.get(f"/api/conversations/{conversation}/export", params=bad)).status_code == 400
    assert (
        await ada.http.get(f"/api/conversations/{conversation}/export?format=html&leaf={'0' * 32}")
    ).status_code == 404
    header = shown.headers["content-disposition"]
    assert header.isascii() and "\u202e" not in unquote(header) and header.startswith("attachment; ")


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Candles", "Candles.md"),
        ("../../etc/passwd", "etc passwd.md"),
        ('a"; filename="evil.exe', "a ; filename= evil.exe.md"),
        ("x\r\nSet-Cookie: a=b", "xSet-Cookie a=b.md"),
        ("\u202egnp.exe", "gnp.exe.md"),
        ("", "conversation.md"),
        ("...", "conversation.md"),
        ("CON", "conversation CON.md"),
        ("Überblick für 学习 🕯️", "Überblick für 学习 🕯️.md"),
        ("字" * 300, "字" * 66 + ".md"),
        ("lone \ud800", "lone.md"),
    ],
)
def test_hostile_titles_are_names_of_files(title: str, expected: str) -> None:
    name = file_name(title, "md")
    assert name == expected
    headers = Headers()  # the outside word: Python's own reader of RFC 2231 parameters
    # It takes the plain name where there is one; browsers take the other.
    headers["Content-Disposition"] = re.sub(r' filename="[^"]*";', "", disposition(name))
    assert headers.get_filename() == name
    plain = re.search(r'filename="([^"]*)"', disposition(name))
    assert plain and plain[1].isascii() and "\\" not in plain[1]


async def test_a_whole_account(ada: Person, bob: Person, script: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = await written(ada, script)
    await imported(ada, encoded([branched()]))
    await ada.post("prompts", {"name": "shorten", "content": "Shorten this"})
    await ada.post(f"conversations/{conversation}/shares")

    async def more(*_: Any) -> Any:  # as another room adds what it keeps
        yield "another.json", b"[]"

    monkeypatch.setattr(account, "PARTS", [*account.PARTS, more])
    answer = await ada.http.get("/api/me/export")
    assert answer.headers["content-type"] == "application/zip" and ".zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        profile = json.loads(archive.read("profile.json"))
        assert json.loads(archive.read("prompts.json"))[0]["content"] == "Shorten this"
        assert json.loads(archive.read("projects.json"))[0]["instructions"] == "Be short."
        links = archive.read("shared-links.json").decode()
    assert profile["email"] == "ada@example.org" and not {"password_hash", "id"} & profile.keys()
    assert "A *title*" in links and "token" not in links
    assert "another.json" in names
    assert sorted(name.rpartition(".")[2] for name in names if name.startswith("conversations/")) == [
        "json",
        "json",
        "md",
        "md",
    ]
    report = await imported(bob, answer.content)
    assert (report["conversations"], report["messages"]) == (2, 5 + 7)
    assert [one["reason"] for one in report["skipped"]] == ["other_file"]
    assert [without_ids(tree) for tree in await trees(bob)] == [without_ids(tree) for tree in await trees(ada)]


async def test_an_account_goes_with_all_that_came_in_and_out(ada: Person, bob: Person, app: FastAPI) -> None:
    from sqlalchemy import delete, func, select

    from fireside.server.accounts.tables import User
    from fireside.server.moving.tables import Import, ImportedConversation
    from fireside.server.sharing.tables import Share

    await imported(bob, encoded([branched()]))
    (tree,) = await trees(bob)
    link = await bob.post(f"conversations/{tree['id']}/shares")
    async with app.state.context.database.session() as session:
        await session.execute(delete(User).where(User.name == "bob"))
    async with app.state.context.database.session() as session:
        for table in (Import, ImportedConversation, Share, tables.Conversation, tables.Message):
            assert await session.scalar(select(func.count()).select_from(table)) == 0, table
    assert (await ada.http.get(f"/s/{link['token']}")).status_code == 404
