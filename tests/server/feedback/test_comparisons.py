"""Two answers, side by side: nothing tells which model wrote which until the vote."""

from __future__ import annotations

import json
import re

import pytest
from fastapi import FastAPI

from fireside.engine.client import EngineUnavailable
from fireside.server.feedback import comparisons, service
from tests.server.chat.people import said
from tests.server.chat.test_messages import ENDLESS
from tests.server.feedback.conftest import Giver
from tests.server.scripted_app import Scripted


@pytest.mark.parametrize("side", ["left", "right"])
async def test_blind_until_the_vote(bob: Giver, app: FastAPI, side: str) -> None:
    app.state.context.models.parameters["other"] = {"system": "An administrator's"}
    conversation = await bob.converse()
    question, answer = await bob.asked(conversation, "Why?")
    begun = await bob.compare(answer, "tiny", "other")
    ids = [begun[s]["id"] for s in ("left", "right")]
    seen = [begun, await bob.get("feedback")]
    for s in ("left", "right"):
        seen += [await bob.events(begun[s]["run_id"]), await bob.get(f"runs/{begun[s]['run_id']}")]
    tree = await bob.get(f"conversations/{conversation}")
    both = [message for message in tree["messages"] if message["id"] in ids]
    assert {message["parent_id"] for message in both} == {question["id"]}
    assert {message["content"] for message in both} == {"Hello there.", "From the other one."}
    # Everything that the API says of them, but what the models themselves say.
    told = json.dumps([seen, both]).replace("From the other one.", "").replace("other_", "")
    for secret in ("tiny", '"other"', "weights of", "prompt_tokens", "0.123", "An administrator's"):
        assert secret not in told, secret
    assert tree["current_leaf_id"] == ids[0]

    voted = await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": side}, 200)
    assert {voted["left"]["model"], voted["right"]["model"]} == {"tiny", "other"}
    by_content = {message["content"]: message["model"] for message in (voted["left"], voted["right"])}
    assert by_content == {"Hello there.": "tiny", "From the other one.": "other"}
    after = await bob.get(f"conversations/{conversation}")
    assert after["current_leaf_id"] == voted[side]["id"]
    assert len(after["messages"]) == 4 and all(message["usage"] for message in after["messages"][1:])
    assert "0.123" in json.dumps(after)
    (item,) = (await bob.get("feedback"))["items"]
    assert {item["model"], item["other_model"]} == {"tiny", "other"} and item["verdict"] == side
    again = await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 409)
    assert again["error"]["code"] == "already_chosen"


async def test_documents_keep_the_secret_too(bob: Giver, app: FastAPI) -> None:
    app.state.context.models.parameters["other"] = {"system": "An administrator's"}
    conversation = await bob.converse()
    _, answer = await bob.asked(conversation, "Why?")
    begun = await bob.compare(answer, "tiny", "other")

    async def documents() -> list[str]:
        texts = []
        for side in ("left", "right"):
            leaf = begun[side]["id"]
            for form in ("json", "markdown", "html"):
                query = {"format": form, "leaf": leaf}
                texts.append((await bob.http.get(f"/api/conversations/{conversation}/export", params=query)).text)
            token = (await bob.post(f"conversations/{conversation}/shares", {"leaf_id": leaf}))["token"]
            texts.append((await bob.http.get(f"/s/{token}")).text)
        return [text.replace("From the other one.", "") for text in texts]

    for text in await documents():
        assert "Why?" in text and not re.search(r"\bother\b|0\.123|An administrator's", text)
        assert text.count("tiny") == text.count('"tiny"')  # of the first answer, which JSON holds as well
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 200)
    assert any(re.search(r"\bother\b", text) for text in await documents())


