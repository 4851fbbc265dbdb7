"""What is exported, in which form, and what never is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.data.config import SourceConfig
from fireside.data.documents import Conversation
from fireside.data.sources import read_source
from fireside.models.local import GenerationDefaults
from fireside.server.feedback import export as exporting
from fireside.server.feedback.export import export
from tests.server.chat.people import person
from tests.server.feedback.conftest import Giver
from tests.server.scripted_app import IM_END, Scripted, says, scripted_app

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "provenance"} for row in rows]


async def test_thumbs(ada: Giver, bob: Giver, script: Scripted, app: FastAPI) -> None:
    await bob.consent()
    app.state.context.models.default.defaults = GenerationDefaults((IM_END,), temperature=0.1, top_p=0.9)
    conversation = await bob.converse(parameters={"temperature": 0.5})
    question, first = await bob.asked(conversation, "Why?")
    script.answer = says("Second.")
    _, second = await bob.asked(conversation, "And?", first["id"])
    await bob.rate(first, "up", reasons=["clear"], comment="Nice")
    await bob.rate(second, "down")
    sft = await ada.export("sft")
    assert bare(sft) == [{"messages": [*PROMPT, answer("Hello there.")]}]
    (provenance,) = [row["provenance"] for row in sft]
    record = (await bob.get("feedback"))["items"][1]
    assert len(provenance.pop("person")) == 32
    assert provenance == {
        "feedback": record["id"], "kind": "rating", "verdict": "up", "strength": "explicit", "reasons": ["clear"],
        "comment": "Nice", "given_at": record["changed_at"], "path": [question["id"]],
        "answer": {
            "message": first["id"], "model": "tiny", "model_version": "weights of tiny",
            "parameters": {"temperature": 0.5, "top_p": 0.9},
        },
    }  # fmt: skip
    assert bare(await ada.export("kto")) == [
        {"prompt": PROMPT, "completion": [answer("Hello there.")], "label": True},
        {
            "prompt": [*PROMPT, answer("Hello there."), {"role": "user", "content": "And?"}],
            "completion": [answer("Second.")],
            "label": False,
        },
    ]
    assert await ada.export("dpo") == []


async def test_pairs(ada: Giver, bob: Giver, script: Scripted) -> None:
    await bob.consent()
    _, first = await bob.asked(await bob.converse(), "Why?")
    script.answer = says("Again.")
    again = await bob.again(first)
    script.answer = says("Hello there.")
    edit = (await bob.post(f"messages/{first['id']}/edit", {"content": "Hello!"}))["message"]
    begun = await bob.compare(first, "tiny", "other")
    left = await bob.message(begun["feedback"]["conversation_id"], begun["left"]["id"])
    side = "right" if left["content"] == "Hello there." else "left"  # the other one's
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": side}, 200)

    def pair(good: str, bad: str) -> dict[str, Any]:
        return {"prompt": PROMPT, "chosen": [answer(good)], "rejected": [answer(bad)]}

    sure = [pair("Hello!", "Hello there."), pair("From the other one.", "Hello there.")]
    rows = await ada.export("dpo")
    assert bare(rows) == sure
    assert rows[0]["provenance"]["chosen"] == {
        "message": edit["id"], "model": None, "model_version": None, "parameters": None,
    }  # fmt: skip
    assert rows[1]["provenance"]["chosen"]["model"] == "other"
    assert rows[1]["provenance"]["rejected"]["model_version"] == "weights of tiny"
    assert bare(await ada.export("sft")) == [
        {"messages": [*PROMPT, answer("Hello!")]}, {"messages": [*PROMPT, answer("From the other one.")]},
    ]  # fmt: skip
    # Nothing was said of the answer that was given again. What goes on, or is marked up, is weakly better.
    assert bare(await ada.export("dpo", weak=True)) == sure
    await bob.asked(begun["feedback"]["conversation_id"], "And?", first["id"])
    weak = await ada.export("dpo", weak=True)
    assert bare(weak) == [pair("Hello there.", "Again."), *sure]
    assert weak[0]["provenance"]["strength"] == "weak"
    await bob.rate(again, "up")
    assert bare(await ada.export("dpo", weak=True)) == [pair("Again.", "Hello there."), *sure]
    await bob.put(f"messages/{again['id']}/preference", {"verdict": "worse"})
    assert bare(await ada.export("dpo")) == [pair("Hello there.", "Again."), *sure]
    labels = {row["completion"][0]["content"]: row["label"] for row in await ada.export("kto")}
    assert labels == {"Hello!": True, "Hello there.": False, "From the other one.": True, "Again.": True}


async def test_an_example_comes_once_and_none_is_marked_down(ada: Giver, bob: Giver) -> None:
    await bob.consent()
    _, first = await bob.asked(await bob.converse(), "Why?")
    begun = await bob.compare(first)
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "both_good"}, 200)
    await bob.rate(begun["left"], "up")
    assert len(await ada.export("sft")) == 2
    await bob.rate(begun["left"], "down")
    rows = await ada.export("sft")
    assert [row["provenance"]["answer"]["message"] for row in rows] == [begun["right"]["id"]]


async def test_one_record_decides_for_an_answer(ada: Giver, bob: Giver) -> None:
    """Its thumb, else its edit, else its comparison: no answer is good in one row and bad in another."""
    await bob.consent()
    _, first = await bob.asked(await bob.converse(), "Why?")
    begun = await bob.compare(first, "tiny", "other")
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 200)
    won, lost = begun["left"]["id"], begun["right"]["id"]

    async def labels(form: str) -> list[tuple[str, str, bool]]:
        rows = [(row, row["provenance"]) for row in await ada.export(form)]
        return sorted((from_["kind"], from_["answer"]["message"], row.get("label", True)) for row, from_ in rows)

    assert await labels("kto") == [("comparison", won, True), ("comparison", lost, False)]
    edits = [(await bob.post(f"messages/{won}/edit", {"content": text}))["message"]["id"] for text in ("One.", "Two.")]
    edited = [("edit", edits[0], True), ("edit", edits[1], True)]
    assert await labels("kto") == [("comparison", lost, False), ("edit", won, False), *edited]
    assert await labels("sft") == edited
    await bob.rate({"id": won}, "up")
    await bob.rate({"id": lost}, "up")
    assert await labels("kto") == [*edited, ("rating", won, True), ("rating", lost, True)]
    assert await labels("sft") == [*edited, ("rating", lost, True)]
    edits += [(await bob.post(f"messages/{edits[1]}/edit", {"content": "Three."}))["message"]["id"]]
    assert ("edit", edits[1], False) in await labels("kto")


async def test_what_no_longer_holds_decides_nothing(ada: Giver, bob: Giver) -> None:
    """A winner that was written on is not what won; its thumb is of what it is now."""
    await bob.consent()
    _, first = await bob.asked(await bob.converse(), "Why?")
    begun = await bob.compare(first)
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 200)
    started = await bob.post(f"messages/{begun['left']['id']}/continue")
    await bob.events(started["run"]["id"])
    assert await ada.export("sft") == []
    await bob.rate(begun["left"], "up")
    for form in ("sft", "kto"):
        (row,) = await ada.export(form)
        assert row["provenance"]["kind"] == "rating"


async def test_answers_that_are_cut_teach_nobody(ada: Giver, bob: Giver) -> None:
    await bob.consent()
    conversation = await bob.converse()
    _, cut = await bob.asked(conversation, "Why?", parameters={"max_tokens": 4})
    assert cut["finish_reason"] == "length"
    await bob.rate(cut, "up")
    assert await ada.export("sft") == await ada.export("kto") == []
    # What is written on afterwards is not what was rated.
    started = await bob.post(f"messages/{cut['id']}/continue", {"parameters": {"max_tokens": 100}})
    await bob.events(started["run"]["id"])
    assert await ada.export("sft") == []
    await bob.rate(cut, "up")
    assert [row["messages"][-1]["content"] for row in await ada.export("sft")] == ["HellHello there."]


async def test_what_is_gone_is_in_no_export(ada: Giver, bob: Giver, app: FastAPI) -> None:
    async with person(app, "eve") as visitor:
        eve = Giver(visitor.http)
        words = {}
        for giver, text in ((bob, "of Bob's"), (bob, "deleted"), (bob, "withdrawn"), (eve, "of Eve's")):
            await giver.consent()
            conversation = await giver.converse()
            _, written = await giver.asked(conversation, text)
            words[text] = (conversation, await giver.rate(written, "up"))

        async def exported() -> set[str]:
            return {row["messages"][-2]["content"] for row in await ada.export("sft")}

        assert await exported() == set(words)
        await bob.delete(f"conversations/{words['deleted'][0]}")
        assert await exported() == {"of Bob's", "withdrawn", "of Eve's"}
        await bob.delete(f"feedback/{words['withdrawn'][1]['id']}")
        assert await exported() == {"of Bob's", "of Eve's"}
        people = (await ada.get("admin/users", q="eve"))["items"]
        await ada.delete(f"admin/users/{people[0]['id']}")
        assert await exported() == {"of Bob's"}
        await bob.consent(False, including_earlier=False)
        assert await exported() == {"of Bob's"}
        await bob.consent(False)
        assert await exported() == set()


async def test_people_are_called_by_nothing_that_is_known_elsewhere(ada: Giver, bob: Giver, app: FastAPI) -> None:
    for giver in (ada, bob, bob):
        await giver.consent()
        _, written = await giver.asked(await giver.converse(), "Why?")
        await giver.rate(written, "up")
    rows = await ada.export("sft")
    people = [row["provenance"]["person"] for row in rows]
    assert people[0] != people[1] == people[2]
    known = [await ada.get("admin/users"), await ada.get("me"), await bob.get("me"), await ada.get("admin/audit")]
    assert not any(name in json.dumps(known) for name in people)
    assert [entry["detail"] for entry in known[3]["items"]] == [{"format": "sft"}]
    assert "example.org" not in json.dumps(rows)


async def test_only_administrators_export(bob: Giver) -> None:
    for path in ("admin/feedback/export", "admin/feedback/leaderboard"):
        await bob.get(path, 403)
    await bob.get("admin/feedback/export", 403, format="nothing")


async def test_it_is_read_a_little_at_a_time(bob: Giver, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is withdrawn while it is read is not in what is still to come, nor is what was given meanwhile."""
    monkeypatch.setattr(exporting, "_PAGE", 2)
    await bob.consent()

    async def give() -> str:
        _, written = await bob.asked(await bob.converse(), "Why?")
        id: str = (await bob.rate(written, "up"))["id"]
        return id

    records = [await give() for _ in range(5)]
    stream = export(app.state.context.database, "sft")
    first = await anext(stream)
    await give()
    for record in (records[1], records[4]):  # one that is on the page which was begun, and one behind it
        await bob.delete(f"feedback/{record}")
    rows = [msgspec.json.decode(line) for line in [first, *[line async for line in stream]]]
    assert [row["provenance"]["feedback"] for row in rows] == [records[0], records[2], records[3]]


