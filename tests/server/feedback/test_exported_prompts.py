"""Exported prompts are what models were shown, and hold nobody's words but the giver's and the models'."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from fireside.assistant.text import ChatPrompt
from tests.server.chat.test_messages import ENDLESS
from tests.server.feedback.conftest import Giver
from tests.server.moving import exports
from tests.server.moving.uploads import imported, trees
from tests.server.scripted_app import Scripted, byte_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}


async def exported(ada: Giver) -> list[dict[str, Any]]:
    return [row for form in ("sft", "dpo", "kto") for row in await ada.export(form)]


async def check_is_what_was_sent(app: FastAPI, script: Scripted, messages: list[dict[str, Any]]) -> None:
    """As the last prompt that is not for a title."""
    sent = next(r for r in reversed(script.client.requests) if "title" not in byte_tokenizer().decode(r.prompt_ids))
    model = app.state.context.models.default
    assert tuple(await model.encode(ChatPrompt(messages=messages))) == tuple(sent.prompt_ids)


async def test_instructions_of_then(ada: Giver, bob: Giver, script: Scripted, app: FastAPI) -> None:
    await bob.consent()
    project = await bob.post("projects", {"name": "Verse", "instructions": "Rhyme."})
    conversation = await bob.converse(parameters={"system": "Answer in verse."}, project_id=project["id"])
    _, first = await bob.asked(conversation, "Why?")
    _, second = await bob.asked(conversation, "And?", first["id"])
    await bob.patch("me", {"instructions": "Something else."})
    await bob.patch(f"projects/{project['id']}", {"instructions": "Something else."})
    await bob.patch(f"conversations/{conversation}", {"parameters": {}})
    await bob.rate(second, "up")
    (row,) = await ada.export("sft")
    assert row["messages"][0] == {"role": "system", "content": "Answer in verse.\n\nRhyme.\n\nBe brief."}
    await check_is_what_was_sent(app, script, row["messages"][:-1])
    edit = (await bob.post(f"messages/{second['id']}/edit", {"content": "Better."}))["message"]
    rows = {row["provenance"]["answer"]["message"]: row for row in await ada.export("kto")}
    assert rows[edit["id"]]["prompt"] == rows[second["id"]]["prompt"] == row["messages"][:-1]


async def test_what_was_left_out_for_want_of_room(ada: Giver, bob: Giver, script: Scripted, app: FastAPI) -> None:
    await bob.consent()
    conversation = await bob.converse(title="Long")
    _, first = await bob.asked(conversation, "x" * 1200)
    question, second = await bob.asked(conversation, "y" * 1200, first["id"])
    script.answer = ENDLESS
    stopped = await bob.ask(conversation, "y" * 1200, first["id"])
    await bob.post(f"runs/{stopped['run']['id']}/stop", status=200)
    await bob.rate(second, "up")
    (row,) = await ada.export("sft")
    assert [message["content"] for message in row["messages"][:-1]] == ["Be brief.", "y" * 1200]
    assert row["provenance"]["path"] == [question["id"]]
    await check_is_what_was_sent(app, script, row["messages"][:-1])
    # In the place of one that was stopped stand its giver's own words, which are whole.
    await bob.post(f"messages/{stopped['answer']['id']}/edit", {"content": "Better."})
    assert [len(row["messages"]) for row in await ada.export("sft")] == [3, 3]


async def test_two_models_that_are_told_different_things(ada: Giver, bob: Giver, app: FastAPI) -> None:
    app.state.context.models.parameters["other"] = {"system": "You are the other one."}
    await bob.consent()
    _, answer = await bob.asked(await bob.converse(), "Why?")
    begun = await bob.compare(answer, "tiny", "other")
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 200)
    prompts = {row["completion"][0]["content"]: row["prompt"][0]["content"] for row in await ada.export("kto")}
    assert prompts == {
        "Hello there.": "Be brief.", "From the other one.": "You are the other one.\n\nBe brief.",
    }  # fmt: skip
    assert await ada.export("dpo") == []  # a pair has one prompt


async def test_an_answer_of_two_prompts_has_none(ada: Giver, bob: Giver) -> None:
    await bob.consent()
    conversation = await bob.converse()
    _, cut = await bob.asked(conversation, "Why?", parameters={"max_tokens": 4})
    await bob.patch("me", {"instructions": "Something else."})
    more = await bob.post(f"messages/{cut['id']}/continue", {"parameters": {"max_tokens": 100}})
    await bob.events(more["run"]["id"])
    await bob.rate(cut, "up")
    assert await exported(ada) == []
    # Nor has one above which an answer was written on.
    _, second = await bob.asked(conversation, "And?", cut["id"])
    await bob.rate(second, "up")
    assert len(await ada.export("sft")) == 1
    more = await bob.post(f"messages/{cut['id']}/continue")
    await bob.events(more["run"]["id"])
    assert await exported(ada) == []


async def test_what_somebody_else_shared_is_in_no_export(ada: Giver, bob: Giver) -> None:
    """Ada's words are not Bob's to give."""
    conversation = await ada.converse(title="Ada's")
    await ada.asked(conversation, "Ada's words")
    link = await ada.post(f"conversations/{conversation}/shares", {})
    made = await bob.post("shares/continue", {"token": link["token"]})
    await bob.consent()
    question, answer = (await bob.get(f"conversations/{made['id']}"))["messages"]
    _, own = await bob.asked(made["id"], "Bob's words", answer["id"])
    for given in (answer, own, await bob.again(answer)):
        await bob.rate(given, "up")
    await bob.post(f"messages/{answer['id']}/edit", {"content": "Nearly Ada's words"})
    reworded = await bob.post(f"messages/{question['id']}/edit", {"content": "Nearly Ada's words"})
    await bob.events(reworded["run"]["id"])
    await bob.rate(reworded["answer"], "up")
    begun = await bob.compare(answer, "tiny", "other")
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 200)
    assert await exported(ada) == []


async def test_what_was_imported_is_in_no_export_and_no_standing(ada: Giver, bob: Giver) -> None:
    await bob.consent()
    await imported(bob, exports.encoded([exports.native()]))
    (tree,) = await trees(bob)
    answers = [message for message in tree["messages"] if message["role"] == "assistant"]
    assert any(answer["model"] for answer in answers)
    for answer in answers:
        await bob.rate(answer, "up")
    _, own = await bob.asked(tree["id"], "And here?", answers[-1]["id"])
    await bob.rate(own, "up")
    assert await exported(ada) == []
    board = await ada.get("admin/feedback/leaderboard")
    assert [(model["model"], model["up"]) for model in board["models"]] == [("tiny", 1)]
