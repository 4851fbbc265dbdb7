"""Importing: what arrives is there exactly, once, found by search, and nobody else's."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import inspect, select

from fireside.server.deps import Context
from fireside.server.moving import jobs
from fireside.server.moving.tables import Import
from tests.server.chat.people import Person
from tests.server.moving.exports import branched, chatgpt, encoded, librechat, native, node, openwebui, zipped
from tests.server.moving.uploads import imported, over, trees, upload


async def test_a_zip_of_chatgpt(ada: Person, bob: Person) -> None:
    second = branched(conversation_id="2", title="Second", is_archived=True, update_time=1756000500)
    report = await imported(
        ada, zipped({"conversations-000.json": [branched()], "conversations-001.json": [second], "a.png": b""})
    )
    assert (report["conversations"], report["messages"], report["unchanged"]) == (2, 14, 0)
    assert report["skipped"] == [{"reason": "other_file", "where": "", "title": "", "count": 1, "detail": ""}]
    (tree,) = await trees(ada)
    assert (tree["title"], tree["created_at"], tree["updated_at"]) == (
        "Candles",
        "2025-08-24T01:46:40.123456Z",
        "2025-08-24T01:53:20.654321Z",
    )
    messages = {message["content"]: message for message in tree["messages"]}
    assert len(messages) == 7
    parents = {text: message["parent_id"] for text, message in messages.items()}
    assert parents["How does a candle burn?"] is None and parents["How does a candle *really* burn?"] is None
    assert parents["The vapour burns."] == parents["Wax vapour meets air."]
    assert messages["Gladly."]["created_at"] == "2025-08-24T01:46:47.000001Z"
    assert tree["current_leaf_id"] == messages["The vapour burns."]["id"]
    ids = [message["id"] for message in tree["messages"]]
    assert ids == sorted(ids)  # siblings stand in the order of their ids
    assert [one["title"] for one in await trees(ada, archived=True)] == ["Second"]
    assert await trees(bob) == []


async def test_what_was_imported_is_found_and_goes_on(ada: Person) -> None:
    await imported(ada, encoded([branched()]))
    (found,) = (await ada.get("conversations", q="vapour air"))["items"]
    assert "Wax vapour" in found["hit"]["snippet"]
    _, answer = await ada.asked(found["id"], "And now?", found["hit"]["message_id"])
    assert answer["content"] == "Hello there."


async def test_importing_twice_adds_nothing_and_a_changed_source_what_is_new(ada: Person, bob: Person) -> None:
    data = zipped({"conversations.json": [branched(), branched()]})  # and twice in one file is once
    assert (await imported(ada, data))["conversations"] == 1
    before = await trees(ada)
    report = await imported(ada, data)
    assert (report["conversations"], report["changed"], report["unchanged"], report["messages"]) == (0, 0, 2, 0)
    assert await trees(ada) == before
    grown = branched()
    grown["mapping"]["a4"]["children"] = ["q5"]
    grown["mapping"] |= {
        "q5": node("q5", "a4", ["a5"], "user", "More"),
        "a5": node("a5", "q5", [], "assistant", "Yes."),
    }
    report = await imported(ada, encoded([grown | {"current_node": "a5", "update_time": 1756009999}]))
    assert (report["conversations"], report["changed"], report["messages"]) == (0, 1, 2)
    (tree,) = await trees(ada)
    assert tree["messages"][:7] == before[0]["messages"]
    assert [m["content"] for m in tree["messages"][7:]] == ["More", "Yes."]
    assert tree["messages"][7]["parent_id"] == next(m["id"] for m in tree["messages"] if m["content"] == "Gladly.")
    assert tree["current_leaf_id"] == tree["messages"][8]["id"]
    assert (await imported(ada, encoded([grown])))["messages"] == 0
    assert (await imported(bob, data))["conversations"] == 1  # what is known of one person is nothing to another


async def test_a_branch_that_was_gone_on_with_here_stays_shown(ada: Person) -> None:
    await imported(ada, encoded([branched()]))
    (tree,) = await trees(ada)
    leaf = tree["current_leaf_id"]
    _, answer = await ada.asked(tree["id"], "Go on", leaf)
    grown = branched(current_node="a5")
    grown["mapping"]["a5"] = node("a5", "q2", [], "assistant", "Another answer.")
    assert (await imported(ada, encoded([grown])))["messages"] == 1
    (tree,) = await trees(ada)
    assert tree["current_leaf_id"] == answer["id"]


async def test_what_was_deleted_comes_again(ada: Person) -> None:
    await imported(ada, encoded([branched()]))
    (tree,) = await trees(ada)
    await ada.delete(f"conversations/{tree['id']}")
    assert (await imported(ada, encoded([branched()])))["conversations"] == 1


async def test_the_other_programs(ada: Person) -> None:
    report = await imported(
        ada,
        zipped(
            {"open.json": [openwebui(archived=False)], "libre.json": librechat(recursive=True), "ours.json": native()}
        ),
    )
    assert report["conversations"] == 3
    ours, libre, opened = await trees(ada)
    assert (opened["title"], opened["parameters"]["system"]) == ("Sums", "Be exact.")
    assert opened["parameters"]["temperature"] == 0.3
    assert (libre["title"], libre["parameters"]["system"]) == ("A story", "You tell stories.")
    assert libre["parameters"]["temperature"] == 0.8
    assert (await imported(ada, encoded(librechat(recursive=False))))["unchanged"] == 1  # the same in another format
    (project,) = (await ada.get("projects"))["items"]
    assert (project["name"], project["instructions"]) == ("Home", "Be at home.")
    assert ours["project_id"] == project["id"] and ours["pinned_at"]


async def test_parameters_that_cannot_be_are_left_out_one_by_one(ada: Person) -> None:
    wrong = {"temperature": 9, "top_p": 0.5, "system": "x" * 40_000, "max_tokens": "many", "evil": 1, "seed": 7}
    await imported(ada, encoded(native(parameters=wrong, project=None)))
    (tree,) = await trees(ada)
    kept = {name: value for name, value in tree["parameters"].items() if value is not None}
    assert kept == {"top_p": 0.5, "seed": 7}


async def test_messages_without_times_are_as_old_as_what_comes_before(ada: Person) -> None:
    chain = [node("q", None, ["a"], "user", "Hi", at=1756000100), node("a", "q", [], "assistant", "Hello")]
    await imported(ada, encoded([chatgpt(*chain, title=None, update_time=None)]))
    (tree,) = await trees(ada)
    assert tree["title"] == "Hi" and tree["updated_at"] == "2025-08-24T01:48:20Z"
    assert tree["messages"][1]["created_at"] == tree["messages"][0]["created_at"] == "2025-08-24T01:48:20Z"


def turn(*pieces: str) -> bytes:
    names = ["q", *(f"a{number}" for number in range(len(pieces)))]
    nodes = [node("q", None, ["a0"], "user", "Tell me")]
    for number, piece in enumerate(pieces):
        nodes.append(node(f"a{number}", names[number], names[number + 2 : number + 3], "assistant", piece))
    return encoded([chatgpt(*nodes)])


async def test_an_answer_that_was_gone_on_with_here_stays_what_it_was(ada: Person) -> None:
    await imported(ada, turn("One."))
    (before,) = await trees(ada)
    await ada.asked(before["id"], "And?", before["current_leaf_id"])
    assert (await imported(ada, turn("One.", "Two.")))["messages"] == 1
    (tree,) = await trees(ada)
    assert [m["content"] for m in tree["messages"]] == ["Tell me", "One.", "And?", "Hello there.", "One.\n\nTwo."]


async def test_an_answer_that_had_not_come_to_its_end_goes_on(ada: Person) -> None:
    """It is the same message, whichever export comes first and again."""
    await imported(ada, turn("One.", "Two."))
    (before,) = await trees(ada)
    report = await imported(ada, turn("One.", "Two.", "Three.", "Four."))
    assert (report["changed"], report["messages"]) == (1, 1)
    for again in (turn("One.", "Two."), turn("One.", "Two.", "Three.", "Four.")):
        assert (await imported(ada, again))["unchanged"] == 1
    (tree,) = await trees(ada)
    assert [m["content"] for m in tree["messages"]] == ["Tell me", "One.\n\nTwo.\n\nThree.\n\nFour."]
    assert [m["id"] for m in tree["messages"]] == [m["id"] for m in before["messages"]]
    assert tree["current_leaf_id"] == before["current_leaf_id"]
    assert len((await ada.get("conversations", q="three"))["items"]) == 1


async def test_the_list_of_imports_reads_no_report(ada: Person, app: FastAPI) -> None:
    """What was left out is a column of its own, which only the one that is shown needs."""
    context: Context = app.state.context
    await imported(ada, encoded([branched(), *({"title": str(number)} for number in range(600))]))
    async with context.database.session() as session:
        row = (await session.scalars(select(Import))).one()
        assert "skipped" in inspect(row).unloaded and "skipped" not in row.report
    (listed,) = (await ada.get("imports"))["items"]
    whole = await ada.get(f"imports/{listed['id']}")
    assert (len(whole["report"]["skipped"]), whole["report"]["skipped_count"]) == (501, 600)
    assert whole["report"]["skipped"][-1]["count"] == 100  # whose names are not told


async def test_the_report_says_what_was_left_out_where(ada: Person) -> None:
    made = await upload(
        ada,
        zipped(
            {
                "conversations.json": [branched(), {"title": "Odd"}, chatgpt(node("r", None, []), title="Empty")],
                "../x.json": [],
                "broken.json": b'[{"a":',
            }
        ),
        "my export.zip",
    )
    ended = await over(ada, made["id"])
    told = {(one["reason"], one["where"], one["title"]) for one in ended["report"]["skipped"]}
    assert told == {
        ("unsafe_name", "../x.json", ""),
        ("unknown_format", "conversations.json", "Odd"),
        ("no_messages", "conversations.json", "Empty"),
        ("not_json", "broken.json", ""),
    }
    assert ended["report"]["skipped_count"] == 4 and ended["name"] == "my export.zip"
    assert datetime.fromisoformat(ended["finished_at"]) >= datetime.fromisoformat(ended["created_at"])
    (listed,) = (await ada.get("imports"))["items"]
    assert listed["id"] == made["id"] and listed["report"]["skipped"] == []


async def test_an_upload_that_cannot_be_read(ada: Person) -> None:
    ended = await over(ada, (await upload(ada, b"PK\x03\x04 and nothing"))["id"])
    assert ended["status"] == "failed" and "damaged zip" in ended["report"]["problem"]
    await upload(ada, b"", status=400)
    await imported(ada, encoded([branched()]))  # nothing of these is in the way


async def test_larger_than_the_server_takes(ada: Person, app: FastAPI) -> None:
    context: Context = app.state.context
    app.state.max_body_bytes = 10_000  # of any other request
    object.__setattr__(context.settings, "max_import_bytes", 200_000)
    taken = await upload(ada, encoded([branched(padding="x" * 190_000)]))
    assert (await over(ada, taken["id"]))["report"]["conversations"] == 1
    assert (await upload(ada, b"x" * 200_001, status=413))["error"]["code"] == "request_too_large"

    async def chunks() -> Any:  # without saying how much it will be
        for _ in range(11):
            yield b"x" * 20_000

    answer = await ada.http.post("/api/imports", content=chunks())
    assert answer.status_code == 413 and answer.headers["connection"] == "close"
    await imported(ada, encoded([branched()]))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_uploads_leave_no_file_behind(ada: Person, tmp_path: Path) -> None:
    before = names_in(tmp_path)
    await imported(ada, encoded([branched()]))
    await upload(ada, b"", status=400)
    assert names_in(tmp_path) <= before | {"fireside.db-wal", "fireside.db-shm"}


async def test_only_so_many_at_once(ada: Person, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_AT_ONCE", 0)
    assert (await upload(ada, b"[]", status=429))["error"]["code"] == "too_many_imports"