async def test_finetune_reads_it(ada: Giver, bob: Giver, tmp_path: Path, app: FastAPI) -> None:
    await bob.consent()
    _, written = await bob.asked(await bob.converse(), "Why?")
    await bob.rate(written, "up")
    path = tmp_path / "feedback.jsonl"
    path.write_bytes(b"".join([line async for line in export(app.state.context.database, "sft")]))
    (read,) = read_source(SourceConfig(name="feedback", path=str(path)))
    assert isinstance(read, Conversation)
    assert list(read.messages) == [*PROMPT, answer("Hello there.")]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["rate", "edit", "compare", "again", "withdraw", "delete", "consent", "refuse", "refuse all"]),
        st.integers(0, 1),
        st.sampled_from(["up", "down"]),
    ),
    min_size=3,
    max_size=9,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_nothing_without_consent_and_nothing_that_is_gone(actions: list[tuple[str, int, str]]) -> None:
    asyncio.run(_walk(actions))


async def _walk(actions: list[tuple[str, int, str]]) -> None:
    """Two conversations, in which anything is done in any order; every export is held against what the giver sees."""
    app = scripted_app(Scripted(), others={"other": Scripted(answer=says("From the other one."))})
    async with app.router.lifespan_context(app), person(app, "bob") as visitor:
        bob = Giver(visitor.http)
        conversations = [await bob.converse() for _ in range(2)]
        answers = [(await bob.asked(conversation, "Why?"))[1] for conversation in conversations]
        gone: set[str] = set()
        for action, index, verdict in actions:
            conversation, written = conversations[index], answers[index]
            if action in ("consent", "refuse", "refuse all"):
                await bob.consent(action == "consent", including_earlier=action == "refuse all")
            elif conversation in gone:
                continue
            elif action == "rate":
                await bob.rate(written, verdict)
            elif action == "edit":
                await bob.post(f"messages/{written['id']}/edit", {"content": "Better."})
            elif action == "again":
                await bob.again(written)
            elif action == "compare":
                begun = await bob.compare(written, "tiny", "other")
                await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 200)
            elif action == "withdraw":
                for item in (await bob.get("feedback", conversation=conversation))["items"][:1]:
                    await bob.delete(f"feedback/{item['id']}")
            elif action == "delete":
                await bob.delete(f"conversations/{conversation}")
                gone.add(conversation)
        mine = {item["id"]: item for item in (await bob.get("feedback"))["items"]}
        for form in ("sft", "dpo", "kto"):
            lines = [line async for line in export(app.state.context.database, form, weak=True)]  # type: ignore[arg-type]
            for row in map(msgspec.json.decode, lines):
                item = mine[row["provenance"]["feedback"]]  # KeyError: it is gone
                assert item["consent"] and item["conversation_id"] not in gone
