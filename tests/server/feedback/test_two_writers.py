"""What one model began and another went on with is neither one's alone, wherever it is said who wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.chat.test_messages import ENDLESS
from tests.server.feedback.conftest import Giver
from tests.server.moving.uploads import imported, trees
from tests.server.scripted_app import Scripted, says
from tests.waiting import until


async def go_on(giver: Giver, answer: Any, model: str) -> Any:
    """The answer, once it is written on."""
    more = await giver.post(f"messages/{answer['id']}/continue", {"model": model, "parameters": {"max_tokens": 100}})
    await giver.events(more["run"]["id"])
    return more["answer"]


@pytest.fixture
async def both(bob: Giver, script: Scripted) -> Any:
    """Bob's answer, begun by one model and gone on with by the other; with his consent, and marked up."""
    await bob.consent()
    conversation = await bob.converse(title="t")
    _, cut = await bob.asked(conversation, "Why?", parameters={"max_tokens": 4, "temperature": 0.5})
    assert cut["earlier_models"] == []
    answer = await go_on(bob, cut, "other")
    assert (answer["model"], answer["earlier_models"]) == ("other", ["tiny"])
    await bob.rate(answer, "up")
    return await bob.message(conversation, answer["id"]) | {"conversation": conversation}


async def test_exports_name_them_all(ada: Giver, bob: Giver, both: Any) -> None:
    """Its text is an example all the same: it is the text that was marked up."""
    assert both["content"] == "HellFrom the other one."
    origin = {
        "message": both["id"], "model": None, "model_version": None, "parameters": None,
        "writers": [
            {
                "model": "tiny", "model_version": "weights of tiny", "end": 4,
                "parameters": {"temperature": 0.5, "max_tokens": 4},
            },
            {
                "model": "other", "model_version": "weights of other", "end": 23,
                "parameters": {"temperature": 0.123, "max_tokens": 100},
            },
        ],
    }  # fmt: skip
    for form in ("sft", "kto"):
        (row,) = await ada.export(form)
        assert row["provenance"]["answer"] == origin
    edited = (await bob.post(f"messages/{both['id']}/edit", {"content": "Hello!"}))["message"]
    (pair,) = await ada.export("dpo")
    assert pair["provenance"]["rejected"] == origin
    assert (pair["provenance"]["chosen"]["message"], "writers" in pair["provenance"]["chosen"]) == (edited["id"], False)


async def test_an_edit_and_another_answer_are_their_own_writers(bob: Giver, both: Any) -> None:
    edited = (await bob.post(f"messages/{both['id']}/edit", {"content": "Hello!"}))["message"]
    again = await bob.again(both)
    assert [(one["model"], one["earlier_models"]) for one in (edited, again)] == [(None, []), ("tiny", [])]
    assert (await go_on(bob, edited, "tiny"))["earlier_models"] == [None]  # what a person began


async def test_its_thumb_counts_for_neither(ada: Giver, bob: Giver, both: Any) -> None:
    assert (await ada.get("admin/feedback/leaderboard"))["models"] == []
    _, alone = await bob.asked(both["conversation"], "And?", both["id"])
    await bob.rate(alone, "up")
    (standing,) = (await ada.get("admin/feedback/leaderboard"))["models"]
    assert (standing["model"], standing["up"]) == ("tiny", 1)


async def test_a_vote_stays_with_the_one_that_was_voted_for(ada: Giver, bob: Giver, script: Scripted) -> None:
    _, answer = await bob.asked(await bob.converse(title="t"), "Why?")
    begun = await bob.compare(answer, "tiny", "other")
    of = {}
    for side in ("left", "right"):
        message = await bob.message(begun["feedback"]["conversation_id"], begun[side]["id"])
        of["tiny" if message["content"] == "Hello there." else "other"] = (side, message)
    side, winner = of["other"]
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": side}, 200)

    async def wins() -> dict[str, tuple[int, int]]:
        board = await ada.get("admin/feedback/leaderboard")
        return {standing["model"]: (standing["wins"], standing["losses"]) for standing in board["models"]}

    assert await wins() == {"other": (1, 0), "tiny": (0, 1)}
    script.answer = says(" And more.")
    assert (await go_on(bob, winner, "tiny"))["earlier_models"] == ["other"]
    assert await wins() == {"other": (1, 0), "tiny": (0, 1)}


async def test_who_was_stopped_before_another_went_on_has_not_lost(ada: Giver, bob: Giver, script: Scripted) -> None:
    _, answer = await bob.asked(await bob.converse(title="t"), "Why?")
    script.answer = ENDLESS
    before = script.client.stats.generated_tokens
    begun = await bob.post(f"messages/{answer['id']}/comparison", {"models": ["tiny", "other"]})
    await until(lambda: script.client.stats.generated_tokens > before + 3, 5)
    for side in ("left", "right"):
        await bob.post(f"runs/{begun[side]['run_id']}/stop", status=200)
    left = await bob.message(begun["feedback"]["conversation_id"], begun["left"]["id"])
    stopped = "left" if left["status"] == "stopped" else "right"
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "both_bad"}, 200)
    script.answer = says(" Never mind.")
    assert (await go_on(bob, begun[stopped], "other"))["earlier_models"] == ["tiny"]
    assert (await ada.get("admin/feedback/leaderboard"))["models"] == []


async def test_a_file_names_them_all(bob: Giver, both: Any) -> None:
    address = f"/api/conversations/{both['conversation']}/export"
    assert "## Answer (tiny, other)" in (await bob.http.get(address, params={"format": "markdown"})).text
    assert "<bdi>tiny, other</bdi>" in (await bob.http.get(address, params={"format": "html"})).text
    exported = await bob.http.get(address)
    (writer,) = exported.json()["conversation"]["messages"][1]["earlier_writers"]
    assert (writer["model"], writer["end"]) == ("tiny", 4)
    await bob.delete(f"conversations/{both['conversation']}")
    await imported(bob, exported.content)
    (tree,) = await trees(bob)
    assert tree["messages"][1]["earlier_models"] == ["tiny"]
