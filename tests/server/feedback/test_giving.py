"""Thumbs, edits, answers given again, and what their giver sees and takes back."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from fireside.server.db.base import new_id
from fireside.server.feedback import service
from fireside.server.feedback.tables import Feedback
from tests.server.chat.test_messages import ENDLESS
from tests.server.feedback.conftest import Giver
from tests.server.scripted_app import Scripted, says


async def test_a_thumb_and_what_is_thought_better_of(bob: Giver) -> None:
    conversation = await bob.converse(title="Candles")
    question, answer = await bob.asked(conversation, "Why?")
    given = await bob.rate(answer, "up")
    assert (given["kind"], given["verdict"], given["message_id"]) == ("rating", "up", answer["id"])
    changed = await bob.rate(answer, "down", reasons=["unclear", "too_long", "unclear"], comment=" Too much. ")
    assert changed["id"] == given["id"] and changed["changed_at"] > given["changed_at"]
    (item,) = (await bob.get("feedback", conversation=conversation))["items"]
    assert (item["verdict"], item["reasons"], item["comment"]) == ("down", ["unclear", "too_long"], "Too much.")
    assert (item["title"], item["excerpt"], item["model"]) == ("Candles", "Hello there.", "tiny")
    assert (await bob.get("feedback", conversation=new_id()))["items"] == []
    for body in (
        {"verdict": "meh"},
        {"verdict": "up", "reasons": ["because"]},
        {"verdict": "up", "comment": "x" * 2001},
    ):
        await bob.put(f"messages/{answer['id']}/rating", body, 400)
    await bob.put(f"messages/{question['id']}/rating", {"verdict": "up"}, 400)
    await bob.delete(f"feedback/{given['id']}")
    assert (await bob.get("feedback"))["items"] == []
    await bob.delete(f"feedback/{given['id']}", 404)


async def test_two_thumbs_at_once_are_one(bob: Giver, monkeypatch: pytest.MonkeyPatch) -> None:
    _, answer = await bob.asked(await bob.converse(), "Why?")
    # The slower one looks before the faster one has written.
    real, waiting = service.add, asyncio.Event()
    refused = []

    async def add(*args: object, **how: object) -> object:
        if not waiting.is_set():
            waiting.set()
            await bob.rate(answer, "down")
        try:
            return await real(*args, **how)  # type: ignore[arg-type]
        except IntegrityError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(service, "add", add)
    await bob.rate(answer, "up")
    assert len(refused) == 1
    assert [item["verdict"] for item in (await bob.get("feedback"))["items"]] == ["up"]


async def test_an_answer_that_is_written_is_not_rated(bob: Giver, script: Scripted) -> None:
    script.answer = ENDLESS
    started = await bob.ask(await bob.converse(), "Why?")
    body = {"verdict": "up"}
    refused = await bob.put(f"messages/{started['answer']['id']}/rating", body, 409)
    assert refused["error"]["code"] == "still_running"
    await bob.post(f"runs/{started['run']['id']}/stop", status=200)
    await bob.put(f"messages/{started['answer']['id']}/rating", body)


async def test_edits_and_answers_given_again_are_noted(bob: Giver, script: Scripted) -> None:
    conversation = await bob.converse()
    question, answer = await bob.asked(conversation, "Why?")
    script.answer = says("Because.")
    again = await bob.again(answer)
    edited = (await bob.post(f"messages/{again['id']}/edit", {"content": "Because of it."}))["message"]
    await bob.post(f"messages/{again['id']}/edit", {"content": "Because."})  # the same words say nothing
    await bob.post(f"messages/{question['id']}/edit", {"content": "How?", "run": False})
    edit, regeneration = (await bob.get("feedback"))["items"]
    assert (edit["kind"], edit["verdict"]) == ("edit", "better")
    assert (edit["message_id"], edit["other_id"]) == (edited["id"], again["id"])
    assert (edit["model"], edit["other_model"]) == (None, "tiny")
    assert (regeneration["kind"], regeneration["verdict"]) == ("regeneration", None)
    assert (regeneration["message_id"], regeneration["other_id"]) == (again["id"], answer["id"])
    assert (await bob.put(f"messages/{again['id']}/preference", {"verdict": "worse"}))["verdict"] == "worse"
    await bob.put(f"messages/{answer['id']}/preference", {"verdict": "worse"}, 404)


async def test_all_of_it_is_listed_in_pages_and_taken_back_at_once(bob: Giver, ada: Giver) -> None:
    for person, count in ((bob, 3), (ada, 1)):
        for _ in range(count):
            _, answer = await person.asked(await person.converse(), "Why?")
            await person.rate(answer, "up")
    archive = zipfile.ZipFile(io.BytesIO((await bob.http.get("/api/me/export")).content))
    assert [record["verdict"] for record in json.loads(archive.read("feedback.json"))] == ["up"] * 3
    page = await bob.get("feedback", limit=2)
    rest = await bob.get("feedback", limit=2, cursor=page["next_cursor"])
    assert (len(page["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    loaded: list[object] = []

    def load(row: object, _: object) -> None:
        loaded.append(row)

    event.listen(Feedback, "load", load)
    answer = await bob.http.delete("/api/feedback")
    event.remove(Feedback, "load", load)
    assert not loaded  # there may be many
    assert answer.json() == {"withdrawn": 3}
    assert (await bob.get("feedback"))["items"] == []
    assert len((await ada.get("feedback"))["items"]) == 1


async def test_consent_is_asked_for_and_holds_as_it_is_said(bob: Giver) -> None:
    assert await bob.get("feedback/consent") == {"is_given": None, "changed_at": None}
    answers = [(await bob.asked(await bob.converse(), "Why?"))[1] for _ in range(3)]

    async def consents() -> list[bool]:
        return [item["consent"] for item in (await bob.get("feedback"))["items"]][::-1]

    await bob.rate(answers[0], "up")
    assert await consents() == [False]
    assert (await bob.consent(including_earlier=False))["is_given"] is True
    await bob.rate(answers[1], "up")
    assert await consents() == [False, True]
    await bob.consent()
    assert await consents() == [True, True]
    await bob.consent(False, including_earlier=False)
    await bob.rate(answers[2], "up")
    assert await consents() == [True, True, False]
    await bob.consent(False)
    assert await consents() == [False, False, False]
    await bob.put("feedback/consent", {"is_given": True}, 400)


async def test_what_is_said_after_a_no_is_not_used(ada: Giver, bob: Giver) -> None:
    """Of feedback that was begun under a yes: a thumb that is changed, a preference, a vote."""
    await bob.consent()
    _, answer = await bob.asked(await bob.converse(), "Why?")
    await bob.rate(answer, "up")
    again = await bob.again(answer)
    begun = await bob.compare(answer, "tiny", "other")
    await bob.consent(False, including_earlier=False)
    assert [item["consent"] for item in (await bob.get("feedback"))["items"]] == [True] * 3
    await bob.rate(answer, "down", comment="For you alone.")
    await bob.put(f"messages/{again['id']}/preference", {"verdict": "worse"})
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 200)
    assert [item["consent"] for item in (await bob.get("feedback"))["items"]] == [False] * 3
    assert [await ada.export(form) for form in ("sft", "dpo", "kto")] == [[], [], []]


@pytest.mark.parametrize("has_thumb", [False, True])
async def test_a_no_in_the_same_moment_holds_for_it(
    bob: Giver, monkeypatch: pytest.MonkeyPatch, has_thumb: bool
) -> None:
    _, answer = await bob.asked(await bob.converse(), "Why?")
    if has_thumb:
        await bob.rate(answer, "up")
    await bob.consent(including_earlier=False)
    real, refusals = service.consent_now, []

    async def consent_now(*args: object) -> bool:
        consent = await real(*args)  # type: ignore[arg-type]
        refusals.append(asyncio.create_task(bob.consent(False)))
        await asyncio.wait(refusals, timeout=0.1)  # it has every chance to be first
        return consent

    monkeypatch.setattr(service, "consent_now", consent_now)
    await bob.rate(answer, "down")
    await asyncio.gather(*refusals)
    assert [item["consent"] for item in (await bob.get("feedback"))["items"]] == [False]
