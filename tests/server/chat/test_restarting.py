"""Who asks while the engine is being started again waits for it, and is told if it does not come."""

from __future__ import annotations

import pytest

from fireside.engine.client import EngineState
from fireside.server.chat.runs import answering
from tests.server.chat.people import Person, said
from tests.server.scripted_app import Scripted, says


async def test_a_cut_answer_goes_on_when_the_engine_is_back(ada: Person, script: Scripted) -> None:
    script.answer = says("One two three", crash_after=4)
    conversation = await ada.converse(title="t")
    _, cut = await ada.asked(conversation, "Count")
    assert (cut["status"], cut["content"]) == ("failed", "One ")
    script.answer = says("two three")
    again = await ada.post(f"messages/{cut['id']}/continue")
    assert script.client.state is EngineState.RESTARTING
    await script.client.start()
    assert said(await ada.events(again["run"]["id"])) == "two three"
    whole = await ada.message(conversation, cut["id"])
    assert (whole["status"], whole["content"]) == ("complete", "One two three")


@pytest.mark.parametrize("state", [EngineState.RESTARTING, EngineState.FAILED])
async def test_an_engine_that_does_not_come_back(
    state: EngineState, ada: Person, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that will never serve again is not waited for."""
    monkeypatch.setattr(answering, "PATIENCE_SECONDS", 0.05 if state is EngineState.RESTARTING else 60.0)
    conversation = await ada.converse(title="t")
    script.client.crash(state, "its worker died")
    _, failed = await ada.asked(conversation, "Hi")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "engine_unavailable")


async def test_who_waits_can_stop(ada: Person, script: Scripted) -> None:
    conversation = await ada.converse(title="t")
    script.client.crash()
    started = await ada.ask(conversation, "Hi")
    assert (await ada.post(f"runs/{started['run']['id']}/stop", status=200))["status"] == "stopped"