async def test_sides_are_shuffled_and_their_order_tells_nothing(bob: Giver, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = await bob.converse()
    _, answer = await bob.asked(conversation, "Why?")
    left = {}
    for name, shuffle in (("as asked", lambda hows: None), ("turned", lambda hows: hows.reverse())):
        monkeypatch.setattr(comparisons, "_shuffle", shuffle)
        begun = await bob.compare(answer, "tiny", "other")
        made = [message["id"] for message in (await bob.get(f"conversations/{conversation}"))["messages"]]
        assert made[-2:] == [begun["left"]["id"], begun["right"]["id"]]
        left[name] = (await bob.message(conversation, begun["left"]["id"]))["content"]
    assert left == {"as asked": "Hello there.", "turned": "From the other one."}


async def test_one_model_twice(bob: Giver) -> None:
    conversation = await bob.converse()
    _, answer = await bob.asked(conversation, "Why?")
    begun = await bob.compare(answer)
    voted = await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "both_bad"}, 200)
    assert voted["left"]["model"] == voted["right"]["model"] == "tiny"
    assert (await bob.get(f"conversations/{conversation}"))["current_leaf_id"] == voted["left"]["id"]
    for parameters in ({"temperature": 0.0}, {"seed": 1}):
        refused = await bob.post(f"messages/{answer['id']}/comparison", {"parameters": parameters}, 409)
        assert refused["error"]["code"] == "same_twice"
        await bob.post(f"messages/{answer['id']}/comparison", {"parameters": parameters, "models": ["tiny", "other"]})
    await bob.post(f"messages/{answer['id']}/comparison", {"models": ["tiny", "none"]}, 404)
    await bob.post(f"messages/{answer['id']}/comparison", {"models": ["tiny"] * 3}, 400)


async def test_what_would_tell_or_spoil_it_has_to_wait(bob: Giver, script: Scripted) -> None:
    _, answer = await bob.asked(await bob.converse(), "Why?")
    script.answer = ENDLESS
    begun = await bob.post(f"messages/{answer['id']}/comparison")
    vote = f"feedback/{begun['feedback']['id']}/vote"
    assert (await bob.post(vote, {"verdict": "left"}, 409))["error"]["code"] == "still_running"
    for side in ("left", "right"):
        await bob.post(f"runs/{begun[side]['run_id']}/stop", status=200)
    left = f"messages/{begun['left']['id']}"
    for path, body in ((f"{left}/continue", {}), (f"{left}/edit", {"content": "x"})):
        assert (await bob.post(path, body, 409))["error"]["code"] == "comparison_open"
    assert (await bob.put(f"{left}/rating", {"verdict": "up"}, 409))["error"]["code"] == "comparison_open"
    await bob.post(vote, {"verdict": "right"}, 200)
    await bob.put(f"{left}/rating", {"verdict": "up"})


async def test_who_does_not_want_to_choose_is_told_as_well(bob: Giver) -> None:
    conversation = await bob.converse()
    _, answer = await bob.asked(conversation, "Why?")
    begun = await bob.compare(answer, "tiny", "other")
    await bob.delete(f"feedback/{begun['feedback']['id']}")
    models = {(await bob.message(conversation, begun[side]["id"]))["model"] for side in ("left", "right")}
    assert models == {"tiny", "other"}


async def test_errors_name_no_model(bob: Giver, script: Scripted, other: Scripted) -> None:
    conversation = await bob.converse()
    _, answer = await bob.asked(conversation, "Why?")

    def fails(request: object) -> object:
        raise EngineUnavailable("the model 'other' is starting")

    other.answer = fails
    begun = await bob.compare(answer, "tiny", "other")
    both = [await bob.message(conversation, begun[side]["id"]) for side in ("left", "right")]
    (failed,) = [message for message in both if message["status"] == "failed"]
    assert failed["error"] == {"message": "it could not be written", "code": None}
    events = await bob.events(failed["run_id"])
    assert said(events) == "" and "other" not in json.dumps(events)


async def test_a_vote_on_what_is_withdrawn_meanwhile(bob: Giver, monkeypatch: pytest.MonkeyPatch) -> None:
    _, answer = await bob.asked(await bob.converse(), "Why?")
    begun = await bob.compare(answer, "tiny", "other")
    real = service.consent_now

    async def consent_now(*args: object) -> bool:
        await bob.delete(f"feedback/{begun['feedback']['id']}")
        return await real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(service, "consent_now", consent_now)
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 404)
